// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PAGEMAP_SCAN says which pages were written since it write-protected them, and a page that was discarded
 * since then counts as written, since its content changed. The history of each page is known here. To
 * protect and report in one step must report each write once, and the next write again. Of a huge page,
 * one write may be reported for all of it.
 */
#include "guard.h"
#include "guesttest.h"
#include "hugetlb.h"
#include "pagemapscan.h"
#include "swap.h"
#include "thp.h"

enum { UNITS = 8, WRITTEN = 3, USED = 5 };	/* WRITTEN is written, and USED something else happens to it */

static const char *state;
static char *start;
static size_t length, unit;	/* a unit is a page, or a huge page */
static bool *is_written, *reported;

static bool is_state(const char *name)
{
	return !strcmp(state, name);
}

static char *at(int n)
{
	return start + n * unit;
}

static void map_small(size_t bytes, bool fill)
{
	length = bytes;
	unit = page_size();
	start = mmap(page_find_room(length, unit), length, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(start != MAP_FAILED, "mmap");
	madvise(start, length, MADV_NOHUGEPAGE);
	if (fill)
		memset(start, 'o', length);
}

static void map_shared(void)
{
	int file = memfd_create("written", MFD_CLOEXEC);

	unit = page_size();
	length = UNITS * unit;
	gt_need(file >= 0 && !ftruncate(file, length), "a file in memory");
	start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	gt_need(start != MAP_FAILED, "mmap of the file");
	memset(start, 'o', length);
}

static void map_hugetlb(void)
{
	unit = hugetlb_usual_size();
	length = UNITS * unit;
	hugetlb_make_pool(unit, UNITS);
	start = mmap(NULL, length, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | __builtin_ctzl(unit) << MAP_HUGE_SHIFT, -1, 0);
	if (start == MAP_FAILED)
		gt_skip("not enough huge pages are free: %s", strerror(errno));
	for (int i = 0; i < UNITS; i++)
		*at(i) = 'o';
}

static void map_thps(void)
{
	unit = page_thp_size();
	length = UNITS * unit;
	if ((size_t)get_avphys_pages() * page_size() < 2 * length)
		gt_skip("not enough free memory for %d huge pages of %zu MiB", UNITS, unit >> 20);
	start = mmap(page_find_room(length, unit), length, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(start != MAP_FAILED, "mmap");
	gt_need(!madvise(start, length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	for (int i = 0; i < UNITS; i++)
		*at(i) = 'o';
	if (page_huge_kib(start) != length >> 10)
		gt_skip("only %lu KiB are mapped as huge pages", page_huge_kib(start));
}

static void map(void)
{
	if (is_state("thp") || is_state("discarded-thp"))
		map_thps();
	else if (is_state("hugetlb"))
		map_hugetlb();
	else if (is_state("shmem"))
		map_shared();
	else if (is_state("pmd-hole"))
		map_small(3 * page_thp_size(), false);
	else
		map_small(UNITS * page_size(), !is_state("untouched") && !is_state("read"));
}

static void discard(int n)
{
	gt_need(!madvise(at(n), unit, MADV_DONTNEED), "MADV_DONTNEED");
}

/* What happens to the pages after they are protected. */
static void make_history(void)
{
	*(volatile char *)at(WRITTEN) = 'w';
	is_written[(at(WRITTEN) - start) / page_size()] = true;
	if (is_state("untouched") || is_state("pmd-hole"))
		return;
	if (is_state("swapped")) {
		swap_out(at(WRITTEN));
		swap_out(at(USED));
	} else if (is_state("shmem")) {
		discard(USED);		/* its content is that of the file, which nobody changes */
	} else if (is_state("discarded") || is_state("discarded-thp")) {
		discard(USED);
		for (size_t i = 0; i < unit / page_size(); i++)
			is_written[(at(USED) - start) / page_size() + i] = true;
	} else if (is_state("guard")) {
		guard_install(at(USED), unit);
		is_written[USED] = true;
	} else {
		(void)*(volatile char *)at(USED);
	}
}

/* Whether a write to this page may be reported because another page of the huge page was written. */
static bool may_be_reported(size_t page)
{
	size_t first = page - page % (unit / page_size());

	for (size_t i = 0; i < unit / page_size(); i++)
		if (is_written[first + i])
			return true;
	return false;
}

static void check(uint64_t others, bool protect, const char *when)
{
	pagemapscan_read(start, length, PAGEMAPSCAN_WRITTEN, others, protect, reported);
	for (size_t page = 0; page < length / page_size(); page++) {
		gt_check(reported[page] || !is_written[page], "page %zu was written, and is reported %s", page, when);
		gt_check(!reported[page] || may_be_reported(page), "page %zu was not written, and is not reported %s",
			 page, when);
	}
}

static void forget_writes(void)
{
	memset(is_written, 0, length / page_size() * sizeof(*is_written));
}

/* One after the other, so that none hides behind another. */
static void write_again(void)
{
	size_t step = length / UNITS;

	for (char *byte = start; byte < start + length; byte += step) {
		if (is_state("guard") && byte == at(USED))
			continue;
		*(volatile char *)byte = 'a';
		is_written[(byte - start) / page_size()] = true;
		check(0, true, "when it is written again");
		forget_writes();
	}
}

static void run(void)
{
	state = gt_param("state");
	if (is_state("swapped"))
		swap_need();
	page_stay_on_cpu();
	map();
	is_written = calloc(length / page_size(), sizeof(*is_written));
	reported = calloc(length / page_size(), sizeof(*reported));
	pagemapscan_register(start, length);
	pagemapscan_protect(start, length, PAGEMAPSCAN_WRITTEN);
	check(0, false, "once all are protected");
	check(0, true, "when all are protected twice");
	make_history();
	check(0, false, "after the writes");
	check(PAGEMAPSCAN_PRESENT | PAGEMAPSCAN_SWAPPED, false, "with other categories");
	if (is_state("swapped")) {
		gt_check(*(volatile char *)at(WRITTEN) == 'w' && *(volatile char *)at(USED) == 'o', "the data");
		check(0, false, "after the pages came back from swap");
	}
	check(PAGEMAPSCAN_PRESENT, true, "while it is protected");
	forget_writes();
	check(0, true, "when it is protected again");
	check(PAGEMAPSCAN_PRESENT, false, "when it was protected again");
	write_again();
	if (is_state("guard"))
		guard_check(at(USED), unit, "after all scans");
	gt_pass("PAGEMAP_SCAN reported the pages that were written, and no others");
}

GUEST_TEST = {
	.summary       = "PAGEMAP_SCAN reports the pages that were written, once, and no others",
	.contract      = "C-TRACK",
	.mechanism     = "a page table entry that is absent, swapped or a mark is judged as if it were a page",
	.fixes         = "07b4377bdbe7",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y SHMEM=y",
	.min_kernel    = "6.7",
	.params        = "state: untouched read populated swapped discarded discarded-thp guard thp hugetlb shmem pmd-hole",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page that was written and is not reported, or the reverse",
	.run           = run,
};
