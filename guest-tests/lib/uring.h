/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * io_uring by raw system calls: one request at a time, from a registered buffer. Registering
 * pins the pages for reading and writing for as long as the ring lives.
 */
#ifndef URING_H
#define URING_H
#include "guesttest.h"
#include "pagestate.h"
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

struct uring {
	int fd;
	struct io_uring_params p;
	char *sq, *cq;
	struct io_uring_sqe *sqes;
};

static inline unsigned int *uring_word(char *ring, unsigned int offset)
{
	return (unsigned int *)(ring + offset);
}

static inline void *uring_map(struct uring *u, size_t length, off_t what)
{
	void *map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, u->fd, what);

	gt_need(map != MAP_FAILED, "mapping the ring");
	return map;
}

static inline void uring_open(struct uring *u)
{
	memset(u, 0, sizeof(*u));
	u->fd = syscall(SYS_io_uring_setup, 4, &u->p);
	if (u->fd < 0)
		gt_skip("no io_uring: %s", strerror(errno));
	u->sq = uring_map(u, u->p.sq_off.array + u->p.sq_entries * sizeof(unsigned int), IORING_OFF_SQ_RING);
	u->cq = uring_map(u, u->p.cq_off.cqes + u->p.cq_entries * sizeof(struct io_uring_cqe),
			  IORING_OFF_CQ_RING);
	u->sqes = uring_map(u, u->p.sq_entries * sizeof(struct io_uring_sqe), IORING_OFF_SQES);
}

static inline void uring_register_buffer(struct uring *u, void *start, size_t length)
{
	struct iovec buffer = { start, length };

	gt_need(!syscall(SYS_io_uring_register, u->fd, IORING_REGISTER_BUFFERS, &buffer, 1),
		"registering a buffer of %zu bytes", length);
}

static inline void uring_unregister_buffer(struct uring *u)
{
	gt_need(!syscall(SYS_io_uring_register, u->fd, IORING_UNREGISTER_BUFFERS, NULL, 0), "unregistering a buffer");
}

/* opcode: IORING_OP_WRITE_FIXED or IORING_OP_READ_FIXED, within the registered buffer. */
static inline int uring_transfer_fixed(struct uring *u, int opcode, int fd, void *start, size_t length)
{
	unsigned int *tail = uring_word(u->sq, u->p.sq_off.tail), *head = uring_word(u->cq, u->p.cq_off.head);
	unsigned int slot = *tail & *uring_word(u->sq, u->p.sq_off.ring_mask);
	struct io_uring_cqe *cqes = (void *)(u->cq + u->p.cq_off.cqes);
	int result;

	u->sqes[slot] = (struct io_uring_sqe){
		.opcode = opcode, .fd = fd, .addr = (uintptr_t)start, .len = length, .buf_index = 0
	};
	uring_word(u->sq, u->p.sq_off.array)[slot] = slot;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	gt_need(syscall(SYS_io_uring_enter, u->fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) == 1, "io_uring_enter");
	/* What was submitted is counted even if the wait was cut short, as by work of the kernel for this task. */
	while (__atomic_load_n(uring_word(u->cq, u->p.cq_off.tail), __ATOMIC_ACQUIRE) == *head)
		gt_need(syscall(SYS_io_uring_enter, u->fd, 0, 1, IORING_ENTER_GETEVENTS, NULL, 0) >= 0 || errno == EINTR,
			"waiting for a completion");
	result = cqes[*head & *uring_word(u->cq, u->p.cq_off.ring_mask)].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

/* Coherency check: the ring sends the data that the program sees. */
static inline void uring_check_sends(struct uring *u, const char *buffer, size_t length)
{
	char *sent = malloc(length);
	int file = memfd_create("sent", MFD_CLOEXEC), result;

	gt_need(file >= 0, "memfd_create");
	result = uring_transfer_fixed(u, IORING_OP_WRITE_FIXED, file, (void *)buffer, length);
	gt_need(result == (int)length, "WRITE_FIXED returned %d", result);
	gt_need(pread(file, sent, length, 0) == (ssize_t)length, "reading back the data sent");
	gt_check_bytes(buffer, sent, length, "bytes sent by the ring, compared with the buffer");
	close(file);
	free(sent);
}

/*
 * Coherency check after the program has written all of the buffer: read fault, write fault, then the
 * rest.
 */
static inline void uring_check_sends_new(struct uring *u, char *buffer, size_t length)
{
	page_touch(buffer, 'n');
	memset(buffer, 'n', length);
	uring_check_sends(u, buffer, length);
}
#endif
