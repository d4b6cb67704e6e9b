/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A folio of some pages, larger than a page and smaller than a huge page. */
#ifndef MTHP_H
#define MTHP_H
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"

/* Maps one private folio of this size, filled with ones. Sets *length. */
static inline char *mthp_map(size_t *length, size_t size)
{
	char path[96], before[16], *map;
	uint64_t first;

	*length = size;
	snprintf(path, sizeof(path), PAGE_THP_DIR "hugepages-%zukB/enabled", size >> 10);
	if (access(path, F_OK))
		gt_skip("the kernel has no folios of %zu KiB", size >> 10);
	page_read_chosen(path, before, sizeof(before));
	map = mmap(page_find_room(size, size), size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(map != MAP_FAILED && !madvise(map, size, MADV_HUGEPAGE), "mmap of %zu bytes", size);
	gt_need(page_write_file(path, "madvise"), "setting %s", path);
	*(volatile char *)map = 1;
	page_write_file(path, before);
	memset(map, 1, size);
	first = page_frame(map);
	for (size_t i = 0; i < size / page_size(); i++)
		gt_need(page_is(map + i * page_size(), PAGE_IN_THP) && page_frame(map + i * page_size()) == first + i,
			"page %zu is in the folio", i);
	return map;
}
#endif
