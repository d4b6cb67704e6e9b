/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vmsplice attack: a child puts a page it shares with its parent into a pipe, which pins it for
 * reading, unmaps it, and so hides that it still has access. If the parent's next write is then
 * taken for a write to a page of its own, the child reads the parent's new data from the pipe.
 */
#ifndef PIPEPIN_H
#define PIPEPIN_H
#include "guesttest.h"
#include "pagestate.h"
#include <sys/uio.h>

enum { PIPEPIN_OLD = 'o', PIPEPIN_SECRET = 's', PIPEPIN_SLICE = 64 };

static inline void pipepin_sync(int fd, bool send)
{
	char byte = 0;

	gt_need((send ? write(fd, &byte, 1) : read(fd, &byte, 1)) == 1, "keeping step with the other process");
}

/* The child's whole life. Ends in 0 after telling the parent what the pipe held. */
static inline _Noreturn void pipepin_child(char *page, size_t length, int ready, int go, int report)
{
	struct iovec slice = { page, PIPEPIN_SLICE };
	char seen[PIPEPIN_SLICE];
	int spliced[2];

	gt_need(!pipe(spliced), "pipe");
	gt_need(vmsplice(spliced[1], &slice, 1, 0) == PIPEPIN_SLICE, "vmsplice");
	gt_need(!munmap(page, length), "munmap");
	pipepin_sync(ready, true);
	pipepin_sync(go, false);
	gt_need(read(spliced[0], seen, sizeof(seen)) == sizeof(seen), "reading the spliced page");
	gt_need(write(report, seen, sizeof(seen)) == sizeof(seen), "reporting to the parent");
	_exit(0);
}

/* page: filled with PIPEPIN_OLD, private, mapped by this process alone. */
static inline void pipepin_check_child_reads_parent(char *page, size_t length)
{
	char old[PIPEPIN_SLICE], seen[PIPEPIN_SLICE];
	int ready[2], go[2], report[2];
	pid_t child;

	gt_need(!pipe(ready) && !pipe(go) && !pipe(report), "pipes");
	memset(old, PIPEPIN_OLD, sizeof(old));
	child = gt_fork();
	if (!child) {
		close(go[1]);	/* the only writers are the other side: its death ends the read */
		pipepin_child(page, length, ready[1], go[0], report[1]);
	}
	close(ready[1]);
	close(report[1]);
	pipepin_sync(ready[0], false);
	/* Our page table maps the page read-only since fork: this is the fault that must copy. */
	page_touch(page, PIPEPIN_SECRET);
	memset(page, PIPEPIN_SECRET, PIPEPIN_SLICE);
	pipepin_sync(go[1], true);
	gt_need(read(report[0], seen, sizeof(seen)) == sizeof(seen), "the child's report");
	gt_reap(child);
	gt_check_bytes(old, seen, sizeof(seen), "what the child reads after the parent's write");
	gt_pass("the child sees the page as it was at fork");
}
#endif
