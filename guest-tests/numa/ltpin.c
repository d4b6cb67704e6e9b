// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NUMA balancing makes pages inaccessible to learn by the faults who uses them, and moves them to the
 * user's node. A pinned page cannot move, but the attempt leaves its entry write-protected, and the
 * next write fault must not replace the page. A thread goes from node to node and writes to the
 * pages that a ring has registered.
 */
#include "numa.h"
#include "uring.h"

enum { PAGES = 64, SECONDS = 20 };

static void run(void)
{
	size_t page = page_size(), length = PAGES * page;
	unsigned long rounds = 0, moves = 0;
	int was = -1, node;
	long faults = 0;
	char *pinned, *control;
	struct uring ring;
	time_t end;

	numa_need_balancing();
	pinned = page_map(PAGES, 'o');
	control = page_map(PAGES, 'o');
	uring_open(&ring);
	uring_register_buffer(&ring, pinned, length);
	for (end = time(NULL) + SECONDS; time(NULL) <= end; rounds++, was = node) {
		numa_go_to_node(rounds % 2);
		for (int i = 0; i < 200; i++) {
			long before = numa_faults();

			for (size_t at = 0; at < length; at += page)
				page_touch(control + at, rounds + i);
			faults += numa_faults() - before;
			for (size_t at = 0; at < length; at += page)
				page_touch(pinned + at, rounds + i);
			numa_work();
		}
		uring_check_sends(&ring, pinned, length);
		node = numa_node_of(control);
		moves += was >= 0 && node != was;
	}
	gt_need(faults > 2 * PAGES && moves > 0,
		"enough of a race: %ld hinting faults on %d pages without a pin, the first moved %lu times", faults, PAGES,
		moves);
	gt_pass("the ring sends what the program wrote; %ld hinting faults on as many pages without a pin, the first "
		"moved %lu times", faults, moves);
}

GUEST_TEST = {
	.summary       = "NUMA balancing does not part a registered buffer from the page that is written",
	.contract      = "C-SYNC",
	.mechanism     = "the attempt to migrate a pinned page leaves its entry write-protected, and the next write copies",
	.fixes         = "80d47f5de5e3",
	.changelog     = "1",
	.needs_kconfig = "IO_URING=y NUMA_BALANCING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "a ring that sends stale bytes",
	.run           = run,
};
