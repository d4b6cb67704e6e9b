// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MADV_FREE gives up a range for its caller, and nothing else. slots: pages that are in swap, whose slots become
 * free. shared: a page with a copy in the swap cache that a child maps, too, and keeps. part: one page of a THP,
 * without the others.
 */
#include "guesttest.h"
#include "partner.h"
#include "pattern.h"
#include "swap.h"
#include "thp.h"

enum { PAGES = 1024, ASKS = 20 };

static long swap_used_kib(void)
{
	long used, total = 0;
	char line[512];
	FILE *swaps = fopen("/proc/swaps", "re");

	gt_need(swaps, "/proc/swaps");
	while (fgets(line, sizeof(line), swaps))
		total += sscanf(line, "%*s %*s %*d %ld", &used) == 1 ? used : 0;
	fclose(swaps);
	return total;
}

/* Swaps all out. A slot cannot be freed while the page is written to it. */
static void swap_out_all(char *pages)
{
	static uint64_t frames[PAGES];
	int out = 0, written = 0;

	page_settle(pages);
	for (int i = 0; i < PAGES; i++)
		frames[i] = page_frame(pages + i * page_size());
	for (int ask = 0; ask < ASKS && out < PAGES; ask++) {
		if (madvise(pages, PAGES * page_size(), MADV_PAGEOUT))
			gt_skip("the kernel has no MADV_PAGEOUT");
		page_drain_vectors();
		for (out = 0; out < PAGES && page_entry(pages + out * page_size()) & PAGE_SWAPPED; )
			out++;
	}
	gt_need(out == PAGES, "%d of %d pages are swapped out", out, PAGES);
	for (int i = 0; i < 5000 && written < PAGES; i++) {
		for (written = 0; written < PAGES && !swap_writes(frames[written]); )
			written++;
		usleep(written < PAGES ? 1000 : 0);
	}
	gt_need(written == PAGES, "the pages are written");
}

/* Some slots are kept for each CPU, and others may use swap: half of them proves enough. */
static void check_slots(void)
{
	char *pages, *zero = page_map(1, 0);
	long before, full, kib = PAGES * page_size() / 1024;

	swap_need();
	page_stay_on_cpu();
	pages = page_map(PAGES, 'o');
	before = swap_used_kib();
	swap_out_all(pages);
	full = swap_used_kib();
	gt_need(full >= before + kib / 2, "%ld KiB swapped out fill swap, not from %ld to %ld", kib, before, full);
	gt_need(!madvise(pages, PAGES * page_size(), MADV_FREE), "MADV_FREE");
	gt_check(swap_used_kib() <= full - kib / 2, "MADV_FREE of %ld KiB in swap frees them: %ld KiB were used, now %ld",
		 kib, full, swap_used_kib());
	pattern_check(zero, pages, page_size(), "a page that was given up in swap");
	gt_pass("swap was used for %ld KiB, %ld and %ld: before, with the pages and after", before, full,
		swap_used_kib());
}

/* Read from swap, the page has a copy there and is clean, so that reclaim need not write it once more. */
static void check_shared(void)
{
	struct partner child;
	char *page, *expected;

	swap_need();
	page_stay_on_cpu();
	page = page_map(1, 0);
	expected = pattern_fill(page, page_size(), pattern_new_salt());
	swap_out(page);
	(void)*(volatile char *)page;
	if (partner_fork(&child)) {
		partner_wait(&child);
		for (int i = 0; i < ASKS && page_entry(page) & PAGE_PRESENT; i++) {
			gt_need(!madvise(page, page_size(), MADV_PAGEOUT), "MADV_PAGEOUT");
			page_drain_vectors();
		}
		gt_note("reclaim %s", page_entry(page) & PAGE_PRESENT ? "keeps the page" : "unmapped the page");
		pattern_check(expected, page, page_size(), "the child's page, given up by its parent alone");
		partner_end(&child);
	}
	gt_need(!madvise(page, page_size(), MADV_FREE), "MADV_FREE");
	for (int i = 0; i < ASKS; i++)	/* the page is on its way to the list of lazyfree ones */
		page_free_lazily(page_map(1, 1), 1);
	gt_need(!munmap(page, page_size()), "munmap");
	partner_wake(&child);
	partner_end(&child);
	gt_pass("the child keeps a page that its parent gave up");
}

static void check_part(void)
{
	size_t length, page = page_size(), at;
	char *map, *expected;

	page_stay_on_cpu();
	map = page_map_thp(&length, 0);
	expected = pattern_fill(map, length, pattern_new_salt());
	at = length / page / 2 * page;
	gt_need(!madvise(map + at, page, MADV_FREE), "MADV_FREE");
	for (int i = 0; i < ASKS; i++) {
		if (madvise(map, length, MADV_PAGEOUT))
			gt_skip("the kernel has no MADV_PAGEOUT");
		page_drain_vectors();
	}
	gt_note("the page %s", page_entry(map + at) & PAGE_PRESENT ? "is still there" : "is gone");
	pattern_check(expected, map, at, "the pages before the one that was given up");
	pattern_check(expected + at + page, map + at + page, length - at - page, "the pages after it");
	gt_pass("the rest of the huge page is unchanged");
}

static void run(void)
{
	const char *what = gt_param("what");

	if (!strcmp(what, "slots"))
		check_slots();
	else if (!strcmp(what, "shared"))
		check_shared();
	else
		check_part();
}

GUEST_TEST = {
	.summary       = "MADV_FREE gives up all of its range, and nothing else",
	.contract      = "C-LIVE",
	.mechanism     = "slots in swap, the other processes of a page, or the rest of a huge page are forgotten",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "what: slots shared part",
	.needs_root    = true,
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "lost swap space, or zeroes in memory that was not given up",
	.run           = run,
};
