/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Private anonymous memory of a kind that a parameter names: small, mthp, thp, thp-ptes or hugetlb. */
#ifndef PAGEKIND_H
#define PAGEKIND_H
#include "guesttest.h"
#include "hugetlb.h"
#include "mthp.h"
#include "pagestate.h"
#include "thp.h"

/* Pages of an earlier test come back late, if a ring had pinned them. */
static inline void pagekind_wait_for_pool(size_t size, int pages)
{
	int is_free = hugetlb_count(size, -1, "free_hugepages");

	for (int i = 0; i < HUGETLB_WAIT_MS && is_free < pages; i++) {
		usleep(1000);
		is_free = hugetlb_count(size, -1, "free_hugepages");
	}
	if (is_free < pages)
		gt_skip("of %d huge pages of %zu MiB, only %d are free", pages, size >> 20, is_free);
}

/*
 * Maps one page of the kind, or some small ones, all of them present. mthp: a folio of 16 pages. thp-ptes: a
 * THP that is mapped by page table entries. hugetlb_pages: how many the pool has, among them those for copies. Sets *length.
 */
static inline char *pagekind_map(const char *kind, int hugetlb_pages, size_t *length)
{
	char *map;

	if (!strcmp(kind, "small")) {
		*length = 4 * page_size();
		return page_map(4, 1);
	}
	if (!strcmp(kind, "hugetlb")) {
		*length = hugetlb_usual_size();
		hugetlb_make_pool(*length, hugetlb_pages);
		pagekind_wait_for_pool(*length, hugetlb_pages);
		return hugetlb_map(*length, 1);
	}
	if (!strcmp(kind, "mthp"))
		return mthp_map(length, 16 * page_size());
	map = page_map_thp(length, 1);
	if (!strcmp(kind, "thp-ptes")) {
		page_mprotect_cycle(map + *length / 2, page_size());
		page_need_thp_mapped_by_ptes(map);
	}
	return map;
}
#endif
