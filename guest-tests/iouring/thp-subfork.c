// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One subpage of a THP is excluded from fork(), so that only the parent maps it; all others are
 * shared with the child. A kernel that checks the highest mapcount of the THP copies the subpage
 * needlessly, and the ring keeps the old one.
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
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "a registered THP subpage that only the parent maps is not copied",
	.contract      = "C-SYNC",
	.mechanism     = "reuse is decided by the refcount or the highest mapcount of the whole THP",
	.changelog     = "7",
	.needs_kconfig = "IO_URING=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "order: pin-first fork-first",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
