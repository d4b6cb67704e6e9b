// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Kernels that check the refcount before a write fault reuses a page lose the data of an O_DIRECT
 * read: the pin is a reference, so the fault copies the page, and the disk writes to the old one,
 * which nobody maps any more.
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
	gt_pass("the write fault reused the page pinned by the read");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read survives mprotect() plus a write to the same page",
	.contract      = "C-READ",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the O_DIRECT pin",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y",
	.min_kernel    = "4.3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes after a successful O_DIRECT read",
	.run           = run,
};
