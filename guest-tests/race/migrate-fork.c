// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that fork() shares stays write-protected when it is migrated: to share it is to change what a migration
 * under way will map (fork=during; module cowhold stops the migration), and a migration maps what was there before
 * (fork=before).
 */
#include "cowhold.h"
#include "numa.h"
#include "pagestate.h"
#include "partner.h"
#include "thp.h"
#include <pthread.h>

enum { LIMIT_MS = 400, MOST_ROUNDS = 5, MOVE_ALL = 4 };

static struct {
	void *page;
	pid_t tid;
	int go[2], done[2];
} migration;

/* To the other of two nodes. Returns whether it was. */
static bool move_page(void *page)
{
	int node = !numa_node_of(page), status = -1;

	if (syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, MOVE_ALL) < 0)
		gt_skip("pages cannot be moved to NUMA node %d: %s", node, strerror(errno));
	return status == node;
}

static void *migrate(void *arg)
{
	char byte;

	(void)arg;
	__atomic_store_n(&migration.tid, cowhold_move_away(), __ATOMIC_RELEASE);
	gt_need(read(migration.go[0], &byte, 1) == 0, "waiting");
	move_page(migration.page);
	close(migration.done[1]);
	return NULL;
}

static void check_child(struct partner *parent, volatile char *page)
{
	partner_wait(parent);
	gt_check(*page == 'o', "the child keeps the data of the time of fork, not '%c',", *page);
	*page = 'c';
	partner_wake(parent);
	partner_end(parent);
}

static void check_both(struct partner *child, volatile char *page)
{
	*page = 'p';
	partner_wake(child);
	partner_wait(child);
	gt_check(*page == 'p', "the parent keeps the data that it wrote, not '%c',", *page);
	partner_end(child);
}

/* The page is unmapped when it is called. */
static const char *const migrating[] = {
	"migrate_page_move_mapping", "__folio_migrate_mapping", "folio_migrate_mapping", NULL,
};

/* fork() flushes the TLB in the end, and so may wait until the migration goes on. Returns whether they met. */
static bool fork_during(volatile char *page)
{
	int hold = cowhold_open();
	struct partner child;
	pthread_t thread;
	bool met;

	migration.page = (void *)page;
	migration.tid = 0;
	gt_need(!pipe2(migration.go, O_CLOEXEC) && !pipe2(migration.done, O_CLOEXEC) &&
		!pthread_create(&thread, NULL, migrate, NULL), "a thread");
	while (!__atomic_load_n(&migration.tid, __ATOMIC_ACQUIRE))
		sched_yield();
	cowhold_arm_first(hold, migration.tid, LIMIT_MS, migrating, "the migration of a page");
	close(migration.go[1]);
	met = cowhold_wait(hold, migration.done[0]) && page_entry(page) & PAGE_SWAPPED;
	if (partner_fork(&child)) {
		close(migration.go[0]);
		close(migration.done[0]);
		check_child(&child, page);
	}
	ioctl(hold, COWHOLD_IOC_RELEASE);
	gt_need(!pthread_join(thread, NULL), "pthread_join");
	close(migration.go[0]);
	close(migration.done[0]);
	close(hold);
	check_both(&child, page);
	return met;
}

static bool fork_before(volatile char *page)
{
	struct partner child;
	bool moved;

	if (partner_fork(&child))
		check_child(&child, page);
	moved = move_page((void *)page);
	check_both(&child, page);
	return moved;
}

static void run(void)
{
	bool during = !strcmp(gt_param("fork"), "during"), met = false;
	size_t length = page_size();
	int rounds = 0;

	page_stay_on_cpu();
	while (!met) {
		char *page = strcmp(gt_param("page"), "thp") ? page_map(1, 'o') : page_map_thp(&length, 'o');

		gt_need(++rounds <= MOST_ROUNDS, "a migration %s", during ? "that is stopped" : "of the page");
		page_settle(page);
		met = (during ? fork_during : fork_before)(page);
		munmap(page, length);
	}
	gt_pass("neither process saw what the other wrote, in round %d", rounds);
}

GUEST_TEST = {
	.summary       = "a page that fork() shares is write-protected after its migration, too",
	.contract      = "C-ISO",
	.mechanism     = "the entry of a migration lets both processes write to the page",
	.needs_kconfig = "MODULES=y KPROBES=y MIGRATION=y NUMA=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.params        = "page: small thp; fork: before during",
	.needs_root    = true,
	.cpus          = 2,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a process that sees what the other one wrote after fork()",
	.run           = run,
};
