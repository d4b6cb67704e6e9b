// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim asked for the page of a registered buffer either leaves it alone, because it is pinned,
 * or unmaps it and gets it back into the mapping by the next fault. It must not part the two.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "swap.h"
#include "uring.h"

static void run(void)
{
	size_t length = page_size();
	char *buffer, *control;
	struct uring ring;

	swap_need();
	page_stay_on_cpu();
	buffer = page_map(1, 'o');
	control = page_map(1, 'o');
	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	page_settle(buffer);
	/* A page without a pin goes out: reclaim has had its chance at ours each time. */
	for (int i = 0; i < 5; i++) {
		madvise(buffer, length, MADV_PAGEOUT);
		swap_out(control);
		(void)*(volatile char *)control;
	}
	gt_note("the registered page %s", page_entry(buffer) & PAGE_SWAPPED ? "has a swap entry" : "stayed mapped");
	uring_check_sends_new(&ring, buffer, length);
	gt_pass("the ring sends what the program wrote");
}

GUEST_TEST = {
	.summary       = "after reclaim, a registered buffer is still the page that the program writes",
	.contract      = "C-SYNC",
	.mechanism     = "shrink_page_list passes over pinned pages, or do_wp_page reuses what comes back from swap",
	.changelog     = "29c 40",
	.needs_kconfig = "IO_URING=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.params        = "how: static",
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a ring that sends stale bytes",
	.run           = run,
};
