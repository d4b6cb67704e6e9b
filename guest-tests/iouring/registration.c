// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A registered buffer of several pages. offset: a request may begin anywhere in it, and sends the bytes from there.
 * failed: a registration that fails at the last page leaves none of the others pinned.
 */
#include "pattern.h"
#include "pincount.h"
#include "uring.h"

enum { PAGES = 8, TRIES = 64 };

static void check_offsets(struct uring *ring, char *buffer)
{
	const size_t page = page_size(), from[] = {
		0, 1, page - 1, page, page + 1, page + 512, 2 * page, 3 * page + 100, 6 * page + 4000, 7 * page - 1
	};

	uring_register_buffer(ring, buffer, PAGES * page);
	for (size_t i = 0; i < sizeof(from) / sizeof(from[0]); i++) {
		gt_note("from offset %zu", from[i]);
		uring_check_sends(ring, buffer + from[i], 64);
		uring_check_sends(ring, buffer + from[i], PAGES * page - from[i]);
	}
	gt_pass("requests sent what is at their offset in the buffer");
}

static void check_failed(struct uring *ring, char *buffer)
{
	struct iovec whole = { buffer, PAGES * page_size() };
	long before, after;

	gt_need(!munmap(buffer + (PAGES - 1) * page_size(), page_size()), "munmap");
	gt_need(mmap(buffer + (PAGES - 1) * page_size(), page_size(), PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
	before = pincount_read();
	if (before < 0)
		gt_skip("this kernel does not count pins exactly");
	for (int i = 0; i < TRIES; i++)
		gt_check(syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &whole, 1) < 0 &&
			 errno == EFAULT, "a buffer with a page that cannot be accessed is refused: %s",
			 strerror(errno));
	after = pincount_read();
	gt_check(after - before < TRIES, "%d failed registrations leave no page pinned, not %ld", TRIES,
		 after - before);
	gt_pass("%d registrations failed, and left %ld pages pinned", TRIES, after - before);
}

static void run(void)
{
	char *buffer = page_map(PAGES, 0);
	struct uring ring;

	pattern_write(buffer, PAGES * page_size(), pattern_new_salt());
	uring_open(&ring);
	if (!strcmp(gt_param("what"), "offset"))
		check_offsets(&ring, buffer);
	check_failed(&ring, buffer);
}

GUEST_TEST = {
	.summary       = "an io_uring fixed buffer is used from the right byte, and not at all if its registration fails",
	.contract      = "C-SYNC",
	.mechanism     = "the offset within a page, or pages that were pinned before the one that fails, are forgotten",
	.needs_kconfig = "IO_URING=y",
	.min_kernel    = "5.4",
	.params        = "what: offset failed",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "wrong bytes sent, or pages that are never freed",
	.run           = run,
};
