// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A subpage of a PTE-mapped THP is registered with a ring. The write fault handles a single PTE,
 * but page_count() is that of the whole THP, which is always greater than one.
 */
#include "guesttest.h"
#include "thp.h"
#include "uring.h"

static void run(void)
{
	size_t page = page_size(), length;
	char *map = page_map_thp(&length, 'o');
	struct uring ring;

	/* Another protection for one page in the middle: entries for all of them. */
	gt_need(!mprotect(map + length / 2, page, PROT_READ), "mprotect of one subpage");
	page_need_thp_mapped_by_ptes(map);
	uring_open(&ring);
	uring_register_buffer(&ring, map, page);
	page_mprotect_cycle(map, page);
	uring_check_sends_new(&ring, map, page);
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer in a PTE-mapped THP stays coherent",
	.contract      = "C-SYNC",
	.mechanism     = "do_wp_page() copies a subpage because page_count() includes all references to the THP",
	.changelog     = "7 29c",
	.needs_kconfig = "IO_URING=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
