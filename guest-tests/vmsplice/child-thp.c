// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 for a THP: the fix checked the refcount of small pages only. A write fault on a
 * PMD-mapped THP still checks the mapcount and ignores the reference of the pipe.
 */
#include "guesttest.h"
#include "pipepin.h"
#include "thp.h"

static void run(void)
{
	size_t length;
	char *page = page_map_thp(&length, PIPEPIN_OLD);

	/*
	 * The child unmaps the whole huge page, so that it is not split and its map count falls to
	 * one: do_huge_pmd_wp_page() then takes it for the parent's own.
	 */
	pipepin_check_child_reads_parent(page, length);
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes through vmsplice() of a THP",
	.contract      = "C-ISO",
	.mechanism     = "reuse_swap_page() in do_huge_pmd_wp_page() ignores the R/O reference of a pipe",
	.cve           = "CVE-2020-29374",
	.changelog     = "29a",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.10",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the child reads the parent's secret from its pipe",
	.run           = run,
};
