/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Holds a thread inside the kernel at a given instruction by module cowhold, while another thread acts.
 * The other thread must not wait for the CPU of the held one.
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
		gt_skip("needs 2 CPUs, since one is held");
	return module_open("cowhold");
}

/* Called by the thread to be held: moves to another CPU than that of its creator, which goes on running. */
static inline pid_t cowhold_move_away(void)
{
	cpu_set_t others;

	memset(&others, 0xff, sizeof(others));
	CPU_CLR(sched_getcpu(), &others);
	gt_need(!sched_setaffinity(0, sizeof(others), &others), "moving to another CPU");
	return syscall(SYS_gettid);
}

/*
 * Holds the thread at the first of these functions that the kernel has: names depend on version and compiler.
 * NULL ends them. Returns the name; skips, saying what cannot be held, if it has none.
 */
static inline const char *cowhold_arm_first(int fd, pid_t tid, unsigned int limit_ms, const char *const *names,
					    const char *what)
{
	struct cowhold_arm arm = { .tid = tid, .limit_ms = limit_ms };

	for (; *names; names++) {
		snprintf(arm.symbol, sizeof(arm.symbol), "%s", *names);
		if (!ioctl(fd, COWHOLD_IOC_ARM, &arm))
			return *names;
	}
	gt_skip("%s cannot be held: %s", what, strerror(errno));
}

/*
 * Returns whether the thread is held, false if done_fd becomes readable or is closed before. Polls
 * instead of sleeping, because on some machines the held CPU, with its interrupts off, is the one that
 * keeps the time.
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
