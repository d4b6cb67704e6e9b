/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Pages that ksmd has really merged, and scans of it that have really ended. */
#ifndef KSM_H
#define KSM_H
#include "guesttest.h"
#include "pagestate.h"

#define KSM_DIR "/sys/kernel/mm/ksm/"

static inline unsigned long ksm_number(const char *file)
{
	char text[32];

	page_read_file(file, text, sizeof(text));
	return strtoul(text, NULL, 10);
}

static inline void ksm_stop(void)
{
	page_write_file(KSM_DIR "run", "0");
}

/* ksmd scans without a pause until the test ends. */
static inline void ksm_start(void)
{
	if (access(KSM_DIR "run", F_OK))
		gt_skip("the kernel has no KSM");
	gt.at_end = ksm_stop;
	gt_need(page_write_file(KSM_DIR "sleep_millisecs", "1") &&
		page_write_file(KSM_DIR "pages_to_scan", "1000") &&
		page_write_file(KSM_DIR "run", "1"), "starting ksmd");
}

static inline void ksm_wait_scans(unsigned long scans)
{
	for (unsigned long end = ksm_number(KSM_DIR "full_scans") + scans;
	     ksm_number(KSM_DIR "full_scans") < end; usleep(1000))
		;			/* a ksmd that does not scan is met by the time limit */
}

static inline bool ksm_is_merged(const char *page, const char *other)
{
	return page_frame(page) == page_frame(other) && page_is(page, PAGE_IN_KSM);
}

static inline void ksm_offer(char *start, size_t pages)
{
	gt_need(!madvise(start, pages * page_size(), MADV_MERGEABLE), "MADV_MERGEABLE");
}

/* A page twice, merged into one. The other half of the pair follows it in memory. */
static inline char *ksm_map_pair(int fill)
{
	char *pair = page_map(2, fill);

	ksm_offer(pair, 2);
	for (int scans = 0; scans < 50 && !ksm_is_merged(pair, pair + page_size()); scans++)
		ksm_wait_scans(1);
	gt_need(ksm_is_merged(pair, pair + page_size()), "ksmd did not merge two equal pages");
	return pair;
}
#endif
