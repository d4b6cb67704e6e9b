// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * userfaultfd write protection updates all PTEs of a range before it flushes the TLBs. If the
 * protection of one page is removed meanwhile, one CPU may write to it by a stale TLB entry while a
 * fault of another CPU copies it: writes between the copy and the flush are lost. Two writers each
 * increment a counter in the same page and check that it never goes backwards.
 */
#include "guesttest.h"
#include "rate.h"
#include "uffd.h"
#include <sys/uio.h>
#include <time.h>

enum { WRITERS = 2, PAGES = 1024, SECONDS = 5 };

static struct {
	char *range;
	unsigned long protects, lifts, splices, steps[WRITERS], lost, copies;
	int fd;
	bool over, writers_over;
} shared;

static bool is_set(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_RELAXED);
}

static void *count_on(void *arg)
{
	unsigned long *steps = arg;
	volatile unsigned long *mine = (volatile unsigned long *)shared.range + (steps - shared.steps) * 8;

	while (!is_set(&shared.writers_over)) {
		if (*mine != *steps)
			__atomic_add_fetch(&shared.lost, 1, __ATOMIC_RELAXED);
		*mine = ++*steps;
	}
	return NULL;
}

static void *protect_all(void *arg)
{
	(void)arg;
	for (; !is_set(&shared.writers_over); shared.protects++)
		uffd_write_protect(shared.fd, shared.range, PAGES * page_size(), true);
	return NULL;
}

/* Until the writers are gone: they wait for it. */
static void *lift_first(void *arg)
{
	(void)arg;
	for (; !is_set(&shared.over); shared.lifts++)
		uffd_write_protect(shared.fd, shared.range, page_size(), false);
	return NULL;
}

/* A page that a pipe has too is copied by the next write fault, not kept. */
static void *take_references(void *arg)
{
	char drain[8];
	int spliced[2];

	(void)arg;
	gt_need(!pipe(spliced), "pipe");
	for (; !is_set(&shared.writers_over); shared.splices++) {
		struct iovec slice = { shared.range, sizeof(drain) };

		gt_need(vmsplice(spliced[1], &slice, 1, 0) == sizeof(drain), "vmsplice");
		sched_yield();
		gt_need(read(spliced[0], drain, sizeof(drain)) == sizeof(drain), "reading the pipe");
	}
	return NULL;
}

/* On a busy host it takes longer; the test's time limit ends it. */
static bool is_enough(void)
{
	return shared.protects > 20 && shared.lifts > 100 && shared.steps[0] > 1000 && shared.steps[1] > 1000;
}

static void run(void)
{
	pthread_t threads[WRITERS + 3];
	const time_t end = time(NULL) + SECONDS;
	uint64_t frame, before;

	shared.range = page_map(PAGES, 0);
	shared.fd = uffd_open();
	uffd_register(shared.fd, shared.range, PAGES * page_size(), UFFDIO_REGISTER_MODE_WP);
	before = page_frame(shared.range);
	for (int i = 0; i < WRITERS; i++)
		gt_need(!pthread_create(&threads[i], NULL, count_on, &shared.steps[i]), "a thread");
	gt_need(!pthread_create(&threads[WRITERS], NULL, protect_all, NULL) &&
		!pthread_create(&threads[WRITERS + 1], NULL, take_references, NULL) &&
		!pthread_create(&threads[WRITERS + 2], NULL, lift_first, NULL), "threads");
	for (; time(NULL) <= end || !is_enough(); before = frame) {
		frame = page_frame(shared.range);
		shared.copies += frame != before;
		usleep(100);
	}
	__atomic_store_n(&shared.writers_over, true, __ATOMIC_RELAXED);
	for (int i = 0; i < WRITERS + 2; i++)
		gt_need(!pthread_join(threads[i], NULL), "pthread_join");
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(threads[WRITERS + 2], NULL), "pthread_join");
	gt_note("%lu protections, %lu removals, %lu references, at least %lu copies", shared.protects, shared.lifts,
		shared.splices, shared.copies);
	gt_rate(shared.lost, shared.steps[0] + shared.steps[1]);
	gt_check(!shared.lost, "no write is lost, but %lu of %lu were", shared.lost,
		 shared.steps[0] + shared.steps[1]);
	gt_pass("%lu writes, none lost, against %lu protections and at least %lu copies",
		shared.steps[0] + shared.steps[1], shared.protects, shared.copies);
}

GUEST_TEST = {
	.summary       = "no write is lost while userfaultfd write-protects pages and removes the protection",
	.contract      = "no lost store",
	.mechanism     = "a write fault copies a page that another CPU still writes to by a stale TLB entry",
	.fixes         = "6ce64428d620",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.7",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a counter goes backwards",
	.run           = run,
};
