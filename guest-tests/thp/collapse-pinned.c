// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * khugepaged replaces small pages by a huge one with the same content. It leaves alone a range in which a page is
 * pinned: the device would go on with the old page. A second range without a pin shows that it has been at work.
 */
#include "cowpin.h"
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"

enum { LIMIT_MS = 15000 };

#define KHUGEPAGED PAGE_THP_DIR "khugepaged/"

static char before_sleep[32], before_pages[32];

static void restore(void)
{
	page_write_file(KHUGEPAGED "scan_sleep_millisecs", before_sleep);
	page_write_file(KHUGEPAGED "pages_to_scan", before_pages);
}

static void hurry(void)
{
	page_read_file(KHUGEPAGED "scan_sleep_millisecs", before_sleep, sizeof(before_sleep));
	page_read_file(KHUGEPAGED "pages_to_scan", before_pages, sizeof(before_pages));
	gt.at_end = restore;
	if (!page_write_file(KHUGEPAGED "scan_sleep_millisecs", "20") ||
	    !page_write_file(KHUGEPAGED "pages_to_scan", "65536"))
		gt_skip("khugepaged cannot be made to hurry: %s", strerror(errno));
}

static long full_scans(void)
{
	char text[32];

	page_read_file(KHUGEPAGED "full_scans", text, sizeof(text));
	return atol(text);
}

/* As large as a huge page, and aligned like one. */
static char *map_small_pages(size_t length, int fill)
{
	char *map = mmap(NULL, 3 * length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	gt_need(map != MAP_FAILED && !madvise(map, 3 * length, MADV_NOHUGEPAGE), "memory");
	map = (char *)(((uintptr_t)map + length) & -length);
	memset(map, fill, length);
	return map;
}

static void run(void)
{
	char *pinned, *control, *first, text[64];
	size_t length;
	long scans;
	int pin;

	/* A first one shows that there are huge pages. */
	first = page_map_thp(&length, 1);
	munmap(first, length);
	page_read_file(PAGE_THP_DIR "enabled", text, sizeof(text));
	if (strstr(text, "[never]"))
		gt_skip("transparent huge pages are off");
	page_stay_on_cpu();
	pinned = map_small_pages(length, 'o');
	control = map_small_pages(length, 'o');
	pin = cowpin_pin(pinned + length / 2, 1, COWPIN_WRITE | COWPIN_LONGTERM | COWPIN_FAST);
	hurry();
	page_drain_vectors();
	gt_need(!madvise(pinned, length, MADV_HUGEPAGE) && !madvise(control, length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	for (int i = 0; i < LIMIT_MS / 10 && !page_huge_kib(control); i++)
		usleep(10 * 1000);
	if (!page_huge_kib(control))
		gt_skip("khugepaged does not collapse pages here in %d s", LIMIT_MS / 1000);
	scans = full_scans();
	for (int i = 0; i < LIMIT_MS / 10 && full_scans() < scans + 2; i++)
		usleep(10 * 1000);
	gt_note("the range with the pin %s", page_huge_kib(pinned) ? "was collapsed" : "was left alone");
	cowpin_check_new(pin, pinned + length / 2, page_size());
	gt_pass("the pin is coherent, while khugepaged collapsed the range beside");
}

GUEST_TEST = {
	.summary       = "khugepaged leaves pinned pages alone",
	.contract      = "C-SYNC",
	.mechanism     = "khugepaged copies a page that more than page tables refer to",
	.needs_kconfig = "MODULES=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
