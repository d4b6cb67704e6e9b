// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that was swapped out before fork() and read back by the parent alone has a mapcount of
 * one, and yet it is shared: the child's page table has the swap entry. A kernel that checks only
 * the mapcount pins the page as it is, and the next write, which counts swap entries too, copies
 * it.
 */
#include "cowpin.h"
#include "swap.h"

static void need_child_in_swap(pid_t child, const char *page)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/pagemap", child);
	gt_need(page_word(path, (uintptr_t)page / page_size()) & PAGE_SWAPPED, "the child's page is in swap");
}

static void run(void)
{
	char *page;
	int go[2], pin;
	pid_t child;

	swap_need();
	module_need("cowpin");
	page_stay_on_cpu();
	page = page_map(1, 'o');
	swap_out(page);
	child = cowpin_sharer(go);
	gt_check(*(volatile char *)page == 'o', "the page comes back from swap unchanged");
	if (!page_is(page, PAGE_IN_SWAPCACHE))
		gt_skip("swap on this device bypasses the swap cache");
	gt_need(page_map_count(page) == 1, "the page is mapped once");
	need_child_in_swap(child, page);
	pin = cowpin_pin_readonly(page);
	cowpin_check_new(pin, page, page_size());
	need_child_in_swap(child, page);
	cowpin_end_sharer(child, go);
	gt_pass("the device reads the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "a page for which another process has a swap entry is unshared by an R/O pin",
	.contract      = "C-SYNC",
	.mechanism     = "an R/O pin checks the mapcount, the write fault counts swap entries as well",
	.fixes         = "a7f226604170",
	.changelog     = "21 23 29a",
	.needs_kconfig = "MODULES=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
