// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A registered io_uring buffer is pinned once and used for as long as the ring lives. If a write
 * fault replaces the page behind it, the ring goes on sending the old page: everything the
 * program writes from then on is lost without an error.
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
	gt_pass("the ring sends what the program wrote");
}

GUEST_TEST = {
	.summary       = "after mprotect, a registered buffer is still the page that the program writes",
	.contract      = "C-SYNC",
	.mechanism     = "page_count in do_wp_page copies a page pinned for as long as the ring lives",
	.changelog     = "29c",
	.needs_kconfig = "IO_URING=y",
	.min_kernel    = "5.1",
	.needs_root    = false,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a ring that sends stale bytes",
	.run           = run,
};
