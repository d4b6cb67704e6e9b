/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the kernel can be asked to do to a page, and the proof that it was done. Every verb asserts
 * its effect: a test that only hopes for a page's state passes where it tested nothing.
 */
#ifndef PAGESTATE_H
#define PAGESTATE_H
#include "guesttest.h"
#include <fcntl.h>
#include <sys/mman.h>

#define PAGE_PFN(entry)		((entry) & ((1ULL << 55) - 1))	/* 0 without CAP_SYS_ADMIN */
#define PAGE_SOFT_DIRTY		(1ULL << 55)
#define PAGE_SWAPPED		(1ULL << 62)
#define PAGE_PRESENT		(1ULL << 63)

static inline size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

static inline uint64_t page_entry(const volatile void *address)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		gt_skip("no /proc/self/pagemap: %s", strerror(errno));
	gt_need(pread(fd, &entry, 8, (uintptr_t)address / page_size() * 8) == 8, "pagemap entry");
	close(fd);
	return entry;
}

/* Private small pages, filled. A huge page would change what a fault does to them. */
static inline char *page_map(size_t pages, int fill)
{
	char *map = mmap(NULL, pages * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	gt_need(map != MAP_FAILED, "mmap of %zu pages", pages);
	madvise(map, pages * page_size(), MADV_NOHUGEPAGE);	/* EINVAL without THP: nothing to forbid */
	memset(map, fill, pages * page_size());
	return map;
}

/* Read fault, then write fault: a write alone may take a path that does not copy. */
static inline void page_touch(volatile char *byte, char value)
{
	(void)*byte;
	*byte = value;
}

/* Leaves the pages writable by the mapping and write-protected in the page table. */
static inline void page_mprotect_cycle(void *start, size_t length)
{
	gt_need(!mprotect(start, length, PROT_READ), "mprotect to PROT_READ");
	gt_need(!mprotect(start, length, PROT_READ | PROT_WRITE), "mprotect back to PROT_WRITE");
}

/*
 * Write-protects the whole process to see the next writes. A kernel without soft-dirty takes the
 * order and ignores it, and a pinned page may be left out: the proof is a page of our own.
 */
static inline void page_clear_soft_dirty(void)
{
	char *probe = page_map(1, 1);
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	bool was_dirty = page_entry(probe) & PAGE_SOFT_DIRTY;

	if (fd < 0 || write(fd, "4", 1) != 1)
		gt_skip("soft-dirty bits cannot be cleared: %s", strerror(errno));
	close(fd);
	if (!was_dirty || page_entry(probe) & PAGE_SOFT_DIRTY)
		gt_skip("clearing soft-dirty bits has no effect: bit 55 was %d, is %d", was_dirty,
			!!(page_entry(probe) & PAGE_SOFT_DIRTY));
	munmap(probe, page_size());
}

/* A fresh page sits in a per-CPU vector that holds a reference; other fresh pages push it out. */
static inline void page_drain_vectors(void)
{
	munmap(page_map(64, 1), 64 * page_size());
}

static inline void page_read_file(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
}

static inline bool page_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}

/* KiB of the mapping that starts at map which lie in huge pages mapped as such. */
static inline unsigned long page_huge_kib(const void *map)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib = 0;
	char line[512];
	bool here = false;

	gt_need(smaps, "/proc/self/smaps");
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)map && (uintptr_t)map < end;
		else if (here)
			sscanf(line, "AnonHugePages: %lu", &kib);
	}
	fclose(smaps);
	return kib;
}

#define PAGE_THP_DIR "/sys/kernel/mm/transparent_hugepage/"

/* One anonymous transparent huge page, filled and proven mapped by a PMD. Sets *length. */
static inline char *page_map_thp(size_t *length, int fill)
{
	char text[128], *start, *map;

	page_read_file(PAGE_THP_DIR "hpage_pmd_size", text, sizeof(text));
	*length = strtoul(text, NULL, 10);
	if (!*length)
		gt_skip("the kernel has no transparent huge pages");
	if ((size_t)get_avphys_pages() * page_size() < 4 * *length)
		gt_skip("too little free memory for huge pages of %zu MiB", *length >> 20);
	page_read_file(PAGE_THP_DIR "enabled", text, sizeof(text));
	if (strstr(text, "[never]") && !page_write_file(PAGE_THP_DIR "enabled", "madvise"))
		gt_skip("transparent huge pages are off and cannot be switched on: %s", strerror(errno));
	start = mmap(NULL, 2 * *length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	gt_need(start != MAP_FAILED, "mmap of %zu bytes", 2 * *length);
	map = (char *)(((uintptr_t)start + *length - 1) & -*length);
	if (map > start)
		munmap(start, map - start);
	munmap(map + *length, start + *length - map);
	gt_need(!madvise(map, *length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	memset(map, fill, *length);
	if (strstr(text, "[never]"))
		page_write_file(PAGE_THP_DIR "enabled", "never");
	gt_need(page_huge_kib(map) == *length >> 10, "a huge page was asked for, %lu KiB came",
		page_huge_kib(map));
	return map;
}
#endif
