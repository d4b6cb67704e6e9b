// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Droppable memory holds secrets that may get lost but must not get out. Reclaim discards its pages, even
 * though they are dirty, and never writes them to swap; a page is there as a whole or all zeros; a child
 * sees zeros; and no lock keeps the pages in memory, which would be memory without an owner to charge.
 */
#include "guesttest.h"
#include "pattern.h"
#include "partner.h"
#include "swap.h"

#ifndef MAP_DROPPABLE
#define MAP_DROPPABLE 0x08
#endif
#ifndef MCL_ONFAULT
#define MCL_ONFAULT 4
#endif

enum { PAGES = 16, TRIES = 200, KEEPONFORK = 19 };

static char *start, *expected;

static size_t length(void)
{
	return PAGES * page_size();
}

/* Without droppable memory the type of the mapping is invalid. */
static void map(int more_flags)
{
	start = mmap(NULL, length(), PROT_READ | PROT_WRITE, MAP_DROPPABLE | MAP_ANONYMOUS | more_flags, -1, 0);
	if (start == MAP_FAILED && !more_flags)
		gt_skip("MAP_DROPPABLE: %s", strerror(errno));
}

static void fill(void)
{
	madvise(start, length(), MADV_NOHUGEPAGE);	/* EINVAL without THP */
	expected = pattern_fill(start, length(), pattern_new_salt());
	gt_need(!memcmp(start, expected, length()), "what was stored is there before anything is reclaimed");
}

static bool is_zero(const char *page)
{
	for (size_t i = 0; i < page_size(); i++)
		if (page[i])
			return false;
	return true;
}

/* Until all pages are gone. Returns how many are. */
static int reclaim(void)
{
	int gone = 0;

	for (int i = 0; i < TRIES && gone < PAGES; i++) {
		page_drain_vectors();
		/* It takes any memory that is not locked. */
		gt_check(!madvise(start, length(), MADV_PAGEOUT), "MADV_PAGEOUT accepts droppable memory: %s",
			 strerror(errno));
		gone = 0;
		for (int page = 0; page < PAGES; page++) {
			uint64_t entry = page_entry(start + page * page_size());

			gt_check(!(entry & PAGE_SWAPPED), "page %d is not in swap, pagemap entry 0x%llx", page,
				 (unsigned long long)entry);
			gone += !(entry & PAGE_PRESENT);
		}
	}
	for (int page = 0; page < PAGES; page++)
		gt_check(is_zero(start + page * page_size()) ||
			 !memcmp(start + page * page_size(), expected + page * page_size(), page_size()),
			 "page %d is whole, or all zeros", page);
	return gone;
}

static void check_reclaim(void)
{
	char *other = page_map(1, 'o');
	int gone;

	swap_need();
	fill();
	gone = reclaim();
	swap_out(other);
	gt_check(gone == PAGES, "reclaim discards %d pages, not %d, as it swaps out others", PAGES, gone);
	fill();
	gt_pass("%d pages were discarded, and others swapped out", gone);
}

static void check_child(void)
{
	pid_t child;

	fill();
	gt_check(madvise(start, length(), KEEPONFORK) < 0 && errno == EINVAL, "MADV_KEEPONFORK is refused");
	child = gt_fork();
	if (!child) {
		for (int page = 0; page < PAGES; page++)
			gt_check(is_zero(start + page * page_size()), "page %d of the child is zeros", page);
		fill();
		_exit(0);
	}
	gt_reap(child);
	for (int page = 0; page < PAGES; page++)
		gt_check(is_zero(start + page * page_size()) ||
			 !memcmp(start + page * page_size(), expected + page * page_size(), page_size()),
			 "page %d of the parent is its own, or zeros", page);
	gt_pass("the child sees zeros");
}

/* Control: a page that is not droppable stays, since it is locked. */
static void check_unlocked(bool refused)
{
	char *locked = page_map(1, 'l');
	int gone;

	if (refused)
		gt_pass("the kernel refuses to lock droppable memory");
	gt_need(!mlock(locked, page_size()), "mlock");
	fill();
	gone = reclaim();
	gt_check(gone == PAGES, "reclaim discards %d pages of droppable memory in spite of a lock, not %d", PAGES, gone);
	for (int i = 0; i < 3; i++)
		gt_need(!madvise(locked, page_size(), MADV_PAGEOUT) || errno == EINVAL, "MADV_PAGEOUT");
	gt_need(page_entry(locked) & PAGE_PRESENT, "the page that is locked stays");
	gt_pass("%d pages were discarded, a page that is locked was not", gone);
}

static void run(void)
{
	const char *when = gt_param("when");

	page_stay_on_cpu();
	map(0);
	if (!strcmp(when, "reclaim"))
		check_reclaim();
	if (!strcmp(when, "fork"))
		check_child();
	if (!strcmp(when, "mlock"))
		check_unlocked(mlock(start, length()));
	if (!strcmp(when, "mlockall"))
		check_unlocked(mlockall(MCL_CURRENT));
	if (!strcmp(when, "mlock-future"))
		gt_need(!mlockall(MCL_FUTURE | MCL_ONFAULT), "mlockall");
	map(!strcmp(when, "map-locked") ? MAP_LOCKED : MAP_NORESERVE);
	check_unlocked(start == MAP_FAILED);
}

GUEST_TEST = {
	.summary       = "droppable memory is discarded when memory is short, and goes nowhere else",
	.contract      = "C-ISO",
	.mechanism     = "dirty pages are swapped out, copied at fork or locked as those of any other mapping",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.11",
	.params        = "when: reclaim fork mlock mlockall mlock-future map-locked",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "a page in swap, in a child, or one that reclaim cannot take",
	.run           = run,
};
