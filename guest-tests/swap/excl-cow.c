// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that came back from swap is mapped by one process and still in the swap cache, which holds
 * a reference. A write fault that checks the refcount copies it needlessly.
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
		usleep(1000);	/* a device that never answers ends in the test's timeout */
	gt_check(*page == 'o', "the page comes back from swap unchanged");
	before = page_frame(page);
	if (!page_is(page, PAGE_IN_SWAPCACHE) && (strstr(swaps, "/zram") || strstr(swaps, "/ram")))
		gt_skip("synchronous swap devices bypass the swap cache");
	gt_note("after the read the page is%s in the swap cache", page_is(page, PAGE_IN_SWAPCACHE) ? "" : " not");
	*page = 'n';
	gt_check(page_frame(page) == before, "the write keeps page frame 0x%llx", (unsigned long long)before);
	gt_pass("an unshared page that came back from swap was written in place");
}

GUEST_TEST = {
	.summary       = "an unshared page that came back from swap is not copied on write",
	.contract      = "C-COST",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the swap cache",
	.changelog     = "29d",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "another page frame after a write to an exclusive page",
	.run           = run,
};
