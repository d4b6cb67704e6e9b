// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vmsplice() attack in the other direction: the parent keeps the page in a pipe and unmaps it,
 * and the child, which is now the only one to map it, writes. when=pre fills the pipe before
 * fork(), and shows whether fork() checks for references.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pipepin.h"
#include "thp.h"

static void run(void)
{
	bool before_fork = !strcmp(gt_param("when"), "pre");
	const char *kind = gt_param("page");
	size_t length = page_size();
	char *page;

	if (!strcmp(kind, "thp")) {
		page = page_map_thp(&length, PIPEPIN_OLD);
	} else if (!strcmp(kind, "hugetlb")) {
		length = hugetlb_usual_size();
		hugetlb_make_pool(length, 2);
		page = hugetlb_map(length, PIPEPIN_OLD);
	} else {
		page = page_map(1, PIPEPIN_OLD);
	}
	pipepin_check_parent_reads_child(page, length, before_fork);
}

GUEST_TEST = {
	.summary       = "a parent cannot read its child's later writes through vmsplice()",
	.contract      = "C-ISO",
	.mechanism     = "reuse by mapcount ignores the R/O reference of a pipe; fork() shares a page that has one",
	.cve           = "CVE-2020-29374",
	.changelog     = "5",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.10",
	.params        = "when: pre post; page: small thp hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the parent reads the child's secret from its pipe",
	.run           = run,
};
