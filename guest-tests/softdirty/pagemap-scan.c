// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Whether a page is soft-dirty is told by bit 55 of /proc/self/pagemap and by PAGEMAP_SCAN. They read the same
 * page table, so they must agree on every page, whatever it is; and both must know the pages that were
 * written since the bits were cleared. Of a huge page, one write may be reported for all of it.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "pagemapscan.h"
#include "swap.h"

enum { PAGES = 8, WRITTEN = 1, CLEAN = 2 };

static char *start;
static bool *is_dirty;
static size_t pages;

static char *at(size_t page)
{
	return start + page * page_size();
}

static void check_agreement(const char *when)
{
	pagemapscan_read(start, pages * page_size(), PAGEMAPSCAN_SOFT_DIRTY, 0, false, is_dirty);
	for (size_t page = 0; page < pages; page++) {
		bool by_pagemap = page_entry(at(page)) & PAGE_SOFT_DIRTY;

		gt_check(by_pagemap == is_dirty[page], "of page %zu %s, pagemap says %s and PAGEMAP_SCAN %s", page, when,
			 by_pagemap ? "soft-dirty" : "clean", is_dirty[page] ? "soft-dirty" : "clean");
	}
}

static void check(bool written, bool clean, const char *when)
{
	check_agreement(when);
	gt_check(is_dirty[WRITTEN] == written, "the page that is written is %s %s", written ? "soft-dirty" : "clean", when);
	gt_check(is_dirty[CLEAN] == clean, "the other page is %s %s", clean ? "soft-dirty" : "clean", when);
}

static void run(void)
{
	const char *kind = gt_param("page");
	bool is_swapped = !strcmp(kind, "swapped"), is_huge = !strcmp(kind, "thp");
	size_t length = PAGES * page_size();

	page_stay_on_cpu();
	if (is_swapped)
		swap_need();
	start = is_swapped ? page_map(PAGES, 1) : pagekind_map(kind, 2, &length);
	madvise(start, length, MADV_NOHUGEPAGE);	/* khugepaged must not come in between */
	/* A flag of its own, so that it is not merged with memory that is mapped later and is soft-dirty. */
	gt_need(!madvise(start, length, MADV_DONTDUMP), "MADV_DONTDUMP");
	pages = length / page_size();
	is_dirty = calloc(pages, sizeof(*is_dirty));
	check(true, true, "before the bits are cleared");
	page_clear_soft_dirty();
	if (!strcmp(kind, "hugetlb")) {
		*(volatile char *)at(WRITTEN) = 'w';
		check_agreement("after the bits were cleared, of hugetlb memory, which has none");
		gt_pass("pagemap and PAGEMAP_SCAN agree on hugetlb memory: %s", is_dirty[0] ? "soft-dirty" : "clean");
	}
	check(false, false, "after the bits were cleared");
	*(volatile char *)at(WRITTEN) = 'w';
	check(true, is_huge, "after the write");
	if (is_swapped) {
		swap_out(at(WRITTEN));
		swap_out(at(CLEAN));
		check(true, false, "in swap");
		gt_need(*(volatile char *)at(WRITTEN) == 'w' && *(volatile char *)at(CLEAN) == 1, "the pages come back");
		check(true, false, "after the pages came back from swap");
	}
	page_clear_soft_dirty();
	check(false, false, "after the bits were cleared again");
	gt_pass("pagemap and PAGEMAP_SCAN agree, and know what was written");
}

GUEST_TEST = {
	.summary       = "pagemap and PAGEMAP_SCAN agree on what is soft-dirty",
	.contract      = "C-TRACK",
	.mechanism     = "one of two readers of the page table knows a kind of entry that the other does not",
	.needs_kconfig = "MEM_SOFT_DIRTY=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.7",
	.params        = "page: small swapped mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page that is soft-dirty by one account and clean by the other",
	.run           = run,
};
