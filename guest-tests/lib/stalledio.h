/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A direct read that stops half-way for as long as the test wants. The buffer is the tail of
 * page A and all of page B. A is there, so the kernel pins it at once; B is missing and belongs to
 * userfaultfd, so the kernel then sleeps in the fault, holding the pin but no lock. What happens to
 * A now happens to a page under DMA. Nothing is left to timing.
 *
 *	stalled_read_start(&io);	A is pinned
 *	...				interfere with io.page_a
 *	stalled_read_finish(&io);	B arrives, the disk writes into the pinned page
 *	stalled_read_check(&io);	does A show what the disk holds?
 */
#ifndef STALLEDIO_H
#define STALLEDIO_H
#include "guesttest.h"
#include "pagestate.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

struct stalled_read {
	char *page_a, *page_b, *target;	/* target: where the read starts, in the middle of A */
	char *on_disk;
	size_t length;
	int fd, uffd, done[2], error;
	ssize_t got;
	pthread_t reader;
};

static inline void *stalled_read_thread(void *arg)
{
	struct stalled_read *io = arg;

	io->got = pread(io->fd, io->target, io->length, 0);
	io->error = errno;
	close(io->done[1]);		/* wakes the poll of a test that waits for a fault in vain */
	return NULL;
}

/* The file's bytes must come from the disk: a page cache copy is made by the CPU, without a pin. */
static inline bool stalled_read_is_cached(struct stalled_read *io)
{
	unsigned char cached[2] = { 0 };
	size_t page = page_size();
	void *map = mmap(NULL, 2 * page, PROT_READ, MAP_SHARED, io->fd, 0);

	gt_need(map != MAP_FAILED, "mapping the file");
	gt_need(!mincore(map, 2 * page, cached), "mincore");
	munmap(map, 2 * page);
	return (cached[0] | cached[1]) & 1;
}

static inline void stalled_read_open_file(struct stalled_read *io)
{
	char name[] = "stalledio.XXXXXX";
	size_t room = 2 * page_size();
	struct statfs fs;
	int fd = mkstemp(name);

	gt_need(fd >= 0 && !fstatfs(fd, &fs), "a file in the current directory");
	io->on_disk = malloc(room);
	for (size_t i = 0; i < room; i++)
		io->on_disk[i] = 1 + i % 127;	/* never the byte that fills page A */
	gt_need(write(fd, io->on_disk, room) == (ssize_t)room && !fsync(fd), "writing the file to disk");
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	close(fd);
	io->fd = open(name, O_RDWR | O_DIRECT | O_CLOEXEC);
	fd = errno;
	unlink(name);
	if (io->fd < 0)
		gt_skip("no O_DIRECT on the file system of the current directory (type 0x%lx): %s",
			(unsigned long)fs.f_type, strerror(fd));
	if (stalled_read_is_cached(io))
		gt_skip("file system type 0x%lx keeps the file in the page cache", (unsigned long)fs.f_type);
}

static inline void stalled_read_open_uffd(struct stalled_read *io)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = {
		.range = { (uintptr_t)io->page_b, page_size() }, .mode = UFFDIO_REGISTER_MODE_MISSING
	};

	io->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (io->uffd < 0)
		gt_skip("no userfaultfd: %s", strerror(errno));
	gt_need(!ioctl(io->uffd, UFFDIO_API, &api), "UFFDIO_API");
	gt_need(!ioctl(io->uffd, UFFDIO_REGISTER, &range), "UFFDIO_REGISTER");
}

static inline void stalled_read_start(struct stalled_read *io)
{
	struct uffd_msg message;
	size_t page = page_size();

	memset(io, 0, sizeof(*io));
	stalled_read_open_file(io);
	io->page_a = page_map(2, 0xa5);	/* written: present and writable, as the fast path wants it */
	io->page_b = io->page_a + page;
	io->target = io->page_a + page / 2;
	io->length = page + page / 2;
	gt_need(!madvise(io->page_b, page, MADV_DONTNEED), "MADV_DONTNEED");
	stalled_read_open_uffd(io);
	gt_need(!pipe2(io->done, O_CLOEXEC), "pipe");
	gt_need(!pthread_create(&io->reader, NULL, stalled_read_thread, io), "pthread_create");

	struct pollfd wait[] = { { io->uffd, POLLIN, 0 }, { io->done[0], 0, 0 } };

	gt_need(poll(wait, 2, -1) > 0, "poll");
	if (!(wait[0].revents & POLLIN)) {
		pthread_join(io->reader, NULL);
		if (io->got < 0 && io->error == EINVAL)
			gt_skip("the disk's blocks are larger than half a page of %zu bytes", page);
		gt_broken("the read ended with %zd (%s) before page B was there", io->got, strerror(io->error));
	}
	gt_need(read(io->uffd, &message, sizeof(message)) == sizeof(message), "userfaultfd message");
	gt_need(message.event == UFFD_EVENT_PAGEFAULT &&
		(message.arg.pagefault.address & -page) == (uintptr_t)io->page_b, "a fault on page B");
}

static inline void stalled_read_finish(struct stalled_read *io)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)io->page_b, page_size() } };

	gt_need(!ioctl(io->uffd, UFFDIO_ZEROPAGE, &zero), "UFFDIO_ZEROPAGE");
	gt_need(!pthread_join(io->reader, NULL), "pthread_join");
	gt_need(io->got == (ssize_t)io->length, "the read returned %zd (%s)", io->got, strerror(io->error));
	if (stalled_read_is_cached(io))
		gt_skip("the file system answered the direct read from the page cache");
}

/* B is the control: it came after the interference. If it is wrong too, suspect the disk. */
static inline void stalled_read_check(struct stalled_read *io)
{
	size_t in_a = io->page_b - io->target;

	gt_check_bytes(io->on_disk + in_a, io->page_b, page_size(), "bytes read into page B, the control");
	gt_check_bytes(io->on_disk, io->target, in_a, "bytes read into page A");
}
#endif
