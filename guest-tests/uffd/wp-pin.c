// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userfaultfd protects a page and lifts the protection: the entry stays read-only until the next
 * write fault, and that one must not replace a page that is pinned.
 */
#include "guesttest.h"
#include "stalledio.h"
#include "uring.h"

/* Protection on and off, proven by a second page that is protected with it. */
static void protect_and_lift(char *target)
{
	size_t page = page_size();
	char *probe = page_map(1, 'o');
	int fd = uffd_open();

	uffd_register(fd, probe, page, UFFDIO_REGISTER_MODE_WP);
	uffd_register(fd, target, page, UFFDIO_REGISTER_MODE_WP);
	uffd_write_protect(fd, probe, page, true);
	uffd_write_protect(fd, target, page, true);
	gt_need(uffd_stops_write(fd, probe), "a protected page stops a write");
	uffd_write_protect(fd, target, page, false);
}

static void check_direct_read(void)
{
	struct stalled_io io;

	stalled_read_start(&io);
	protect_and_lift(io.page_a);
	page_touch(io.page_a, 1);
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("the write fault kept the page that the read had pinned");
}

static void run(void)
{
	char *buffer = page_map(1, 'o');
	struct uring ring;

	if (!strcmp(gt_param("pin"), "odirect"))
		check_direct_read();
	uring_open(&ring);
	uring_register_buffer(&ring, buffer, page_size());
	protect_and_lift(buffer);
	uring_check_sends_new(&ring, buffer, page_size());
	gt_pass("the ring sends what the program wrote");
}

GUEST_TEST = {
	.summary       = "after userfaultfd lifts its protection, a pinned page is still the one that is written",
	.contract      = "C-SYNC",
	.mechanism     = "page_count in do_wp_page takes the pin for a second user and copies",
	.changelog     = "29b 29c",
	.needs_kconfig = "USERFAULTFD=y IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.7",
	.params        = "pin: iouring odirect",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes in a direct read, a ring that sends stale bytes",
	.run           = run,
};
