/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vmsplice() attack: one process vmsplice()s a page that it shares with another into a pipe, which
 * takes an R/O reference, and unmaps it, so that its mapcount drops. If the other's next write then
 * reuses the page, the first process reads the new data from the pipe.
 */
#ifndef PIPEPIN_H
#define PIPEPIN_H
#include "guesttest.h"
#include "pagestate.h"
#include "partner.h"
#include <sys/uio.h>
#include <sys/wait.h>

enum { PIPEPIN_OLD = 'o', PIPEPIN_SECRET = 's', PIPEPIN_SLICE = 64 };

/* If the other process has ended, because it detected incorrect kernel behaviour, its outcome is the test's. */
static inline void pipepin_sync(int fd, bool send)
{
	siginfo_t ended;
	char byte = 0;

	if ((send ? write(fd, &byte, 1) : read(fd, &byte, 1)) == 1)
		return;
	if (!waitid(P_ALL, 0, &ended, WEXITED | WNOWAIT))
		gt_reap(ended.si_pid);
	gt_broken("the other process ended too early");
}

static inline bool pipepin_splice(int spliced[2], char *page)
{
	struct iovec slice = { page, PIPEPIN_SLICE };

	gt_need(!pipe(spliced), "pipe");
	return vmsplice(spliced[1], &slice, 1, 0) == PIPEPIN_SLICE;
}

static inline void pipepin_check_kept(const char *seen, const char *what)
{
	char old[PIPEPIN_SLICE];

	memset(old, PIPEPIN_OLD, sizeof(old));
	gt_check_bytes(old, seen, sizeof(old), what);
}

struct pipepin {
	bool may_refuse;		/* vmsplice may fail, if it does so without harm */
	void (*before_splice)(char *page);	/* in the child: brings the page to where the attack wants it */
	void (*write)(volatile char *byte, char value);	/* the parent's first write, page_touch if NULL */
};

/* Runs the child. Exits with 0 after it reported the contents of the pipe to the parent. */
static inline _Noreturn void pipepin_child(const struct pipepin *how, char *page, size_t length, int ready,
					   int go, int report)
{
	char seen[PIPEPIN_SLICE];
	int spliced[2];
	bool done;

	if (how->before_splice)
		how->before_splice(page);
	done = pipepin_splice(spliced, page);
	gt_need(done || how->may_refuse, "vmsplice");
	gt_need(!munmap(page, length), "munmap");
	pipepin_sync(ready, true);
	pipepin_sync(go, false);
	if (!done)
		_exit(0);
	gt_need(read(spliced[0], seen, sizeof(seen)) == sizeof(seen), "reading the spliced page");
	gt_need(write(report, seen, sizeof(seen)) == sizeof(seen), "reporting to the parent");
	_exit(0);
}

/* page: filled with PIPEPIN_OLD, private, mapped by this process alone. */
static inline void pipepin_check_child(const struct pipepin *how, char *page, size_t length)
{
	char seen[PIPEPIN_SLICE];
	int ready[2], go[2], report[2];
	ssize_t reported;
	pid_t child;

	gt_need(!pipe(ready) && !pipe(go) && !pipe(report), "pipes");
	child = gt_fork();
	if (!child) {
		close(go[1]);	/* the only writers are the other side: its death ends the read */
		pipepin_child(how, page, length, ready[1], go[0], report[1]);
	}
	close(ready[1]);
	close(report[1]);
	pipepin_sync(ready[0], false);
	/* Our page table maps the page read-only since fork: this is the fault that must copy. */
	(how->write ?: page_touch)(page, PIPEPIN_SECRET);
	memset(page, PIPEPIN_SECRET, PIPEPIN_SLICE);
	pipepin_sync(go[1], true);
	reported = read(report[0], seen, sizeof(seen));
	gt_reap(child);
	if (!reported && how->may_refuse)
		gt_pass("vmsplice failed, and the parent's write succeeded");
	gt_need(reported == sizeof(seen), "the child's report");
	pipepin_check_kept(seen, "what the child reads after the parent's write");
	gt_pass("the child sees the page as it was at fork");
}

static inline void pipepin_check_child_reads_parent(char *page, size_t length)
{
	pipepin_check_child(&(struct pipepin){ 0 }, page, length);
}

/* The other direction: the parent keeps the page in a pipe, from before or after the fork. */
static inline void pipepin_check_parent_reads_child(char *page, size_t length, bool before_fork)
{
	char seen[PIPEPIN_SLICE];
	struct partner child;
	int spliced[2];

	gt_need(!before_fork || pipepin_splice(spliced, page), "vmsplice");
	if (partner_fork(&child)) {
		partner_wait(&child);
		page_touch(page, PIPEPIN_SECRET);
		memset(page, PIPEPIN_SECRET, PIPEPIN_SLICE);
		partner_wake(&child);
		partner_end(&child);
	}
	gt_need(before_fork || pipepin_splice(spliced, page), "vmsplice");
	gt_need(!munmap(page, length), "munmap");
	partner_wake(&child);
	partner_wait(&child);
	gt_check(read(spliced[0], seen, sizeof(seen)) == sizeof(seen), "the pipe has what was spliced into it");
	partner_end(&child);
	pipepin_check_kept(seen, "what the parent reads after the child's write");
	gt_pass("the parent sees the page as it was at fork");
}
#endif
