// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The control of the odirect family: an O_DIRECT read is stalled half-way, and the page under DMA
 * is only touched. No kernel may fail; if one does, the results of the family mean nothing.
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
	gt_pass("%zu bytes read by a stalled O_DIRECT read", io.length);
}

GUEST_TEST = {
	.summary       = "control: a stalled O_DIRECT read delivers the data of the file",
	.contract      = "C-READ",
	.mechanism     = "userfaultfd stalls the read; no interference",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a harness or disk that cannot run the odirect tests",
	.run           = run,
};
