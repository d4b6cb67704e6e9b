/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A thread of ours held inside the kernel by our module, at an instruction of choice, while another
 * does what may only happen then. What the other does must not wait for the CPU of the first.
 */
#ifndef LIB_COWHOLD_H
#define LIB_COWHOLD_H
#include "../module/cowhold.h"
#include "guesttest.h"
#include "module.h"
#include <poll.h>
#include <sched.h>

static inline int cowhold_open(void)
{
	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		gt_skip("needs 2 CPUs: one is held");
	return module_open("cowhold");
}

/* For the thread to be held: not on the CPU of who started it, who goes on meanwhile. */
static inline pid_t cowhold_move_away(void)
{
	cpu_set_t others;

	memset(&others, 0xff, sizeof(others));
	CPU_CLR(sched_getcpu(), &others);
	gt_need(!sched_setaffinity(0, sizeof(others), &others), "moving to another CPU");
	return syscall(SYS_gettid);
}

/*
 * Whether the thread is held; false if done_fd has a byte or is closed before. Sleeping would do, were not the
 * CPU that is held, with its interrupts off, the one that keeps the time on some machines.
 */
static inline bool cowhold_wait(int fd, int done_fd)
{
	struct pollfd done = { done_fd, POLLIN, 0 };

	while (ioctl(fd, COWHOLD_IOC_LOOK)) {
		if (errno != EAGAIN || poll(&done, 1, 0))
			return false;
		sched_yield();
	}
	return true;
}
#endif
