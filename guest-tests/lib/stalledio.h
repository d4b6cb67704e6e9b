/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct I/O that is stalled half-way until the test continues it. The buffer is a part of page A and
 * all of page B. A is there, so the kernel pins it at once; B is missing and belongs to
 * userfaultfd, so the kernel then sleeps in the fault, holding the pin but no lock. What happens to
 * A now happens to a page under DMA. Nothing depends on timing.
 *
 *	stalled_read_start(&io);	A is pinned
 *	...				interfere with io.page_a
 *	stalled_read_finish(&io);	B arrives, the disk writes into the pinned page
 *	stalled_read_check(&io);	does A show what the disk holds?
 *
 * stalled_read_into() takes a page A of the caller's; stalled_write_from() sends it to the disk.
 */
#ifndef STALLEDIO_H
#define STALLEDIO_H
#include "guesttest.h"
#include "pagestate.h"
#include "pincount.h"
#include "uffd.h"
#include "version.h"
#include <sys/uio.h>
#include <sys/vfs.h>

struct stalled_io {
	char *page_a, *page_b, *target;	/* target: where the transfer starts in A, up to its end */
	char *on_disk;
	size_t in_a, length;
	int fd, uffd, done[2], error;
	bool is_write, is_pinned;	/* is_pinned: by the count of pins, not by a reference alone */
	ssize_t got;
	pthread_t thread;
};

static inline void *stalled_io_thread(void *arg)
{
	struct stalled_io *io = arg;
	struct iovec parts[] = { { io->target, io->in_a }, { io->page_b, page_size() } };

	io->got = io->is_write ? pwritev(io->fd, parts, 2, 0) : preadv(io->fd, parts, 2, 0);
	io->error = errno;
	close(io->done[1]);		/* wakes the poll of a test that waits for a fault in vain */
	return NULL;
}

/* The bytes must go through the disk: a page cache copy is made by the CPU, without a pin. */
static inline bool stalled_io_is_cached(struct stalled_io *io)
{
	unsigned char cached[2] = { 0 };
	size_t page = page_size();
	void *map = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, io->fd, 0);

	gt_need(map != MAP_FAILED, "mapping the file");
	gt_need(!mincore(map, 2 * page, cached), "mincore");
	munmap(map, 2 * page);
	return (cached[0] | cached[1]) & 1;
}

static inline void stalled_io_open_file(struct stalled_io *io)
{
	char name[] = "stalledio.XXXXXX";
	size_t room = 2 * page_size();
	struct statfs fs;
	int fd = mkstemp(name);

	gt_need(fd >= 0 && !fstatfs(fd, &fs), "a file in the current directory");
	gt_need(!posix_memalign((void **)&io->on_disk, page_size(), room), "memory");
	for (size_t i = 0; i < room; i++)
		io->on_disk[i] = 1 + i % 63;	/* none of the bytes that fill page A */
	gt_need(write(fd, io->on_disk, room) == (ssize_t)room && !fsync(fd), "writing the file to disk");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	io->fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
	fd = errno;
	unlink(name);
	if (io->fd < 0)
		gt_skip("no O_DIRECT on the file system of the current directory (type 0x%lx): %s",
			(unsigned long)fs.f_type, strerror(fd));
	if (stalled_io_is_cached(io))
		gt_skip("file system type 0x%lx keeps the file in the page cache", (unsigned long)fs.f_type);
}

/*
 * Since 6.5 direct I/O pins its pages, and that is counted. Where it does not (7.3: XFS copies what it
 * writes to a device that wants stable pages), nothing is under DMA and a test of that says nothing.
 */
static inline void stalled_io_need_pin(struct stalled_io *io, long before)
{
	io->is_pinned = before >= 0 && pincount_read() > before;
	if (before >= 0 && !io->is_pinned && version_is_at_least(6, 5))
		gt_skip("direct I/O pins no page of this file: the file system copies the data");
}

/* Returns with the transfer stalled: the kernel has pinned A and waits for B. */
static inline void stalled_io_start(struct stalled_io *io, char *page_a, size_t offset, bool is_write)
{
	struct uffd_msg message;
	size_t page = page_size();
	long pins;

	memset(io, 0, sizeof(*io));
	stalled_io_open_file(io);
	io->is_write = is_write;
	io->page_a = page_a;
	io->target = page_a + offset;
	io->in_a = page - offset;
	io->length = io->in_a + page;
	io->page_b = page_map(1, 0);
	gt_need(!madvise(io->page_b, page, MADV_DONTNEED), "MADV_DONTNEED");
	io->uffd = uffd_open();
	uffd_register(io->uffd, io->page_b, page, UFFDIO_REGISTER_MODE_MISSING);
	gt_need(!pipe2(io->done, O_CLOEXEC), "pipe");
	pins = pincount_read();
	gt_need(!pthread_create(&io->thread, NULL, stalled_io_thread, io), "pthread_create");
	if (!uffd_wait(io->uffd, io->done[0], &message)) {
		pthread_join(io->thread, NULL);
		if (io->got < 0 && io->error == EINVAL)
			gt_skip("the disk's blocks are larger than %zu bytes", io->in_a);
		gt_broken("the transfer ended with %zd (%s) before page B was there", io->got,
			  strerror(io->error));
	}
	gt_need(message.event == UFFD_EVENT_PAGEFAULT &&
		(message.arg.pagefault.address & -page) == (uintptr_t)io->page_b, "a fault on page B");
	stalled_io_need_pin(io, pins);
}

static inline void stalled_read_into(struct stalled_io *io, char *page_a, size_t offset)
{
	stalled_io_start(io, page_a, offset, false);
}

/* Page A is written and therefore present and writable, as the kernel's fast path wants it. */
static inline void stalled_read_start(struct stalled_io *io)
{
	stalled_read_into(io, page_map(1, 0xa5), page_size() / 2);
}

static inline void stalled_write_from(struct stalled_io *io, char *page_a, size_t offset)
{
	stalled_io_start(io, page_a, offset, true);
}

static inline void stalled_io_finish(struct stalled_io *io)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)io->page_b, page_size() } };

	gt_need(!ioctl(io->uffd, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE");
	gt_need(!pthread_join(io->thread, NULL), "pthread_join");
	gt_need(io->got == (ssize_t)io->length, "the transfer returned %zd (%s)", io->got, strerror(io->error));
	if (stalled_io_is_cached(io))
		gt_skip("the file system did the direct transfer through the page cache");
}

static inline void stalled_read_finish(struct stalled_io *io)
{
	stalled_io_finish(io);
}

/* B is the control: it came after the interference. If it is wrong too, suspect the disk. */
static inline void stalled_read_check(struct stalled_io *io)
{
	gt_check_bytes(io->on_disk + io->in_a, io->page_b, page_size(), "bytes read into page B, the control");
	gt_check_bytes(io->on_disk, io->target, io->in_a, "bytes read into page A");
}

/* old: what A held when the write was started. B was zeroes. */
static inline void stalled_write_check(struct stalled_io *io, int old)
{
	char *sent = io->on_disk, *expected = calloc(2, page_size());

	memset(expected, old, io->in_a);
	gt_need(pread(io->fd, sent, 2 * page_size(), 0) >= (ssize_t)io->length, "reading the file back");
	gt_check_bytes(expected + io->in_a, sent + io->in_a, page_size(), "bytes written from page B, the control");
	gt_check_bytes(expected, sent, io->in_a, "bytes written from page A");
}
#endif
