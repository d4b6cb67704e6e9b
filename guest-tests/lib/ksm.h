/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Merging by ksmd, with proof that pages were merged and that scans have ended. */
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

/*
 * Settings that make ksmd scan without a pause and skip no page. Since 6.7 ksmd skips pages that were
 * not merged in some scans, and an advisor may set the pace; older kernels have neither setting.
 */
static const char *const ksm_setting[][2] = {
	{ KSM_DIR "advisor_mode", "none" },	/* first: a change of it sets the pace anew */
	{ KSM_DIR "smart_scan", "0" },
	{ KSM_DIR "sleep_millisecs", "1" },
	{ KSM_DIR "pages_to_scan", "1000" },
	{ KSM_DIR "run", "1" },
};
enum { KSM_SETTINGS = sizeof(ksm_setting) / sizeof(*ksm_setting) };
static char ksm_before[KSM_SETTINGS][64];

static inline void ksm_stop(void)
{
	page_write_file(KSM_DIR "run", "0");
}

/* The value in brackets, if a file lists all valid values; otherwise its whole content. */
static inline void ksm_read_setting(const char *file, char *text, size_t room)
{
	char *open, *close;

	page_read_file(file, text, room);
	open = strchr(text, '[');
	close = open ? strchr(open, ']') : NULL;
	if (close) {
		*close = 0;
		memmove(text, open + 1, close - open);
	}
}

static inline void ksm_give_back(void)
{
	for (int i = 0; i < KSM_SETTINGS; i++)
		if (ksm_before[i][0])
			page_write_file(ksm_setting[i][0], ksm_before[i]);
}

/* ksmd scans without a pause until it is stopped or the test ends. */
static inline void ksm_start(void)
{
	if (access(KSM_DIR "run", F_OK))
		gt_skip("the kernel has no KSM");
	for (int i = 0; i < KSM_SETTINGS; i++)
		ksm_read_setting(ksm_setting[i][0], ksm_before[i], sizeof(ksm_before[i]));
	gt_at_end(ksm_give_back);
	for (int i = 0; i < KSM_SETTINGS; i++)
		gt_need(!ksm_before[i][0] || page_write_file(ksm_setting[i][0], ksm_setting[i][1]),
			"setting %s", ksm_setting[i][0]);
}

static inline void ksm_wait_scans(unsigned long scans)
{
	for (unsigned long end = ksm_number(KSM_DIR "full_scans") + scans;
	     ksm_number(KSM_DIR "full_scans") < end; usleep(1000))
		;			/* a ksmd that does not scan ends in the test's timeout */
}

/*
 * Whether two private pages of a process are on one page frame. Only ksmd does that, except for the
 * zero page, which is excluded by the contents. /proc/kpageflags proves nothing: 6.12 shows every
 * anonymous page as KSM.
 */
static inline bool ksm_is_merged(const char *page, const char *other)
{
	return page_frame(page) == page_frame(other);
}

static inline void ksm_offer(char *start, size_t pages)
{
	gt_need(!madvise(start, pages * page_size(), MADV_MERGEABLE), "MADV_MERGEABLE");
}

/* Maps two equal adjacent pages and merges them. */
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
