// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 for a hugetlb page. A kernel that unshares it needs a second huge page: if none is
 * free, vmsplice() has to fail, and the parent must not be affected.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pipepin.h"

static void on_bus_error(int signal)
{
	(void)signal;
	gt_fail("the parent's write to its own huge page ended in SIGBUS");
}

static void run(void)
{
	int pool = atoi(gt_param("pool"));
	const struct pipepin how = { .may_refuse = pool == 1 };
	size_t length = hugetlb_usual_size();
	char *page;

	hugetlb_make_pool(length, pool);
	page = hugetlb_map(length, PIPEPIN_OLD);
	signal(SIGBUS, on_bus_error);
	pipepin_check_child(&how, page, length);
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes through vmsplice() of a hugetlb page",
	.contract      = "C-ISO",
	.mechanism     = "hugetlb_cow() reuses by mapcount and ignores the R/O reference of a pipe",
	.cve           = "CVE-2020-29374",
	.changelog     = "31 36",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.11",
	.params        = "pool: 2 1",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the child reads the parent's secret from its pipe, or the parent is killed",
	.run           = run,
};
