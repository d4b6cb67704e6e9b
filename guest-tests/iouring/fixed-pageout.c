// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim either skips the page of a fixed buffer, because it is pinned, or unmaps it, and the next
 * fault maps the same page again. The ring and the mapping must not end up with different pages.
 * how=race registers the buffer after reclaim checked for pins and before it unmaps the page.
 */
#include "cowhold.h"
#include "guesttest.h"
#include "pagestate.h"
#include "swap.h"
#include "uring.h"
#include <pthread.h>

static struct {
	char *page;
	pid_t tid;
	int go[2], done[2];
} reclaim;

static void *reclaim_page(void *arg)
{
	char byte;

	(void)arg;
	__atomic_store_n(&reclaim.tid, cowhold_move_away(), __ATOMIC_RELEASE);
	gt_need(read(reclaim.go[0], &byte, 1) == 0, "waiting");
	gt_need(!madvise(reclaim.page, page_size(), MADV_PAGEOUT), "MADV_PAGEOUT");
	close(reclaim.done[1]);
	return NULL;
}

/* Within shrink_page_list, swap space is allocated after the look for a pin. */
static const char *const allocating[] = { "add_to_swap", "folio_alloc_swap", NULL };

/* False where a busy host let reclaim go before the buffer was registered: then nothing was raced with. */
static bool register_during_reclaim(struct uring *ring, char *buffer)
{
	int hold = cowhold_open();
	const char *where;
	pthread_t thread;
	bool in_time;

	reclaim.page = buffer;
	reclaim.tid = 0;
	gt_need(!pipe(reclaim.go) && !pipe(reclaim.done) &&
		!pthread_create(&thread, NULL, reclaim_page, NULL), "a thread");
	while (!__atomic_load_n(&reclaim.tid, __ATOMIC_ACQUIRE))
		sched_yield();
	where = cowhold_arm_first(hold, reclaim.tid, COWHOLD_MOST_MS, allocating, "reclaim");
	close(reclaim.go[1]);
	if (cowhold_wait(hold, reclaim.done[0])) {
		uring_register_buffer(ring, buffer, page_size());
		in_time = !ioctl(hold, COWHOLD_IOC_RELEASE);
		if (!in_time)
			uring_unregister_buffer(ring);
	} else {
		in_time = false;
		gt_need(ioctl(hold, COWHOLD_IOC_LOOK) && errno == ETIME, "reclaim reaches %s", where);
	}
	gt_need(!pthread_join(thread, NULL), "pthread_join");
	close(reclaim.go[0]);
	close(reclaim.done[0]);
	close(hold);
	return in_time;
}

/* Each time with a page that has not been in swap: one in the swap cache needs no space. */
static char *race(struct uring *ring)
{
	char *buffer;
	int attempts = 0;

	do {
		gt_need(++attempts <= 200, "the race was hit in 200 attempts (busy host?)");
		buffer = page_map(1, 'o');
		page_settle(buffer);
	} while (!register_during_reclaim(ring, buffer));
	gt_note("the page %s, in attempt %d", page_entry(buffer) & PAGE_SWAPPED ? "was unmapped nevertheless" :
		"was skipped: reclaim checks again when it unmaps", attempts);
	return buffer;
}

static void reclaim_registered(char *buffer, char *control)
{
	/* A page without a pin goes out: reclaim has had its chance at ours each time. */
	for (int i = 0; i < 5; i++) {
		madvise(buffer, page_size(), MADV_PAGEOUT);
		swap_out(control);
		(void)*(volatile char *)control;
	}
	gt_note("the registered page %s", page_entry(buffer) & PAGE_SWAPPED ? "has a swap entry" : "stayed mapped");
}

static void run(void)
{
	char *buffer, *control;
	struct uring ring;

	swap_need();
	page_stay_on_cpu();
	uring_open(&ring);
	if (!strcmp(gt_param("how"), "race")) {
		buffer = race(&ring);
	} else {
		buffer = page_map(1, 'o');
		control = page_map(1, 'o');
		uring_register_buffer(&ring, buffer, page_size());
		page_settle(buffer);
		reclaim_registered(buffer, control);
	}
	uring_check_sends_new(&ring, buffer, page_size());
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer stays coherent after reclaim",
	.contract      = "C-SYNC",
	.mechanism     = "shrink_page_list() skips pinned pages, or do_wp_page() reuses a page from swap",
	.changelog     = "29c 40 41",
	.needs_kconfig = "IO_URING=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.params        = "how: static race",
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
