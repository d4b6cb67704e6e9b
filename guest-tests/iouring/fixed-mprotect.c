// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An io_uring fixed buffer is pinned as long as the ring lives. If a write fault replaces its page,
 * the ring goes on sending the old page: everything the program writes from then on is silently
 * lost.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "uring.h"

static void run(void)
{
	size_t length = page_size();
	char *buffer = page_map(1, 'o');
	struct uring ring;

	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	/*
	 * The page table entry is now read-only though the mapping is writable. The pin taken
	 * above raises the reference count, and that is all the next write fault may look at.
	 */
	page_mprotect_cycle(buffer, length);
	uring_check_sends_new(&ring, buffer, length);
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer stays coherent after mprotect()",
	.contract      = "C-SYNC",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the ring's pin",
	.changelog     = "29c",
	.needs_kconfig = "IO_URING=y",
	.min_kernel    = "5.1",
	.needs_root    = false,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
