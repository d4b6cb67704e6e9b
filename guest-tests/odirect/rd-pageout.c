// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim unmaps a page under DMA: the PTE becomes a swap entry, and the page stays in memory
 * because of its reference. A read fault maps it write-protected, and the next write fault finds
 * more than one reference and copies it. Since 6.5 O_DIRECT pins its pages, and reclaim may skip
 * them.
 */
#include "guesttest.h"
#include "stalledio.h"
#include "swap.h"

static void run(void)
{
	struct stalled_io io;

	swap_need();
	page_stay_on_cpu();
	stalled_read_start(&io);
	gt_need(swap_out_unless_pinned(io.page_a) || io.is_pinned, "reclaim unmaps a page that is not pinned");
	/* Read first: a write fault on a swap entry would take the page over without a copy. */
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("after reclaim and a write, the mapped page is still the one under DMA");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read survives reclaim plus a write to the same page",
	.contract      = "C-READ",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the O_DIRECT pin",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful O_DIRECT read",
	.run           = run,
};
