/* SPDX-License-Identifier: GPL-2.0-or-later */
/* userfaultfd: missing faults and write protection, with a check that a protected page stops a write. */
#ifndef UFFD_H
#define UFFD_H
#include "guesttest.h"
#include "pagestate.h"
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* Skips if the kernel does not know the features. */
static inline int uffd_open_with(uint64_t features)
{
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (fd < 0)
		gt_skip("no userfaultfd: %s", strerror(errno));
	if (ioctl(fd, UFFDIO_API, &api)) {
		gt_need(features && errno == EINVAL, "UFFDIO_API");
		gt_skip("userfaultfd lacks features 0x%llx", (unsigned long long)features);
	}
	return fd;
}

static inline int uffd_open(void)
{
	return uffd_open_with(0);
}

static inline void uffd_register(int fd, void *start, size_t length, unsigned int mode)
{
	struct uffdio_register range = { .range = { (uintptr_t)start, length }, .mode = mode };
	bool done = !ioctl(fd, UFFDIO_REGISTER, &range);

	if (mode & UFFDIO_REGISTER_MODE_WP && ((!done && errno == EINVAL) ||
					      (done && !(range.ioctls & 1ULL << _UFFDIO_WRITEPROTECT))))
		gt_skip("this kernel's userfaultfd has no write protection");
	gt_need(done, "UFFDIO_REGISTER");
}

/* Write-protects the range, or removes the protection and wakes up the waiters. */
static inline void uffd_write_protect(int fd, void *start, size_t length, bool on)
{
	struct uffdio_writeprotect range = {
		.range = { (uintptr_t)start, length }, .mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0
	};

	gt_need(!ioctl(fd, UFFDIO_WRITEPROTECT, &range), "UFFDIO_WRITEPROTECT %s", on ? "on" : "off");
}

/* Whether a message comes before done_fd, if any, has one or is closed. */
static inline bool uffd_wait(int fd, int done_fd, struct uffd_msg *message)
{
	struct pollfd wait[] = { { fd, POLLIN, 0 }, { done_fd, POLLIN, 0 } };

	gt_need(poll(wait, 2, -1) > 0, "poll");
	if (!(wait[0].revents & POLLIN))
		return false;
	gt_need(read(fd, message, sizeof(*message)) == sizeof(*message), "userfaultfd message");
	return true;
}

struct uffd_writer {
	volatile char *byte;
	int done[2];
	pthread_t thread;
};

static inline void *uffd_writer_thread(void *arg)
{
	struct uffd_writer *writer = arg;

	*writer->byte = 'w';
	close(writer->done[1]);
	return NULL;
}

/* Whether a write to the byte is stopped and reported. The write is let through in the end. */
static inline bool uffd_stops_write(int fd, char *byte)
{
	struct uffd_writer writer = { .byte = byte };
	char *page = (char *)((uintptr_t)byte & -page_size());
	struct uffd_msg message;
	bool stopped;

	gt_need(!pipe2(writer.done, O_CLOEXEC) &&
		!pthread_create(&writer.thread, NULL, uffd_writer_thread, &writer), "a thread that writes");
	stopped = uffd_wait(fd, writer.done[0], &message);
	if (stopped) {
		gt_need(message.event == UFFD_EVENT_PAGEFAULT &&
			message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP &&
			(char *)((uintptr_t)message.arg.pagefault.address & -page_size()) == page,
			"a write-protect fault on the page, got event 0x%x, flags 0x%llx", message.event,
			(unsigned long long)message.arg.pagefault.flags);
		uffd_write_protect(fd, page, page_size(), false);
	}
	gt_need(!pthread_join(writer.thread, NULL), "pthread_join");
	close(writer.done[0]);
	return stopped;
}
#endif
