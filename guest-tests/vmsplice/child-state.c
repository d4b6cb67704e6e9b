// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 for small pages whose state changes the path of the parent's write: a lazyfree
 * page, which reclaim may discard, and a KSM page, which must never be reused.
 */
#include "guesttest.h"
#include "ksm.h"
#include "pagestate.h"
#include "pipepin.h"

static void run(void)
{
	char *page;

	page_stay_on_cpu();
	if (!strcmp(gt_param("state"), "ksm")) {
		ksm_start();
		page = ksm_map_pair(PIPEPIN_OLD);
		ksm_stop();
	} else {
		page = page_map(1, PIPEPIN_OLD);
		page_free_lazily(page, 1);
	}
	pipepin_check_child_reads_parent(page, page_size());
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes to a lazyfree or KSM page",
	.contract      = "C-ISO",
	.mechanism     = "reuse by mapcount ignores the R/O reference of a pipe",
	.cve           = "CVE-2020-29374",
	.changelog     = "22 29a",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.5",
	.params        = "state: madvfree ksm",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the child reads the parent's secret from its pipe",
	.run           = run,
};
