/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/* ioctls of /dev/cowpin. One pin per open file; closing it unpins. */
#ifndef COWPIN_H
#define COWPIN_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The kernel's own flags differ from version to version */
#define COWPIN_WRITE	1u	/* FOLL_WRITE */
#define COWPIN_LONGTERM	2u	/* FOLL_LONGTERM */
#define COWPIN_FAST	4u	/* without mmap_lock, as direct I/O does */
#define COWPIN_GET	8u	/* FOLL_GET: a plain reference, no pin */

/* addr is page aligned. 0, or EFAULT when not all of the pages could be pinned. */
struct cowpin_pin {
	__u64 addr;
	__u64 pages;
	__u32 flags;
	__u32 reserved;
};

/* Copy from the pinned pages, or into them, as a device would. */
struct cowpin_copy {
	__u64 offset;
	__u64 buffer;
	__u64 size;
};

#define COWPIN_IOC_PIN		_IOW('C', 1, struct cowpin_pin)
#define COWPIN_IOC_UNPIN	_IO('C', 2)
#define COWPIN_IOC_READ		_IOW('C', 3, struct cowpin_copy)
#define COWPIN_IOC_WRITE	_IOW('C', 4, struct cowpin_copy)

#endif
