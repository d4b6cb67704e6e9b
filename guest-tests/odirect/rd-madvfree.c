// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page given back by MADV_FREE and not written since may be dropped by reclaim. A direct read
 * into it makes it live again, but the disk sets no dirty bit in the page table: reclaim that does
 * not ask for the pin throws away what is being read, and the program sees zeroes.
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
	gt_need(!page_is(pair, PAGE_SWAPBACKED), "the page is still lazily free under the read");
	/* Both at once, until reclaim has dropped the one without a pin. */
	for (int i = 0; i < 200 && page_entry(control) & PAGE_PRESENT; i++)
		gt_need(!madvise(pair, 2 * page, MADV_PAGEOUT), "MADV_PAGEOUT");
	gt_need(!(page_entry(control) & PAGE_PRESENT) && !*control, "a lazily free page without a pin is dropped");
	stalled_read_finish(&io);
	stalled_read_check(&io);
	gt_pass("reclaim dropped the page next to it and left the one under the read");
}

GUEST_TEST = {
	.summary       = "reclaim of lazily free memory does not drop a page that a direct read is filling",
	.contract      = "C-READ",
	.mechanism     = "try_to_unmap discards a clean lazily free page without a look at its pin",
	.fixes         = "6c8e2a256915",
	.changelog     = "29b",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "zeroes after a successful direct read",
	.run           = run,
};
