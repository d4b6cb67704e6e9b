// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control of its family: a direct read stalled half-way, and nothing done to the page it has
 * pinned but a touch. No kernel may fail this; one that does makes the family's verdicts worthless.
 */
#include "guesttest.h"
#include "stalledio.h"

static void run(void)
{
	struct stalled_io io;

	stalled_read_start(&io);
	/* The page is mapped writable: the touch takes no fault, so no page is replaced. */
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("%zu bytes read through a stalled pin", io.length);
}

GUEST_TEST = {
	.summary       = "a stalled direct read, left alone, delivers the file's bytes",
	.contract      = "C-READ",
	.mechanism     = "userfaultfd stalls the read; no interference",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a harness or disk that cannot run the odirect family",
	.run           = run,
};
