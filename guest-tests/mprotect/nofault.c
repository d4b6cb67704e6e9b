// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mprotect() to read-only and back, as garbage collectors do it all the time. The pages are dirty
 * and not shared, so their PTEs can be made writable immediately, and a fault for each page is pure
 * overhead.
 */
#include "guesttest.h"
#include "pagestate.h"

enum { PAGES = 256, STRAY = PAGES / 16 };

static long faults_of_rewriting(volatile char *map, char value)
{
	struct rusage before, after;

	gt_need(!getrusage(RUSAGE_SELF, &before), "getrusage");
	for (size_t i = 0; i < PAGES; i++)
		map[i * page_size()] = value;
	gt_need(!getrusage(RUSAGE_SELF, &after), "getrusage");
	return after.ru_minflt - before.ru_minflt;
}

static void run(void)
{
	char *map = page_map(PAGES, 1);
	long faults = faults_of_rewriting(map, 2);

	gt_need(faults < STRAY, "writing to %d writable pages took %ld faults", PAGES, faults);
	/* What a fault a page looks like: without it, none could mean that none are counted. */
	gt_need(!madvise(map, PAGES * page_size(), MADV_DONTNEED), "MADV_DONTNEED");
	faults = faults_of_rewriting(map, 3);
	gt_need(faults >= PAGES, "writing to %d missing pages took %ld faults", PAGES, faults);
	page_mprotect_cycle(map, PAGES * page_size());
	faults = faults_of_rewriting(map, 4);
	gt_check(faults < STRAY, "writing %d dirty pages after mprotect takes no faults, but took %ld", PAGES,
		 faults);
	gt_pass("%ld faults for writing %d pages again", faults, PAGES);
}

GUEST_TEST = {
	.summary       = "mprotect() to read-only and back takes no write fault on unshared dirty pages",
	.contract      = "C-COST",
	.mechanism     = "change_pte_range() leaves private pages write-protected until the next write fault",
	.fixes         = "64fe24a3e05e",
	.changelog     = "20",
	.min_kernel    = "4.3",
	.needs_root    = false,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write fault for each page after mprotect()",
	.run           = run,
};
