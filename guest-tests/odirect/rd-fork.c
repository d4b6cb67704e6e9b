// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork while a direct read is in flight shares the page that the disk is writing to. The parent's
 * next write then gets a copy, and the rest of the read goes to the page that only the child has.
 * MADV_DONTFORK is how programs have had to protect their buffers: with it, no kernel may fail.
 */
#include "guesttest.h"
#include "stalledio.h"

static void run(void)
{
	char *page = page_map(1, 0xa5), *control = page_map(1, 0xa5);
	bool dontfork = !strcmp(gt_param("dontfork"), "1");
	struct stalled_io io;
	uint64_t before = page_frame(control);

	if (dontfork)
		gt_need(!madvise(page, page_size(), MADV_DONTFORK), "MADV_DONTFORK");
	stalled_read_into(&io, page, page_size() / 2);
	if (!gt_fork())
		for (;;)
			pause();	/* alive, and so is its mapping of the page */
	/* A page without a pin is write-protected by the fork, and copied: so would ours be. */
	page_touch(control, 1);
	gt_need(page_frame(control) != before, "a page without a pin is copied after fork");
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("the parent kept the page that its read had pinned");
}

GUEST_TEST = {
	.summary       = "fork and a write next to a direct read in flight lose no byte of it",
	.contract      = "C-READ",
	.mechanism     = "fork shares a page under DMA: a direct read takes a reference that fork does not look at",
	.changelog     = "5",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.3",
	.params        = "dontfork: 0 1",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful direct read",
	.run           = run,
};
