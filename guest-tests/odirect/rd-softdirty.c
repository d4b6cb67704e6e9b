// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Anyone who may write to /proc/pid/clear_refs, such as a checkpoint tool, can make a process lose
 * the data it reads: clearing the soft-dirty bits write-protects every page, including pages under
 * DMA, and the next write to such a page copies it.
 */
#include "guesttest.h"
#include "stalledio.h"

static void run(void)
{
	struct stalled_io io;

	stalled_read_start(&io);
	page_clear_soft_dirty();
	/* A kernel may spare pinned pages. The contract holds then too, for another reason. */
	if (page_entry(io.page_a) & PAGE_SOFT_DIRTY)
		gt_note("the kernel left the pinned page soft-dirty and writable");
	/* A byte outside the read's target: the fault only has to record that the page is dirty. */
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("the write fault reused the page pinned by the read");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read survives clear_refs plus a write to the same page",
	.contract      = "C-READ",
	.mechanism     = "clear_refs write-protects the page, and do_wp_page() copies it because of page_count()",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y MEM_SOFT_DIRTY=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful O_DIRECT read",
	.run           = run,
};
