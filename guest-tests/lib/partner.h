/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A child that takes turns with the test. If one side has ended, because it detected incorrect kernel
 * behaviour, the other side's wait ends too, and the test has the outcome of the side that ended.
 */
#ifndef PARTNER_H
#define PARTNER_H
#include "guesttest.h"
#include <fcntl.h>

struct partner {
	pid_t pid;		/* 0 in the child */
	int in, out;
};

/* Returns true in the child. */
static inline bool partner_fork(struct partner *partner)
{
	int down[2], up[2];

	signal(SIGPIPE, SIG_IGN);
	gt_need(!pipe2(down, O_CLOEXEC) && !pipe2(up, O_CLOEXEC), "pipes");
	partner->pid = gt_fork();
	partner->in = partner->pid ? up[0] : down[0];
	partner->out = partner->pid ? down[1] : up[1];
	close(partner->pid ? up[1] : down[1]);
	close(partner->pid ? down[0] : up[0]);
	return !partner->pid;
}

static inline void partner_must_live(struct partner *partner, bool lives)
{
	if (lives)
		return;
	if (partner->pid)
		gt_reap(partner->pid);
	gt_broken("the other process ended too early");
}

/* Lets the other side go on. */
static inline void partner_wake(struct partner *partner)
{
	char byte = 0;

	partner_must_live(partner, write(partner->out, &byte, 1) == 1);
}

static inline void partner_wait(struct partner *partner)
{
	char byte;

	partner_must_live(partner, read(partner->in, &byte, 1) == 1);
}

/* The child ends here; the parent collects its result. */
static inline void partner_end(struct partner *partner)
{
	if (!partner->pid)
		_exit(0);
	gt_reap(partner->pid);
}
#endif
