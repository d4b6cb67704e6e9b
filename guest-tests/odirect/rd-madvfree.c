// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim may discard a lazyfree page (MADV_FREE) that was not written since. An O_DIRECT read
 * fills such a page, but DMA does not set the dirty bit in the PTE: a kernel that does not check
 * for pins discards the data that is being read, and the program sees zeroes.
 */
#include "guesttest.h"
#include "stalledio.h"
#include "swap.h"

static void run(void)
{
	size_t page = page_size();
	char *pair, *control;
	struct stalled_io io;

	page_stay_on_cpu();
	pair = page_map(2, 0xa5);
	control = pair + page;
	page_free_lazily(pair, 2);
	/* All of the page is read: what is in it before is of no account to anybody. */
	stalled_read_into(&io, pair, 0);
	gt_need(!page_is(pair, PAGE_SWAPBACKED), "the page is still lazyfree during the read");
	/* Both at once, until reclaim has dropped the one without a pin. */
	for (int i = 0; i < 200 && page_entry(control) & PAGE_PRESENT; i++)
		gt_need(!madvise(pair, 2 * page, MADV_PAGEOUT), "MADV_PAGEOUT");
	gt_need(!(page_entry(control) & PAGE_PRESENT) && !*control, "a lazyfree page without a pin is discarded");
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("reclaim discarded the adjacent page and kept the page under DMA");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read survives reclaim of a lazyfree page",
	.contract      = "C-READ",
	.mechanism     = "try_to_unmap() discards a clean lazyfree page without checking for pins",
	.fixes         = "6c8e2a256915",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "zeroes after a successful O_DIRECT read",
	.run           = run,
};
