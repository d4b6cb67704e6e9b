// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel that sends a TLB flush to a subset of the CPUs must track that subset correctly: a
 * thread that migrated to another CPU may have left a TLB entry behind, and use it again when it
 * migrates back. After mprotect() to read-only the page must not change any more, whatever CPUs the
 * writing thread has run on.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "rate.h"
#include <pthread.h>
#include <setjmp.h>
#include <time.h>

enum { SECONDS = 5, LOOKS = 200 };

static struct {
	volatile unsigned long *counter;
	unsigned long rounds, stopped, moves, stale;
	bool over;
} shared;
static __thread sigjmp_buf back;

static bool is_over(void)
{
	return __atomic_load_n(&shared.over, __ATOMIC_RELAXED);
}

static void on_fault(int signal)
{
	(void)signal;
	siglongjmp(back, 1);
}

/* From CPU to CPU, writing on each; a write that is stopped is tried again on the next. */
static void *write_on(void *arg)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t one;

	(void)arg;
	if (sigsetjmp(back, 1))
		shared.stopped++;
	for (; !is_over(); shared.moves++) {
		CPU_ZERO(&one);
		CPU_SET(shared.moves % cpus, &one);
		sched_setaffinity(0, sizeof(one), &one);
		for (int i = 0; i < 1000; i++)
			++*shared.counter;
	}
	return NULL;
}

static void run(void)
{
	const time_t end = time(NULL) + SECONDS;
	size_t page = page_size();
	unsigned long seen;
	struct utsname uts;
	pthread_t writer;

	uname(&uts);
	if (strcmp(uts.machine, "aarch64"))
		gt_skip("only for arm64, where TLB flushes are broadcast in hardware; this is %s", uts.machine);
	signal(SIGSEGV, on_fault);
	shared.counter = (void *)page_map(1, 0);
	gt_need(!pthread_create(&writer, NULL, write_on, NULL), "a thread");
	for (; time(NULL) <= end; shared.rounds++) {
		gt_need(!mprotect((void *)shared.counter, page, PROT_READ), "mprotect to PROT_READ");
		seen = *shared.counter;
		for (int i = 0; i < LOOKS; i++)
			shared.stale += *shared.counter != seen;
		gt_need(!mprotect((void *)shared.counter, page, PROT_READ | PROT_WRITE), "mprotect back");
		usleep(100);
	}
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(writer, NULL), "pthread_join");
	gt_rate(shared.stale, shared.rounds * LOOKS);
	gt_check(!shared.stale, "a read-only page does not change, but it did in %lu of %lu checks",
		 shared.stale, shared.rounds * LOOKS);
	gt_need(shared.rounds > 50 && shared.stopped > 20 && shared.moves > 20,
		"enough iterations: %lu protections, %lu faulting writes, %lu CPU migrations", shared.rounds,
		shared.stopped, shared.moves);
	gt_pass("%lu protections took effect, %lu writes faulted, %lu CPU migrations", shared.rounds,
		shared.stopped, shared.moves);
}

GUEST_TEST = {
	.summary       = "mprotect() to read-only takes effect on every CPU that the thread has run on",
	.contract      = "C-LIVE",
	.mechanism     = "a TLB flush that is not broadcast misses a CPU that still has a stale entry",
	.min_kernel    = "4.3",
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a write to a read-only page succeeds",
	.run           = run,
};
