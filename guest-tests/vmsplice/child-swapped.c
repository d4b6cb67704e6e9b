// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CVE-2020-29374 through swap: a page that was out before the fork has no mapping but two swap
 * entries. The child reads it back, puts it into a pipe and unmaps it; the parent's write fault on
 * its own swap entry then finds a page that nobody maps, and takes it over.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "pipepin.h"
#include "swap.h"

static void read_back(char *page)
{
	gt_need(page_entry(page) & PAGE_SWAPPED, "the page is still out in the child");
	(void)*(volatile char *)page;
	gt_need(page_entry(page) & PAGE_PRESENT, "the page is back in the child");
}

/* A write and no read before it: the fault is then the one that comes from swap. */
static void write_only(volatile char *byte, char value)
{
	gt_need(page_entry(byte) & PAGE_SWAPPED, "the page is still out in the parent");
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
	.summary       = "a child cannot read the parent's later writes through vmsplice of a page from swap",
	.contract      = "C-ISO",
	.mechanism     = "do_swap_page reuses by map and swap count and ignores the read pin of a pipe",
	.cve           = "CVE-2020-29374",
	.changelog     = "23 29a",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the parent's secret in the child's pipe",
	.run           = run,
};
