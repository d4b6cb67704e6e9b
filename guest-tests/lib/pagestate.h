/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Brings pages into a given state and verifies it. Every function checks its effect: otherwise a test
 * could pass without having tested anything.
 */
#ifndef PAGESTATE_H
#define PAGESTATE_H
#include "guesttest.h"
#include <fcntl.h>
#include <sched.h>
#include <sys/mman.h>

#define PAGE_PFN(entry)		((entry) & ((1ULL << 55) - 1))	/* 0 without CAP_SYS_ADMIN */
#define PAGE_SOFT_DIRTY		(1ULL << 55)
#define PAGE_SWAPPED		(1ULL << 62)
#define PAGE_PRESENT		(1ULL << 63)

/* Bits of /proc/kpageflags: what the kernel thinks of the page behind the mapping. */
enum { PAGE_IN_LRU = 5, PAGE_WRITEBACK = 8, PAGE_IN_SWAPCACHE = 13, PAGE_SWAPBACKED = 14, PAGE_HUGE = 17,
       PAGE_IN_THP = 22 };

static inline size_t page_size(void)
{
	return sysconf(_SC_PAGESIZE);
}

/* The nth 64-bit word of a file of /proc. */
static inline uint64_t page_word(const char *file, uint64_t n)
{
	uint64_t word = 0;
	int fd = open(file, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		gt_skip("no %s: %s", file, strerror(errno));
	gt_need(pread(fd, &word, 8, n * 8) == 8, "entry %llu of %s", (unsigned long long)n, file);
	close(fd);
	return word;
}

static inline uint64_t page_entry(const volatile void *address)
{
	return page_word("/proc/self/pagemap", (uintptr_t)address / page_size());
}

/*
 * The number of the page frame behind an address that is mapped. A page on its way to another node, as NUMA
 * balancing has it, looks for a moment as if it were in swap.
 */
static inline uint64_t page_frame(const volatile void *address)
{
	uint64_t entry = page_entry(address);

	for (int i = 0; i < 200 && entry & PAGE_SWAPPED; i++) {
		usleep(1000);
		entry = page_entry(address);
	}
	gt_need(entry & PAGE_PRESENT, "a page mapped at %p, pagemap entry 0x%llx", address,
		(unsigned long long)entry);
	if (!PAGE_PFN(entry))
		gt_skip("no permission to read page frame numbers");
	return PAGE_PFN(entry);
}

static inline bool page_is(const volatile void *address, int flag)
{
	return page_word("/proc/kpageflags", page_frame(address)) >> flag & 1;
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

/* Leaves the pages writable in the VMA and write-protected in the page table. */
static inline void page_mprotect_cycle(void *start, size_t length)
{
	gt_need(!mprotect(start, length, PROT_READ), "mprotect to PROT_READ");
	gt_need(!mprotect(start, length, PROT_READ | PROT_WRITE), "mprotect back to PROT_WRITE");
}

/*
 * Write-protects the whole process to track writes. A kernel without soft-dirty bits may accept the
 * request and ignore it, and pinned pages may be skipped, so the effect is checked on a page of its
 * own.
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

/* A new page is in a per-CPU LRU batch that holds a reference; other new pages flush the batch. */
static inline void page_drain_vectors(void)
{
	munmap(page_map(64, 1), 64 * page_size());
}

/* The batches are per CPU, so those that were filled here must be flushed on this CPU. */
static inline void page_stay_on_cpu(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	gt_need(!sched_setaffinity(0, sizeof(here), &here), "staying on a CPU");
}

/* Reclaim sees only what is on the LRU lists. */
static inline void page_settle(const volatile void *address)
{
	for (int i = 0; i < 100 && !page_is(address, PAGE_IN_LRU); i++)
		page_drain_vectors();
	gt_need(page_is(address, PAGE_IN_LRU), "the page did not reach the LRU lists");
}

/*
 * Makes the pages lazyfree: reclaim may discard them without writing them. This uses a per-CPU batch as
 * well, which other pages flush.
 */
static inline void page_free_lazily(char *start, size_t pages)
{
	page_settle(start);
	gt_need(!madvise(start, pages * page_size(), MADV_FREE), "MADV_FREE");
	for (int i = 0; i < 100 && page_is(start, PAGE_SWAPBACKED); i++) {
		char *push = page_map(64, 1);

		page_settle(push);
		gt_need(!madvise(push, 64 * page_size(), MADV_FREE), "MADV_FREE");
		munmap(push, 64 * page_size());
	}
	for (size_t i = 0; i < pages; i++)
		gt_need(!page_is(start + i * page_size(), PAGE_SWAPBACKED), "page %zu is not lazyfree", i);
}

static inline void page_read_file(const char *path, char *text, size_t room)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, room - 1);

	if (fd >= 0)
		close(fd);
	text[n > 0 ? n : 0] = 0;
}

/* The number behind a word at the start of a line of a file of /proc, in KiB where the file says so. */
static inline unsigned long page_read_field(const char *path, const char *word)
{
	char text[8192], *line = text;

	page_read_file(path, text, sizeof(text));
	while (line && strncmp(line, word, strlen(word))) {
		line = strchr(line, '\n');
		line += !!line;
	}
	if (!line)
		gt_broken("no %s in %s", word, path);
	return strtoul(line + strlen(word), NULL, 10);
}

static inline bool page_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return done;
}
#endif
