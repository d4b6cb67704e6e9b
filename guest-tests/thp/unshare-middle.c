// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After fork(), the child unmaps all of a THP but one page in the middle. Only that page is still shared, so
 * a kernel that asks the first page of the THP, or the first one of a range, takes an R/O pin of the range
 * without unsharing it. The next write then separates the page from the device or, if the page is
 * reused, writes to the page of the other process.
 */
#include "cowpin.h"
#include "partner.h"
#include "pattern.h"
#include "thp.h"

static char *map, *expected, *kept;
static size_t length;

static int pin_range(char *start, size_t pages)
{
	bool is_fast = !strcmp(gt_param("walk"), "fast");
	int pin = module_open("cowpin");

	gt_need(!cowpin_try(pin, start, pages, COWPIN_LONGTERM | (is_fast ? COWPIN_FAST : 0)),
		"pinning %zu pages", pages);
	return pin;
}

static void keep_one_page(void)
{
	char *after = kept + page_size();

	gt_need(!munmap(map, kept - map) && !munmap(after, map + length - after), "munmap");
}

/* Every page of the range gets a byte, by read fault and then write fault. */
static void write_range(char *start, size_t pages, char value)
{
	for (size_t i = 0; i < pages; i++) {
		char *at = start + i * page_size();

		pattern_check(expected + (at - map), at, page_size(), "a page before it is written");
		pattern_set(map, expected, at - map + 9, value);
	}
}

static void check_pinned(int pin, char *start, size_t pages)
{
	char *seen = page_map(pages, 0);

	cowpin_read(pin, seen, pages * page_size());
	pattern_check(start, seen, pages * page_size(), "bytes read by the device, compared with the memory");
	munmap(seen, pages * page_size());
}

static void child(struct partner *parent, bool pins)
{
	int pin = -1;

	keep_one_page();
	if (pins)
		pin = pin_range(kept, 1);
	partner_wake(parent);
	partner_wait(parent);
	pattern_check(expected + (kept - map), kept, page_size(), "the page that the child kept");
	if (pins)
		check_pinned(pin, kept, 1);
	pattern_set(map, expected, kept - map + 21, 'c');
	pattern_check(expected + (kept - map), kept, page_size(), "the page after the child wrote");
	if (pins)
		check_pinned(pin, kept, 1);
	partner_end(parent);
}

static void run(void)
{
	const char *from = gt_param("from");
	bool child_pins = !strcmp(from, "child");
	struct partner other;
	size_t pages;
	char *start;
	int pin = -1;

	module_need("cowpin");
	map = page_map_thp(&length, 1);
	expected = pattern_fill(map, length, pattern_new_salt());
	kept = map + 5 * page_size();
	start = !strcmp(from, "head") ? map : !strcmp(from, "before") ? kept - 2 * page_size() : kept;
	pages = (kept - start) / page_size() + (strcmp(from, "page") ? 3 : 1);
	if (partner_fork(&other))
		child(&other, child_pins);
	partner_wait(&other);
	gt_need(page_huge_kib(map) == length >> 10, "the parent still maps the huge page as such");
	if (!child_pins)
		pin = pin_range(start, pages);
	write_range(start, pages, 'p');
	if (!child_pins)
		check_pinned(pin, start, pages);
	pattern_check(expected, map, length, "the parent's memory after it wrote");
	partner_wake(&other);
	partner_end(&other);
	pattern_check(expected, map, length, "the parent's memory after the child wrote");
	if (!child_pins)
		check_pinned(pin, start, pages);
	gt_pass("the device reads what its process wrote, and no process sees the other's writes");
}

GUEST_TEST = {
	.summary       = "an R/O pin of a THP unshares a page in the middle that a child kept",
	.contract      = "C-SYNC",
	.mechanism     = "unsharing asks the first page of a THP or range, and not the one that is shared",
	.fixes         = "a7f226604170",
	.changelog     = "7 30",
	.needs_kconfig = "MODULES=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "from: head before page child; walk: fast slow",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes, or those of another process",
	.run           = run,
};
