// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NUMA balancing should sample the pages of a process even while they have extra references. A
 * kernel that mistakes a reference for another user skips them. The test counts the hinting faults
 * of a thread that alternates between nodes.
 */
#include "numa.h"
#include <sys/uio.h>

enum { PAGES = 128, SECONDS = 15 };

/* What reading the pages costs in faults: they are all there, so each is a hint. */
static long count_faults(const volatile char *pages)
{
	long before = numa_faults();

	for (int i = 0; i < PAGES; i++)
		(void)pages[i * page_size()];
	return numa_faults() - before;
}

static void hold(char *pages)
{
	struct iovec all = { pages, PAGES * page_size() };
	int held[2];

	gt_need(!pipe(held) && fcntl(held[1], F_SETPIPE_SZ, PAGES * page_size()) > 0, "a pipe of %d pages", PAGES);
	gt_check(vmsplice(held[1], &all, 1, 0) == (ssize_t)all.iov_len, "a pipe of %d pages takes %d pages", PAGES, PAGES);
}

static void run(void)
{
	long of_held = 0, of_control = 0;
	char *held, *control;
	time_t end;

	numa_need_balancing();
	held = page_map(PAGES, 'o');
	control = page_map(PAGES, 'o');
	hold(held);
	end = time(NULL) + SECONDS;
	for (int round = 0; time(NULL) <= end; round++) {
		numa_go_to_node(round % 2);
		for (int i = 0; i < 100; i++) {
			of_held += count_faults(held);
			of_control += count_faults(control);
			numa_work();
		}
	}
	gt_need(of_control > PAGES, "enough hinting faults: %ld without an extra reference, %ld with one",
		of_control, of_held);
	gt_check(of_held > of_control / 10,
		 "pages with an extra reference have hinting faults as others, but had %ld, others %ld", of_held,
		 of_control);
	gt_pass("%ld hinting faults on pages with an extra reference, %ld on others", of_held, of_control);
}

GUEST_TEST = {
	.summary       = "NUMA balancing samples pages with extra references",
	.contract      = "C-COST",
	.mechanism     = "change_pte_range() skips private pages by page_count()",
	.changelog     = "1",
	.needs_kconfig = "NUMA_BALANCING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.13",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "NUMA balancing never samples pages that are in use",
	.run           = run,
};
