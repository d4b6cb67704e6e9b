// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Anybody, including a disk, may read a page that userfaultfd write-protects. A kernel that breaks
 * copy-on-write for R/O GUP reports a write that never happened to the monitor, and the reader
 * waits for an answer.
 */
#include "guesttest.h"
#include "stalledio.h"

static void *send_page(void *arg)
{
	struct stalled_io *io = arg;

	io->got = pwrite(io->fd, io->page_a, page_size(), 0);
	io->error = errno;
	close(io->done[1]);
	return NULL;
}

static void run(void)
{
	struct stalled_io io = { .page_a = page_map(1, 'o') };
	size_t page = page_size();
	struct uffd_msg message;

	stalled_io_open_file(&io);
	io.uffd = uffd_open();
	uffd_register(io.uffd, io.page_a, page, UFFDIO_REGISTER_MODE_WP);
	uffd_write_protect(io.uffd, io.page_a, page, true);
	gt_need(!pipe2(io.done, O_CLOEXEC) && !pthread_create(&io.thread, NULL, send_page, &io), "a thread");
	gt_check(!uffd_wait(io.uffd, io.done[0], &message),
		 "writing a protected page to a disk raises no event, but event 0x%x was raised", message.event);
	gt_need(!pthread_join(io.thread, NULL) && io.got == (ssize_t)page, "the write returned %zd (%s)", io.got,
		strerror(io.error));
	gt_need(!stalled_io_is_cached(&io), "the write went to the disk");
	gt_need(pread(io.fd, io.on_disk, page, 0) == (ssize_t)page, "reading the file back");
	gt_check_bytes(io.page_a, io.on_disk, page, "bytes on the disk, compared with the page");
	gt_check(uffd_stops_write(io.uffd, io.page_a), "the page was protected all the time");
	gt_pass("the disk read the page, and the next write raised an event");
}

GUEST_TEST = {
	.summary       = "an O_DIRECT write of a write-protected page raises no userfaultfd event",
	.contract      = "userfaultfd reports writes, and nothing else",
	.mechanism     = "R/O GUP that breaks copy-on-write faults like a write",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.7",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write-protect event without a write",
	.run           = run,
};
