// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 for a 1 GiB hugetlb page, which GUP handles at the PUD level.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pipepin.h"

static void run(void)
{
	const size_t length = 1UL << 30;
	char *page;

	hugetlb_make_pool(length, 2);
	page = hugetlb_map(length, PIPEPIN_OLD);
	pipepin_check_child_reads_parent(page, length);
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes through vmsplice() of a 1 GiB page",
	.contract      = "C-ISO",
	.mechanism     = "hugetlb_cow() reuses by mapcount, and gup_huge_pud() does not unshare",
	.cve           = "CVE-2020-29374",
	.changelog     = "36",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.16",
	.needs_root    = true,
	.memory_mib    = 3072,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "the child reads the parent's secret from its pipe",
	.run           = run,
};
