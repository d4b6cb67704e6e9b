// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A THP of which one half got other rights lies in two mapped areas. Migration and reclaim have to find both, or the
 * huge page stays where it is for ever. A THP in one area shows that they work here.
 */
#include "guesttest.h"
#include "numa.h"
#include "pattern.h"
#include "swap.h"
#include "thp.h"

enum { ASKS = 100 };

static size_t length;

/* To the other of two nodes. */
static bool migrate(void *map)
{
	int node = !numa_node_of(map), status = -1;

	for (int i = 0; i < 3 && status != node; i++)
		if (syscall(SYS_move_pages, 0, 1UL, &map, &node, &status, 2 /* MPOL_MF_MOVE */) < 0)
			gt_skip("pages cannot be moved to NUMA node %d: %s", node, strerror(errno));
	return status == node;
}

/* Whether the first page and the last one leave. */
static bool reclaim(void *map)
{
	char *last = (char *)map + length - page_size();

	swap_need();
	for (int i = 0; i < ASKS && !(page_entry(map) & page_entry(last) & PAGE_SWAPPED); i++) {
		if (madvise(map, length, MADV_PAGEOUT))
			gt_skip("the kernel has no MADV_PAGEOUT");
		page_drain_vectors();
	}
	return page_entry(map) & page_entry(last) & PAGE_SWAPPED;
}

static void run(void)
{
	bool (*act)(void *map) = strcmp(gt_param("by"), "reclaim") ? migrate : reclaim;
	char *map, *expected, *control;

	page_stay_on_cpu();
	map = page_map_thp(&length, 0);
	expected = pattern_fill(map, length, pattern_new_salt());
	control = page_map_thp(&length, 'c');
	page_settle(map);
	page_settle(control);
	gt_need(!mprotect(map + length / 2, length / 2, PROT_READ), "mprotect of one half");
	page_need_thp_mapped_by_ptes(map);
	if (!act(control))
		gt_skip("a huge page in one area does not leave either");
	munmap(control, length);
	gt_check(act(map), "a huge page in two areas leaves as one in a single area did");
	pattern_check(expected, map, length, "the huge page");
	gt_pass("the huge page left, and is unchanged");
}

GUEST_TEST = {
	.summary       = "a huge page in two mapped areas can be migrated and reclaimed",
	.contract      = "C-LIVE",
	.mechanism     = "the walk of its mappings ends early",
	.needs_kconfig = "MIGRATION=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "by: migrate reclaim",
	.needs_root    = true,
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "memory that is stuck",
	.run           = run,
};
