/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Lets the nth allocation of this thread fail, of slab objects and pages alike, and tells whether there was
 * an nth one. A caller that counts n up until there was none has seen every error path of a system call.
 */
#ifndef FAILNTH_H
#define FAILNTH_H
#include "guesttest.h"
#include "pagestate.h"
#include <sys/syscall.h>
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#include <sys/rseq.h>
#endif

static int failnth_file = -1;

/* The kernel kills a thread whose area it cannot write to when a system call ends, as after a fork. */
static inline void failnth_leave_rseq(void)
{
#ifdef RSEQ_SIG
	char *area = (char *)__builtin_thread_pointer() + __rseq_offset;

	gt_need(!__rseq_size || !syscall(SYS_rseq, area, 32, RSEQ_FLAG_UNREGISTER, RSEQ_SIG) ||
		!syscall(SYS_rseq, area, __rseq_size, RSEQ_FLAG_UNREGISTER, RSEQ_SIG), "leaving rseq");
#endif
}

/* Without the settings, allocations that may wait, and those for user space, would never fail. */
static inline void failnth_begin(void)
{
	static const char *const setting[][2] = {
		{ "/sys/kernel/debug/failslab/ignore-gfp-wait", "N" },
		{ "/sys/kernel/debug/failslab/verbose", "0" },
		{ "/sys/kernel/debug/fail_page_alloc/ignore-gfp-wait", "N" },
		{ "/sys/kernel/debug/fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "/sys/kernel/debug/fail_page_alloc/min-order", "0" },
		{ "/sys/kernel/debug/fail_page_alloc/verbose", "0" },
	};

	for (size_t i = 0; i < sizeof(setting) / sizeof(*setting); i++)
		gt_need(page_write_file(setting[i][0], setting[i][1]), "setting %s", setting[i][0]);
	failnth_leave_rseq();
	failnth_file = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	gt_need(failnth_file >= 0, "opening /proc/thread-self/fail-nth");
}

static inline void failnth_arm(unsigned int n)
{
	char text[16];
	int length = snprintf(text, sizeof(text), "%u", n);

	gt_need(pwrite(failnth_file, text, length, 0) == length, "setting fail-nth");
}

/* Returns whether an allocation has failed; page faults of the thread count as well. Keeps errno. */
static inline bool failnth_end(void)
{
	char text[16] = "";
	int error = errno;
	ssize_t got;

	do
		got = pread(failnth_file, text, sizeof(text) - 1, 0);
	while (got < 0 && errno == EFAULT);	/* this was the one that failed */
	gt_need(got > 0 && pwrite(failnth_file, "0", 1, 0) == 1, "reading fail-nth");
	errno = error;
	return !strtoul(text, NULL, 10);
}
#endif
