// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 through swap: a page that was swapped out before fork() has two swap entries and
 * no mapping. The child reads it back, vmsplice()s it into a pipe and unmaps it; the parent's write
 * fault on its swap entry then finds an unmapped page in the swap cache and reuses it.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "pipepin.h"
#include "swap.h"

static void read_back(char *page)
{
	gt_need(page_entry(page) & PAGE_SWAPPED, "the child's page is still in swap");
	(void)*(volatile char *)page;
	gt_need(page_entry(page) & PAGE_PRESENT, "the page is swapped in in the child");
}

/* A write and no read before it: the fault is then the one that comes from swap. */
static void write_only(volatile char *byte, char value)
{
	gt_need(page_entry(byte) & PAGE_SWAPPED, "the parent's page is still in swap");
	*byte = value;
}

static void run(void)
{
	const struct pipepin how = { .before_splice = read_back, .write = write_only };
	char *page;

	swap_need();
	page_stay_on_cpu();
	page = page_map(1, PIPEPIN_OLD);
	swap_out(page);
	pipepin_check_child(&how, page, page_size());
}

GUEST_TEST = {
	.summary       = "a child cannot read the parent's later writes through vmsplice() of a swapped page",
	.contract      = "C-ISO",
	.mechanism     = "do_swap_page() reuses by mapcount and swap count and ignores the R/O reference of a pipe",
	.cve           = "CVE-2020-29374",
	.changelog     = "23 29a",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the child reads the parent's secret from its pipe",
	.run           = run,
};
