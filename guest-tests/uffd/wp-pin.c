// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userfaultfd write-protects a page and removes the protection: the PTE stays read-only until the
 * next write fault, which must not replace a pinned page.
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
	gt_check(uffd_stops_write(fd, probe), "a protected page stops a write");
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
	gt_pass("the write fault reused the page pinned by the read");
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
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "a pinned page stays coherent after userfaultfd write protection is removed",
	.contract      = "C-SYNC",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the pin",
	.changelog     = "29b 29c",
	.needs_kconfig = "USERFAULTFD=y IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.7",
	.params        = "pin: iouring odirect",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "stale bytes in an O_DIRECT read or a ring",
	.run           = run,
};
