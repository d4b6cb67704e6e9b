// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A tracker clears the soft-dirty bits to learn which pages are written afterwards. A kernel that
 * skips pinned pages to keep them coherent reports them as written forever.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "uring.h"

static void run(void)
{
	char *buffer = page_map(1, 'o');
	struct uring ring;

	uring_open(&ring);
	uring_register_buffer(&ring, buffer, page_size());
	gt_check(page_entry(buffer) & PAGE_SOFT_DIRTY, "a page just written is soft-dirty");
	page_clear_soft_dirty();
	gt_check(!(page_entry(buffer) & PAGE_SOFT_DIRTY),
		 "a registered page not written since clear_refs is not soft-dirty");
	page_touch(buffer, 'n');
	gt_check(page_entry(buffer) & PAGE_SOFT_DIRTY, "a registered page is soft-dirty after a write");
	gt_pass("the soft-dirty bit of a registered page cleared, and came back with a write");
}

GUEST_TEST = {
	.summary       = "the soft-dirty bit of an io_uring fixed buffer can be cleared and is set by a write",
	.contract      = "soft-dirty reports what was written, and nothing else",
	.mechanism     = "clear_soft_dirty() skips pinned pages",
	.changelog     = "40",
	.needs_kconfig = "IO_URING=y MEM_SOFT_DIRTY=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.needs_root    = false,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page is reported as written although it was not",
	.run           = run,
};
