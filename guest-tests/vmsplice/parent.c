// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The vmsplice() attack in the other direction: the parent keeps the page in a pipe and unmaps it,
 * and the child, which is now the only one to map it, writes. when=pre fills the pipe before
 * fork(), and shows whether fork() checks for references.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "pipepin.h"

static void run(void)
{
	bool before_fork = !strcmp(gt_param("when"), "pre");
	size_t length;
	char *page = pagekind_map(gt_param("page"), 2, &length);

	memset(page, PIPEPIN_OLD, page_size());
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
	.params        = "when: pre post; page: small mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the parent reads the child's secret from its pipe",
	.run           = run,
};
