/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A page that stays on its way to another NUMA node: another process moves it, and module cowhold stops
 * that process after the kernel has put a migration entry into the page table.
 */
#ifndef MIGRATING_H
#define MIGRATING_H
#include "cowhold.h"
#include "guesttest.h"
#include "pagestate.h"
#include "partner.h"
#include <sys/syscall.h>

enum { MIGRATING_MPOL_MF_MOVE = 1 << 1 };

struct migrating_order {
	char *page;
	int node, status;
	pid_t tid;
};

static struct {
	int hold;			/* file of cowhold */
	bool is_held;
	struct partner mover;
	struct migrating_order *order;
} migrating;

/* The node that the page is on then, or an error number, negative. */
static inline int migrating_move(pid_t pid, char *page, int node)
{
	int status = -1;
	void *pages = page;

	if (syscall(SYS_move_pages, pid, 1UL, &pages, &node, &status, MIGRATING_MPOL_MF_MOVE) < 0)
		return -errno;
	return status;
}

/* The process that moves the page. It has none of the memory, and another CPU than the test. */
static inline void migrating_start_mover(void)
{
	migrating.hold = cowhold_open();
	migrating.order = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	gt_need(migrating.order != MAP_FAILED, "shared memory");
	if (partner_fork(&migrating.mover)) {
		migrating.order->tid = cowhold_move_away();
		partner_wake(&migrating.mover);
		partner_wait(&migrating.mover);
		migrating.order->status = migrating_move(getppid(), migrating.order->page, migrating.order->node);
		partner_end(&migrating.mover);
	}
	partner_wait(&migrating.mover);
}

/* limit_ms: when the migration goes on although nobody lets it. */
static inline void migrating_hold(char *page, int node, unsigned int limit_ms)
{
	/* While the page is copied. */
	static const char *const functions[] = { "migrate_page_copy", "folio_migrate_flags", NULL };
	const char *function;

	page_settle(page);
	migrating.order->page = page;
	migrating.order->node = node;
	function = cowhold_arm_first(migrating.hold, migrating.order->tid, limit_ms, functions, "a migration");
	partner_wake(&migrating.mover);
	if (!cowhold_wait(migrating.hold, migrating.mover.in)) {
		gt_need(migrating.order->status >= 0, "the page is migrated: %d", migrating.order->status);
		gt_skip("the migration does not call %s", function);
	}
	migrating.is_held = true;
	gt_need(page_entry(page) & PAGE_SWAPPED, "the page's entry is one of a migration");
}

/* Ends the migration, if any. in_time: it must not have ended by itself. */
static inline void migrating_let_go(bool in_time)
{
	if (!migrating.is_held)
		return;
	migrating.is_held = false;
	gt_need(!ioctl(migrating.hold, COWHOLD_IOC_RELEASE) || !in_time, "the migration ended too early");
	partner_end(&migrating.mover);
}
#endif
