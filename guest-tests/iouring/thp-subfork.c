// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A huge page of which one part stays out of the fork: that part is the parent's alone, all others
 * are shared with the child. Who judges the part by the most shared one of the whole page copies
 * it for nothing, and parts it from the ring it is registered with.
 */
#include "guesttest.h"
#include "thp.h"
#include "uring.h"

static void run(void)
{
	bool pin_first = !strcmp(gt_param("order"), "pin-first");
	size_t page = page_size(), length;
	char *map = page_map_thp(&length, 'o');
	struct uring ring;

	/* The part gets a mapping of its own by this, and the huge page is mapped by single entries. */
	gt_need(!madvise(map, page, MADV_DONTFORK), "MADV_DONTFORK");
	page_need_thp_mapped_by_ptes(map);
	uring_open(&ring);
	if (pin_first)
		uring_register_buffer(&ring, map, page);
	if (!gt_fork())
		for (;;)
			pause();
	if (!pin_first)
		uring_register_buffer(&ring, map, page);
	gt_need(!madvise(map, page, MADV_DOFORK), "MADV_DOFORK");
	page_need_thp_mapped_by_ptes(map);
	page_mprotect_cycle(map, page);
	uring_check_sends_new(&ring, map, page);
	gt_pass("the ring sends what the program wrote");
}

GUEST_TEST = {
	.summary       = "a registered part of a huge page is judged by its own mappings, not those of the rest",
	.contract      = "C-SYNC",
	.mechanism     = "reuse is decided by the references or the highest map count of the whole huge page",
	.changelog     = "7",
	.needs_kconfig = "IO_URING=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "order: pin-first fork-first",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a ring that sends stale bytes",
	.run           = run,
};
