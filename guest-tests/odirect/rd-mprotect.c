// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Kernels that decide by the reference count whether a write fault may reuse a page lose what a
 * direct read delivers: its pin counts as a reference, so the fault copies the page, and the disk
 * writes into the old one, which nobody maps any more.
 */
#include "guesttest.h"
#include "stalledio.h"

static void run(void)
{
	struct stalled_io io;

	stalled_read_start(&io);
	/*
	 * mprotect back to writable does not make the page table entry writable: the kernel leaves
	 * that to the next write fault, which finds one mapping but two references.
	 */
	page_mprotect_cycle(io.page_a, page_size());
	/* A byte outside the read's target, as a neighbour in the same page would write it. */
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("the write fault kept the page that the read had pinned");
}

GUEST_TEST = {
	.summary       = "mprotect and a write next to a direct read in flight lose no byte of it",
	.contract      = "C-READ",
	.mechanism     = "page_count in do_wp_page takes the pin of O_DIRECT for a second user and copies",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful direct read",
	.run           = run,
};
