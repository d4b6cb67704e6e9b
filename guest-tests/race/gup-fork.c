// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() decides that a page is not pinned, and so shares it; then it makes the page's entry read-only. A pin that
 * GUP-fast takes in between is found by neither, and must not be given: the next write of the parent would get a
 * copy, and the device keep the page of before. Module cowhold stops fork() there, which for a huge page is a
 * function. pin=started: GUP-fast begins then. pin=begun: it began before, and is held until then.
 */
#include "cowhold.h"
#include "cowpin.h"
#include "partner.h"
#include "thp.h"
#include <pthread.h>

enum { PIN_MS = 250, FORK_MS = 800, MOST_ROUNDS = 4 };

static struct {
	char *page;
	int pin, fork_hold, go[2], done[2];
	pid_t tid;
	bool is_begun;
} pinner;

/* Where GUP-fast gives up, this waits for the end of fork(). */
static void *take_pin(void *arg)
{
	char byte;

	(void)arg;
	__atomic_store_n(&pinner.tid, cowhold_move_away(), __ATOMIC_RELEASE);
	gt_need(read(pinner.go[0], &byte, 1) == 0, "waiting");
	while (!pinner.is_begun && ioctl(pinner.fork_hold, COWHOLD_IOC_LOOK) && errno == EAGAIN)
		;
	gt_need(!cowpin_try(pinner.pin, pinner.page, 1, COWPIN_WRITE | COWPIN_LONGTERM | COWPIN_FAST), "a pin");
	close(pinner.done[1]);
	return NULL;
}

/* The reference is taken there. */
static const char *const pinning[] = { "try_grab_compound_head", "try_grab_folio_fast", "try_grab_folio", NULL };

static void arm_fork(int hold)
{
	struct cowhold_arm ask = {
		.symbol = "pgtable_trans_huge_deposit", .tid = syscall(SYS_gettid), .limit_ms = FORK_MS
	};

	if (ioctl(hold, COWHOLD_IOC_ARM, &ask))
		gt_skip("fork() cannot be held: %s", strerror(errno));
}

/* With two CPUs, nobody is left to let go: each goes on at its limit, GUP-fast first. Returns whether they met. */
static bool fork_and_pin(void)
{
	int hold = cowhold_open();
	struct partner child;
	pthread_t thread;
	size_t length;
	bool met = true;

	pinner.page = page_map_thp(&length, 'o');
	pinner.pin = module_open("cowpin");
	pinner.fork_hold = cowhold_open();
	pinner.tid = 0;
	gt_need(!pipe2(pinner.go, O_CLOEXEC) && !pipe2(pinner.done, O_CLOEXEC) &&
		!pthread_create(&thread, NULL, take_pin, NULL), "a thread");
	while (!__atomic_load_n(&pinner.tid, __ATOMIC_ACQUIRE))
		sched_yield();
	if (pinner.is_begun)
		cowhold_arm_first(hold, pinner.tid, PIN_MS, pinning, "GUP-fast");
	arm_fork(pinner.fork_hold);
	close(pinner.go[1]);
	if (pinner.is_begun)
		met = cowhold_wait(hold, pinner.done[0]);
	if (partner_fork(&child)) {
		partner_wait(&child);
		gt_check(*pinner.page == 'o', "the child keeps the data of the time of fork, not '%c',", *pinner.page);
		partner_end(&child);
	}
	gt_need(!pthread_join(thread, NULL), "pthread_join");
	met = ioctl(pinner.fork_hold, COWHOLD_IOC_RELEASE) && errno == ETIME && met;
	cowpin_check_new(pinner.pin, pinner.page, page_size());
	partner_wake(&child);
	partner_end(&child);
	close(pinner.go[0]);
	close(pinner.done[0]);
	close(pinner.pin);
	close(pinner.fork_hold);
	close(hold);
	munmap(pinner.page, length);
	return met;
}

static void run(void)
{
	int rounds = 1;

	pinner.is_begun = !strcmp(gt_param("pin"), "begun");
	page_stay_on_cpu();
	while (!fork_and_pin())
		gt_need(++rounds <= MOST_ROUNDS, "fork() and a pin at the same time (busy host?)");
	gt_pass("the pin is coherent, in round %d", rounds);
}

GUEST_TEST = {
	.summary       = "a pin that is taken during fork() stays coherent",
	.contract      = "C-SYNC",
	.mechanism     = "GUP-fast pins a page that fork() found to be not pinned, and shares",
	.fixes         = "57efa1fe5957",
	.changelog     = "4 5",
	.needs_kconfig = "MODULES=y KPROBES=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.9",
	.params        = "pin: started begun",
	.needs_root    = true,
	.cpus          = 2,
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
