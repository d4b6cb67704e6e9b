// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() during an O_DIRECT read shares the page that the disk writes to. The parent's next write
 * then gives it a copy, and the rest of the read goes to a page that only the child maps. Programs
 * use MADV_DONTFORK to protect their buffers: with it, no kernel may fail.
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
	gt_check(page_frame(control) != before, "a page without a pin is copied after fork");
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("the parent kept the page pinned by its read");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read survives fork() plus a write to the same page",
	.contract      = "C-READ",
	.mechanism     = "fork() shares a page under DMA: O_DIRECT takes a reference that fork() does not check",
	.changelog     = "5",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.3",
	.params        = "dontfork: 0 1",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful O_DIRECT read",
	.run           = run,
};
