// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Anyone who may write to /proc/pid/clear_refs, as a checkpoint tool does, can make a process lose
 * what it reads: arming the soft-dirty bits write-protects every page, also one under DMA, and the
 * next write to that page copies it away from the read.
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
	gt_pass("the write fault kept the page that the read had pinned");
}

GUEST_TEST = {
	.summary       = "clearing soft-dirty bits during a direct read loses no byte of it",
	.contract      = "C-READ",
	.mechanism     = "clear_refs write-protects the page; page_count in do_wp_page makes the fault copy it",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y MEM_SOFT_DIRTY=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful direct read",
	.run           = run,
};
