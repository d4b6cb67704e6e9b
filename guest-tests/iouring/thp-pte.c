// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A part of a huge page, registered with a ring, after the mapping of the huge page has gone over
 * to single entries. The write fault then is one on a small page, but the references it may count
 * are those of the whole: it always finds more than one.
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
	gt_need(!mprotect(map + length / 2, page, PROT_READ), "mprotect of a part");
	page_need_thp_mapped_by_ptes(map);
	uring_open(&ring);
	uring_register_buffer(&ring, map, page);
	page_mprotect_cycle(map, page);
	uring_check_sends_new(&ring, map, page);
	gt_pass("the ring sends what the program wrote");
}

GUEST_TEST = {
	.summary       = "a registered part of a huge page mapped piecemeal is still the page that is written",
	.contract      = "C-SYNC",
	.mechanism     = "page_count in do_wp_page counts the references of the whole huge page and copies",
	.changelog     = "7 29c",
	.needs_kconfig = "IO_URING=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a ring that sends stale bytes",
	.run           = run,
};
