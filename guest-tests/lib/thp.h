/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Transparent huge pages, PMD-mapped and PTE-mapped. */
#ifndef THP_H
#define THP_H
#include "guesttest.h"
#include "pagestate.h"

/* The named field of the mapping with this address, in KiB. */
static inline unsigned long page_smaps_kib(const void *map, const char *field)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	unsigned long start, end, kib = 0;
	size_t length = strlen(field);
	char line[512];
	bool here = false;

	gt_need(smaps, "/proc/self/smaps");
	while (fgets(line, sizeof(line), smaps)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			here = start <= (uintptr_t)map && (uintptr_t)map < end;
		else if (here && !strncmp(line, field, length) && line[length] == ':')
			kib = strtoul(line + length + 1, NULL, 10);
	}
	fclose(smaps);
	return kib;
}

/* KiB of the mapping that lie in anonymous huge pages mapped as such. */
static inline unsigned long page_huge_kib(const void *map)
{
	return page_smaps_kib(map, "AnonHugePages");
}

#define PAGE_THP_DIR "/sys/kernel/mm/transparent_hugepage/"

/* The chosen word of a file such as "always within_size [never]". */
static inline void page_read_chosen(const char *path, char *word, size_t room)
{
	char text[128], *start, *end;

	page_read_file(path, text, sizeof(text));
	start = strchr(text, '[');
	end = start ? strchr(start, ']') : NULL;
	gt_need(end, "%s has no [value]: %s", path, text);
	snprintf(word, room, "%.*s", (int)(end - start - 1), start + 1);
}

static inline size_t page_thp_size(void)
{
	char text[32];

	page_read_file(PAGE_THP_DIR "hpage_pmd_size", text, sizeof(text));
	if (!strtoul(text, NULL, 10))
		gt_skip("the kernel has no transparent huge pages");
	return strtoul(text, NULL, 10);
}

/* Room for a mapping that begins at a multiple of align, a power of two: give it to MAP_FIXED. */
static inline char *page_find_room(size_t length, size_t align)
{
	char *start = mmap(NULL, length + align, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *room = (char *)(((uintptr_t)start + align - 1) & -align);

	gt_need(start != MAP_FAILED, "mmap of %zu bytes", length + align);
	if (room > start)
		munmap(start, room - start);
	munmap(room + length, start + align - room);
	return room;
}

/* What said never to huge pages before page_allow_thp(). */
static char page_thp_off[2][96];

static inline void page_forbid_thp(void)
{
	for (int i = 0; i < 2; i++)
		if (*page_thp_off[i])
			page_write_file(page_thp_off[i], "never");
}

/* Lets MADV_HUGEPAGE have huge pages until the test ends, also where all of them or those of this size are off. */
static inline void page_allow_thp(size_t size)
{
	char path[sizeof(page_thp_off[0])], chosen[16];

	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), PAGE_THP_DIR "%s", "enabled");
		if (i)
			snprintf(path, sizeof(path), PAGE_THP_DIR "hugepages-%zukB/enabled", size >> 10);
		if (access(path, F_OK))
			continue;
		page_read_chosen(path, chosen, sizeof(chosen));
		if (strcmp(chosen, "never"))
			continue;
		if (!page_write_file(path, "madvise"))
			gt_skip("transparent huge pages are off, and %s cannot be written: %s", path, strerror(errno));
		strcpy(page_thp_off[i], path);
		gt_at_end(page_forbid_thp);
	}
}

/* Maps an anonymous THP, fills it and checks that it is PMD-mapped. Sets *length. */
static inline char *page_map_thp(size_t *length, int fill)
{
	char *map;

	*length = page_thp_size();
	if ((size_t)get_avphys_pages() * page_size() < 4 * *length)
		gt_skip("not enough free memory for huge pages of %zu MiB", *length >> 20);
	page_allow_thp(*length);
	map = mmap(page_find_room(*length, *length), *length, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(map != MAP_FAILED, "mmap of %zu bytes", *length);
	gt_need(!madvise(map, *length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	memset(map, fill, *length);
	for (int i = 0; i < 3 && page_huge_kib(map) != *length >> 10; i++) {
		/* what is free may be in pieces, after other tests */
		page_write_file("/proc/sys/vm/compact_memory", "1");
		gt_need(!madvise(map, *length, MADV_DONTNEED), "MADV_DONTNEED");
		memset(map, fill, *length);
	}
	gt_need(page_huge_kib(map) == *length >> 10, "only %lu KiB are mapped as a huge page",
		page_huge_kib(map));
	return map;
}

/* Checks that the range is still a THP, but PTE-mapped, on its first few pages. */
static inline void page_need_thp_mapped_by_ptes(const char *map)
{
	gt_need(!page_huge_kib(map), "the huge page is still PMD-mapped");
	for (size_t i = 0; i < 4; i++)
		gt_need(page_is(map + i * page_size(), PAGE_IN_THP), "page %zu is not part of a huge page", i);
}
#endif
