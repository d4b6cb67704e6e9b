/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages that are really swapped out. Swap itself is the machine's business: a case without it skips. */
#ifndef SWAP_H
#define SWAP_H
#include "guesttest.h"
#include "pagestate.h"

#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

static inline void swap_need(void)
{
	char text[2048], *second;

	page_read_file("/proc/swaps", text, sizeof(text));
	second = strchr(text, '\n');
	if (!second || !second[1])
		gt_skip("no swap is active (/proc/swaps lists none)");
}

static inline bool swap_writes(uint64_t frame)
{
	return page_word("/proc/kpageflags", frame) >> PAGE_WRITEBACK & 1;
}

/* Reclaim is asked for the page until it has unmapped it, or for long enough. Whether it has. */
static inline bool swap_ask(void *page)
{
	page_settle(page);
	for (int i = 0; i < 200 && !(page_entry(page) & PAGE_SWAPPED); i++) {
		if (madvise(page, page_size(), MADV_PAGEOUT) && errno == EINVAL)
			gt_skip("the kernel has no MADV_PAGEOUT");
		page_drain_vectors();
	}
	return page_entry(page) & PAGE_SWAPPED;
}

/*
 * Out to swap, proven by the pagemap, and written: a page under writeback to a device that needs it
 * stable is copied on write whoever else has it, and how long that lasts is the device's business.
 * Only before fork: pages that are mapped twice are passed over. A page under writeback may be given
 * up on, so it is tried again.
 */
static inline void swap_out(void *page)
{
	uint64_t frame = page_frame(page);

	gt_need(swap_ask(page), "the page was not swapped out, pagemap entry 0x%llx",
		(unsigned long long)page_entry(page));
	for (int i = 0; i < 5000 && swap_writes(frame); i++)
		usleep(1000);
	gt_need(!swap_writes(frame), "the page that was swapped out is not written yet");
}

/*
 * Reclaim is asked for a page that may be pinned, and for one that is not: the second proves that it
 * does its work when it passes over the first.
 */
static inline bool swap_out_unless_pinned(void *page)
{
	bool is_out = swap_ask(page);

	swap_out(page_map(1, 'c'));
	gt_note("reclaim %s", is_out ? "has unmapped the pinned page" : "passes over the pinned page, not over others");
	return is_out;
}
#endif
