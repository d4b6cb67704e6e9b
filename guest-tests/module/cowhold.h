/* SPDX-License-Identifier: GPL-2.0-or-later WITH Linux-syscall-note */
/* ioctls of /dev/cowhold. One held thread per open file; closing it releases the thread. */
#ifndef COWHOLD_H
#define COWHOLD_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define COWHOLD_MOST_MS 1000	/* far below what the lockup detectors wait for */

/*
 * The next time that thread tid reaches the instruction at this offset of the function, it waits there
 * for at most limit_ms. Fails with EILSEQ or EINVAL if no instruction begins there.
 */
struct cowhold_arm {
	char symbol[56];
	__u32 offset;
	__u32 tid;
	__u32 limit_ms;
	__u32 reserved;
};

#define COWHOLD_IOC_ARM		_IOW('H', 1, struct cowhold_arm)
/* 0 if the thread is held, EAGAIN if it has not come yet, ETIME if it has left at its limit. */
#define COWHOLD_IOC_LOOK	_IO('H', 2)
/* 0 if the thread was held to this very moment, EAGAIN or ETIME as above. */
#define COWHOLD_IOC_RELEASE	_IO('H', 3)

#endif
