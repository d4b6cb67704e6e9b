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
	char *buffer = page_map(1, 'o'), *sent = malloc(length);
	int file = memfd_create("sent", MFD_CLOEXEC), result;
	struct uring ring;

	gt_need(file >= 0, "memfd_create");
	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	/*
	 * The page table entry is now read-only though the mapping is writable. The pin taken
	 * above raises the reference count, and that is all the next write fault may look at.
	 */
	page_mprotect_cycle(buffer, length);
	page_touch(buffer, 'n');
	memset(buffer, 'n', length);
	result = uring_transfer_fixed(&ring, IORING_OP_WRITE_FIXED, file, buffer, length);
	gt_need(result == (int)length, "WRITE_FIXED returned %d", result);
	gt_need(pread(file, sent, length, 0) == (ssize_t)length, "reading back what was sent");
	gt_check_bytes(buffer, sent, length, "bytes the ring sent, against the buffer");
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
