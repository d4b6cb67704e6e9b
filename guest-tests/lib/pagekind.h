/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory of a kind that a parameter names. Private and anonymous: small, swapped, ksm, mthp, thp, thp-ptes, hugetlb
 * (of the usual size), hugetlb-1g. Shared and anonymous: shmem.
 */
#ifndef PAGEKIND_H
#define PAGEKIND_H
#include "guesttest.h"
#include "hugetlb.h"
#include "ksm.h"
#include "mthp.h"
#include "pagestate.h"
#include "swap.h"
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

static inline char *pagekind_map_swapped(size_t pages)
{
	char *map = page_map(pages, 1);

	swap_need();
	for (size_t page = 0; page < pages; page++)
		swap_out(map + page * page_size());
	return map;
}

static inline char *pagekind_map_shmem(size_t length)
{
	char *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	gt_need(map != MAP_FAILED, "mmap of shared memory");
	memset(map, 1, length);
	return map;
}

static inline char *pagekind_map_hugetlb(size_t size, int pages)
{
	hugetlb_make_pool(size, pages);
	pagekind_wait_for_pool(size, pages);
	return hugetlb_map(size, 1);
}

/*
 * Maps one page of the kind, or some small ones, all of them present (but for swapped) and filled with ones. mthp: a
 * folio of 16 pages. thp-ptes: a THP that is mapped by page table entries. hugetlb_pages: how many the pool has, among them those for copies. Sets *length.
 */
static inline char *pagekind_map(const char *kind, int hugetlb_pages, size_t *length)
{
	char *map;

	*length = 4 * page_size();
	if (!strcmp(kind, "small"))
		return page_map(4, 1);
	if (!strcmp(kind, "swapped"))
		return pagekind_map_swapped(4);
	if (!strcmp(kind, "shmem"))
		return pagekind_map_shmem(*length);
	if (!strcmp(kind, "ksm")) {
		*length = 2 * page_size();
		ksm_start();
		map = ksm_map_pair(1);
		ksm_stop();
		return map;
	}
	if (!strncmp(kind, "hugetlb", 7)) {
		*length = strcmp(kind, "hugetlb-1g") ? hugetlb_usual_size() : 1UL << 30;
		return pagekind_map_hugetlb(*length, hugetlb_pages);
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
