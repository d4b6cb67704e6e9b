// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NUMA balancing makes pages inaccessible to learn from the faults who uses them, and migrates them
 * to that node. A pinned page cannot migrate, but the attempt unmaps it for a moment. If another
 * thread scans the page tables just then, the entry comes back write-protected, and the next write
 * fault must not replace the page. One thread alternates between nodes, writes to registered pages,
 * and is held in the middle of a migration; the other scans.
 */
#include "cowhold.h"
#include "numa.h"
#include "rate.h"
#include "uring.h"
#include <pthread.h>

/* Below all else that is mapped: a look comes here first, before it waits for the CPU that is held. */
#define LOWEST ((void *)(1UL << 20))

enum { PAGES = 64, SECONDS = 30, TURN = 40 };

static struct {
	char *pinned, *control;
	unsigned long held;
	bool over;
} shared;

static void write_all(char *pages, int value)
{
	for (size_t i = 0; i < PAGES; i++)
		page_touch(pages + i * page_size(), value);
}

/* On the other node, where what it uses lies too. */
static void *look_on(void *arg)
{
	(void)arg;
	for (int turn = 1; !__atomic_load_n(&shared.over, __ATOMIC_RELAXED); turn++) {
		numa_go_to_node(1);
		for (int i = 0; i < 50; i++)
			numa_work();
	}
	return NULL;
}

/* By the name of the time; the page is unmapped when it is called. */
static bool arm_at_migration(int hold)
{
	static const char *const names[] = { "migrate_page_move_mapping", "folio_migrate_mapping" };
	struct cowhold_arm arm = { .tid = syscall(SYS_gettid), .limit_ms = 100 };

	for (size_t i = 0; i < 2; i++) {
		snprintf(arm.symbol, sizeof(arm.symbol), "%s", names[i]);
		if (!ioctl(hold, COWHOLD_IOC_ARM, &arm))
			return true;
	}
	return false;
}

/* Returns the hinting faults that pages without a pin took meanwhile. */
static long take_turn(int hold, int turn)
{
	long faults = 0, before;

	numa_go_to_node(turn % 2);
	for (int i = 0; i < TURN; i++) {
		before = numa_faults();
		write_all(shared.control, i);
		faults += numa_faults() - before;
		if (!arm_at_migration(hold))
			gt_skip("cannot probe the migration of a page: %s", strerror(errno));
		write_all(shared.pinned, i);
		/* late: it was held as long as may be */
		shared.held += ioctl(hold, COWHOLD_IOC_RELEASE) && errno == ETIME;
		numa_work();
	}
	return faults;
}

/* Pages that the ring does not send as they are, by a byte that only this thread writes. */
static int count_lost(struct uring *ring)
{
	int file = memfd_create("sent", MFD_CLOEXEC), lost = 0;
	size_t page = page_size();
	char *sent = page_map(PAGES, 0);

	for (size_t i = 0; i < PAGES; i++)
		shared.pinned[i * page + page / 2]++;
	gt_need(file >= 0 && uring_transfer_fixed(ring, IORING_OP_WRITE_FIXED, file, shared.pinned, PAGES * page) ==
		(int)(PAGES * page), "WRITE_FIXED");
	gt_need(pread(file, sent, PAGES * page, 0) == (ssize_t)(PAGES * page), "reading back the data sent");
	for (size_t i = 0; i < PAGES; i++)
		lost += sent[i * page + page / 2] != shared.pinned[i * page + page / 2];
	munmap(sent, PAGES * page);
	close(file);
	return lost;
}

static void run(void)
{
	unsigned long moves = 0, turns = 0;
	long faults = 0;
	int lost = 0, was = -1, node, hold;
	struct uring ring;
	pthread_t other;
	time_t end;

	hold = cowhold_open();
	numa_need_balancing();
	shared.pinned = mmap(LOWEST, PAGES * page_size(), PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(shared.pinned == LOWEST && !madvise(LOWEST, PAGES * page_size(), MADV_NOHUGEPAGE), "memory at %p",
		LOWEST);
	write_all(shared.pinned, 'o');
	shared.control = page_map(PAGES, 'o');
	uring_open(&ring);
	uring_register_buffer(&ring, shared.pinned, PAGES * page_size());
	gt_need(!pthread_create(&other, NULL, look_on, NULL), "a thread");
	for (end = time(NULL) + SECONDS; time(NULL) <= end && !lost; turns++, was = node) {
		faults += take_turn(hold, turns);
		lost = count_lost(&ring);
		node = numa_node_of(shared.control);
		moves += was >= 0 && node != was;
	}
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(other, NULL), "pthread_join");
	gt_rate(lost > 0, turns);
	gt_check(!lost, "the ring sends the data that the program wrote, %d of %d pages differ after %lu rounds, "
		 "%lu migrations were held", lost, PAGES, turns, shared.held);
	gt_need(faults > PAGES && moves > 0,
		"enough iterations: %ld hinting faults on %d pages without a pin, the first moved %lu times", faults,
		PAGES, moves);
	gt_pass("%lu rounds, %ld hinting faults on %d pages without a pin, of which the first moved %lu times, %lu "
		"migrations were held; the ring sends the data that the program wrote", turns, faults, PAGES,
		moves, shared.held);
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer stays coherent under NUMA balancing",
	.contract      = "C-SYNC",
	.mechanism     = "a scan clears the write bit of a migration entry, and the next write copies the page",
	.fixes         = "80d47f5de5e3",
	.changelog     = "1",
	.needs_kconfig = "IO_URING=y MODULES=y KPROBES=y NUMA_BALANCING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
