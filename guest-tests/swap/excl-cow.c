// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page back from swap belongs to one process and still is in the swap cache, which holds a
 * reference. A write fault that counts references copies it, for nobody's good.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "swap.h"

static void run(void)
{
	volatile char *page;
	uint64_t before, out;
	char swaps[2048];

	swap_need();
	page_read_file("/proc/swaps", swaps, sizeof(swaps));
	page_stay_on_cpu();
	page = page_map(1, 'o');
	out = page_frame(page);
	swap_out((void *)page);
	/* Under writeback to a device that needs pages to stay as they are, a copy is right. */
	while (page_word("/proc/kpageflags", out) >> PAGE_WRITEBACK & 1)
		usleep(1000);	/* a device that never answers is met by the time limit */
	gt_need(*page == 'o', "the page comes back from swap as it was");
	before = page_frame(page);
	if (!page_is(page, PAGE_IN_SWAPCACHE) && (strstr(swaps, "/zram") || strstr(swaps, "/ram")))
		gt_skip("swap on a device that answers at once goes past the swap cache");
	gt_note("after the read the page is%s in the swap cache", page_is(page, PAGE_IN_SWAPCACHE) ? "" : " not");
	*page = 'n';
	gt_check(page_frame(page) == before, "the write keeps page frame 0x%llx", (unsigned long long)before);
	gt_pass("a page of one process, back from swap, was written in place");
}

GUEST_TEST = {
	.summary       = "a page that came back from swap to its only owner is not copied on write",
	.contract      = "C-COST",
	.mechanism     = "page_count in do_wp_page takes the swap cache for a second user and copies",
	.changelog     = "29d",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "another page frame after a write to an exclusive page",
	.run           = run,
};
