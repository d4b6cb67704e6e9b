/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small pages become a huge page: by MADV_COLLAPSE, or by khugepaged on kernels that lack it. */
#ifndef COLLAPSE_H
#define COLLAPSE_H
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define COLLAPSE_DIR PAGE_THP_DIR "khugepaged/"

/* Lets khugepaged work until the memory is as is_done() wants it, or it has looked at all thrice. */
static inline bool collapse_wait(bool (*is_done)(const char *start), const char *start, int limit_ms)
{
	static const char *const knobs[] = { "scan_sleep_millisecs", "alloc_sleep_millisecs", "pages_to_scan" };
	static const char *const values[] = { "0", "0", "100000" };
	char before[3][32], path[128], text[64];
	unsigned long scans;

	page_read_file(COLLAPSE_DIR "full_scans", text, sizeof(text));
	scans = strtoul(text, NULL, 10);
	for (int i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), COLLAPSE_DIR "%s", knobs[i]);
		page_read_file(path, before[i], sizeof(before[i]));
		gt_need(page_write_file(path, values[i]), "%s", path);
	}
	for (int i = 0; i < limit_ms && !is_done(start); i++) {
		page_read_file(COLLAPSE_DIR "full_scans", text, sizeof(text));
		if (strtoul(text, NULL, 10) >= scans + 3)
			break;
		usleep(1000);
	}
	for (int i = 3; i--; ) {
		snprintf(path, sizeof(path), COLLAPSE_DIR "%s", knobs[i]);
		page_write_file(path, before[i]);
	}
	return is_done(start);
}

static inline bool collapse_is_file_huge(const char *start)
{
	return page_smaps_kib(start, "FilePmdMapped");
}

static inline bool collapse_is_huge(const char *start)
{
	return page_huge_kib(start);
}

/* Waits until khugepaged has made a huge page. */
static inline bool collapse_by_khugepaged(bool (*is_done)(const char *start), const char *start, int limit_ms)
{
	page_allow_thp(page_thp_size());
	return collapse_wait(is_done, start, limit_ms);
}

/*
 * Makes one huge page of it, or tries to: a page that is write-protected by userfaultfd may be in the way.
 * Returns whether it did. The page that is written is for khugepaged, which needs a writable one.
 */
static inline bool collapse_try(char *start, size_t length, char *writable, int limit_ms)
{
	volatile char *byte = writable;

	page_drain_vectors();
	gt_need(!madvise(start, length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	if (!madvise(start, length, MADV_COLLAPSE) || errno != EINVAL)
		return page_huge_kib(start);
	*byte = *byte;
	return collapse_by_khugepaged(collapse_is_huge, start, limit_ms);
}
#endif
