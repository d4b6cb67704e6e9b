// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim unmaps a page that a direct read is filling: it has a swap entry now, and still is in
 * memory, held by the reference. A read fault maps it again, write-protected, and the write fault
 * after that finds more than one reference and copies. Since 6.5 direct I/O pins its pages, and
 * reclaim may pass over them.
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
	swap_out_unless_pinned(io.page_a);
	/* Read first: a write fault on a swap entry would take the page over without a copy. */
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("after reclaim and a write the page is still the one that the read fills");
}

GUEST_TEST = {
	.summary       = "swapping next to a direct read in flight loses no byte of it",
	.contract      = "C-READ",
	.mechanism     = "page_count in do_wp_page takes the pin of O_DIRECT for a second user and copies",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful direct read",
	.run           = run,
};
