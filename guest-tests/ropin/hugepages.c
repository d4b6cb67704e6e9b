// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * As ropin.shared, for a folio of some pages, a PMD-mapped THP, a PTE-mapped THP and a hugetlb page. Each has its own code
 * to find, pin and copy the page.
 */
#include "cowpin.h"
#include "pagekind.h"

static void run(void)
{
	size_t length;
	char *page;
	int go[2], pin;
	pid_t child;

	module_need("cowpin");
	page = pagekind_map(gt_param("page"), 2, &length);
	memset(page, 'o', page_size());
	child = cowpin_sharer(go);
	pin = cowpin_pin_readonly(page);
	cowpin_check_new(pin, page, page_size());
	cowpin_end_sharer(child, go);
	gt_pass("the device reads the data that the parent wrote");
}

GUEST_TEST = {
	.summary       = "a huge page shared with a child is unshared by an R/O pin",
	.contract      = "C-SYNC",
	.mechanism     = "an R/O pin does not unshare, and the next write copies the page",
	.fixes         = "a7f226604170",
	.changelog     = "36",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "page: mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
