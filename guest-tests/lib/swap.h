/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages that are swapped out. The guest provides the swap: tests skip without it. */
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

/* Requests reclaim of the page until it is unmapped or a limit is reached. Returns whether it is unmapped. */
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
 * Swaps the page out, verified by pagemap, and waits until it is written: a page under stable writeback
 * is copied on write even if it is not shared, and the device determines how long that lasts. Only
 * before fork(): pages that are mapped twice are skipped. Reclaim may give up on a page under
 * writeback, so it is tried again.
 */
static inline void swap_out(void *page)
{
	uint64_t frame = page_frame(page);

	gt_need(swap_ask(page), "the page was not swapped out, pagemap entry 0x%llx",
		(unsigned long long)page_entry(page));
	for (int i = 0; i < 5000 && swap_writes(frame); i++)
		usleep(1000);
	gt_need(!swap_writes(frame), "the swapped out page is not written yet");
}

/*
 * Requests reclaim of a page that may be pinned, and of one that is not: the second one proves that
 * reclaim works if it skips the first.
 */
static inline bool swap_out_unless_pinned(void *page)
{
	bool is_out = swap_ask(page);

	swap_out(page_map(1, 'c'));
	gt_note("reclaim %s", is_out ? "unmapped the pinned page" : "skips the pinned page, but not others");
	return is_out;
}
#endif
