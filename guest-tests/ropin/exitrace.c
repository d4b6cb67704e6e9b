// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Threads take R/O pins of a page while it stops being shared: a child that shares it exits, or the
 * page migrates and is not mapped for a moment. A pin that still finds the page shared replaces it
 * by a copy; one that does not pins it as it is. If the second one pins the page that the first one
 * is about to replace, it loses coherency.
 */
#include "cowpin.h"
#include "hugetlb.h"
#include "rate.h"
#include <pthread.h>
#include <time.h>

enum { THREADS = 2, PINS = 40, SECONDS = 4 };

static struct {
	char *page;
	bool over;
	pid_t child;
	int go[2];
	struct pinner {
		pthread_t thread;
		int fds[PINS], count, early, refused;
	} pinners[THREADS];
} shared;

static bool is_over(void)
{
	return __atomic_load_n(&shared.over, __ATOMIC_ACQUIRE);
}

/* Until the sharing has ended, and once more. */
static void *pin_on(void *arg)
{
	struct pinner *mine = arg;
	bool was_over = false;

	for (mine->count = mine->early = 0; !was_over && mine->count < PINS;) {
		was_over = is_over();
		if (cowpin_try(mine->fds[mine->count], shared.page, 1, COWPIN_LONGTERM | COWPIN_FAST)) {
			mine->refused++;	/* a page that migrates */
			continue;
		}
		mine->count++;
		mine->early += !was_over;
		usleep(20);
	}
	return NULL;
}

/* Returns how many pins of the round read something else than the page shows, after a write. */
static int judge_pins(void)
{
	char seen[2];
	int lost = 0;

	page_touch(shared.page, 'n');
	for (int t = 0; t < THREADS; t++)
		for (int i = 0; i < shared.pinners[t].count; i++) {
			cowpin_read(shared.pinners[t].fds[i], seen, sizeof(seen));
			lost += seen[0] != 'n';
			gt_need(!ioctl(shared.pinners[t].fds[i], COWPIN_IOC_UNPIN), "unpinning");
		}
	return lost;
}

static void start_pinners(void)
{
	__atomic_store_n(&shared.over, false, __ATOMIC_RELEASE);
	for (int t = 0; t < THREADS; t++)
		gt_need(!pthread_create(&shared.pinners[t].thread, NULL, pin_on, &shared.pinners[t]), "a thread");
}

static void join_pinners(void)
{
	__atomic_store_n(&shared.over, true, __ATOMIC_RELEASE);
	for (int t = 0; t < THREADS; t++)
		gt_need(!pthread_join(shared.pinners[t].thread, NULL), "pthread_join");
}

/* Whether there were pins on both sides of the child's exit. */
static bool race_with_exit(void)
{
	int early, count;

	shared.page = page_map(1, 'o');
	shared.child = cowpin_sharer(shared.go);
	start_pinners();
	usleep(200);
	cowpin_end_sharer(shared.child, shared.go);
	join_pinners();
	early = shared.pinners[0].early + shared.pinners[1].early;
	count = shared.pinners[0].count + shared.pinners[1].count;
	return early && early < count;
}

static bool move_to_node(char *page, int node)
{
	void *pages[] = { page };
	int status = -1;

	if (!syscall(SYS_move_pages, 0, 1UL, pages, &node, &status, 1 << 2 /* MPOL_MF_MOVE_ALL */))
		return status == node;
	if (errno == ENOSYS)
		gt_skip("the kernel has no move_pages()");
	return false;
}

/* The child stays until all is judged: every pin must be of a page of the parent's own. */
static bool race_with_migration(size_t length)
{
	int moves = 0;

	shared.page = hugetlb_map(length, 'o');
	shared.child = cowpin_sharer(shared.go);
	start_pinners();
	for (int i = 0; i < 20; i++)
		moves += move_to_node(shared.page, i % 2);
	join_pinners();
	return moves > 0 && shared.pinners[0].count + shared.pinners[1].count > 0;
}

static void run(void)
{
	bool migrates = !strcmp(gt_param("how"), "hugetlb-migration");
	unsigned long rounds = 0, wide = 0, hits = 0, lost;
	size_t length = page_size();
	time_t end;

	module_need("cowpin");
	if (migrates) {
		if (access("/sys/devices/system/node/node1", F_OK))
			gt_skip("the guest has no second NUMA node");
		length = hugetlb_usual_size();
		hugetlb_make_pool(length, 8);
	}
	for (int t = 0; t < THREADS; t++)
		for (int i = 0; i < PINS; i++)
			shared.pinners[t].fds[i] = module_open("cowpin");
	end = time(NULL) + SECONDS;
	for (; time(NULL) <= end; rounds++) {
		wide += migrates ? race_with_migration(length) : race_with_exit();
		lost = judge_pins();
		if (migrates)
			cowpin_end_sharer(shared.child, shared.go);
		hits += lost > 0;
		munmap(shared.page, length);
	}
	gt_need(wide > 10, "enough iterations: of %lu rounds, %lu had a real race", rounds, wide);
	gt_rate(hits, wide);
	gt_check(!hits, "no pin loses coherency in %lu rounds, %lu of them with a real race, but %lu did",
		 rounds, wide, hits);
	gt_pass("%lu rounds, %lu of them with a real race, and no pin lost coherency", rounds, wide);
}

GUEST_TEST = {
	.summary       = "R/O pins that race with the end of page sharing stay coherent with the owner",
	.contract      = "C-SYNC",
	.mechanism     = "one pin finds the page shared and replaces it, another pins the old page",
	.fixes         = "a7f226604170",
	.changelog     = "9 24",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "how: child-exit hugetlb-migration",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
