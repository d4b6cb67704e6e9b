// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A kernel that tells only some CPUs to forget an address must know them all: a thread that has gone
 * to another CPU may have left an entry behind, and found it again when it came back. A page that
 * mprotect made read-only must not change any more, wherever the writing thread has been.
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
		gt_skip("for arm64, where the hardware tells the other CPUs; this is %s", uts.machine);
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
	gt_check(!shared.stale, "a page that is read-only does not change, but in %lu of %lu looks it had",
		 shared.stale, shared.rounds * LOOKS);
	gt_need(shared.rounds > 50 && shared.stopped > 20 && shared.moves > 20,
		"enough of a race: %lu protections, %lu writes stopped, %lu changes of CPU", shared.rounds,
		shared.stopped, shared.moves);
	gt_pass("%lu protections held, %lu writes were stopped, over %lu changes of CPU", shared.rounds,
		shared.stopped, shared.moves);
}

GUEST_TEST = {
	.summary       = "a page that mprotect made read-only is so on every CPU that a thread has been on",
	.contract      = "C-LIVE",
	.mechanism     = "a flush that is kept from CPUs that are taken for strangers",
	.min_kernel    = "4.3",
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a write to a read-only page that goes through",
	.run           = run,
};
