// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UFFDIO_MOVE of memory in a state other than that of a small page that is present, which is left to
 * uffd.remap, or of the huge zero page, see uffd.move-hugezero. Either the data is at the new address and nothing at the old one, or, where somebody else has the
 * page, the move is refused and nothing changes. The page at its new address is then used on: it is written,
 * swapped out and in, and the pages that it could have been mistaken for are looked at.
 */
#include "cowpin.h"
#include "guesttest.h"
#include "partner.h"
#include "pattern.h"
#include "swap.h"
#include "thp.h"
#include "uffdmove.h"

enum { PAGES = 8, IS_ZERO_PAGE = 24, TRIES = 1000 };

static const char *state;
static char *source, *target, *expected;
static size_t length;
static struct partner sharer;

static bool is_state(const char *name)
{
	return !strcmp(state, name);
}

static void swap_all_out(void)
{
	for (size_t at = 0; at < length; at += page_size())
		swap_out(source + at);
}

/* Read back from swap, but not mapped: so they are still swap entries, each with its page in memory. */
static void read_into_swap_cache(void)
{
	unsigned char in_memory[PAGES] = { 0 };
	size_t count = 0;

	gt_need(!madvise(source, length, MADV_WILLNEED), "MADV_WILLNEED");
	for (int i = 0; i < TRIES && count < PAGES; i++) {
		gt_need(!mincore(source, length, in_memory), "mincore");
		count = 0;
		for (int page = 0; page < PAGES; page++)
			count += in_memory[page] & 1;
		usleep(1000);
	}
	for (int page = 0; page < PAGES; page++)
		gt_need(in_memory[page] & 1 && page_entry(source + page * page_size()) & PAGE_SWAPPED,
			"page %d is in the swap cache, and not mapped", page);
}

static void share(void)
{
	if (!partner_fork(&sharer))
		return;
	partner_wait(&sharer);
	pattern_check(expected, source, length, "the child's memory");
	partner_end(&sharer);
}

static void map_small(void)
{
	length = PAGES * page_size();
	source = uffdmove_map(length, MADV_NOHUGEPAGE);
	target = uffdmove_map(length, MADV_NOHUGEPAGE);
	expected = page_map(PAGES, 0);
	if (is_state("zero")) {
		for (int page = 0; page < PAGES; page++)
			gt_need(!source[page * page_size()] && page_is(source + page * page_size(), IS_ZERO_PAGE),
				"page %d is the zero page", page);
		return;
	}
	if (is_state("hole"))
		return;
	expected = pattern_fill(source, length, 68);
	if (strncmp(state, "swap", 4))
		return;
	swap_need();
	swap_all_out();
	if (is_state("swapcache"))
		read_into_swap_cache();
	if (is_state("swapped-shared"))
		share();
}

static void map_huge(void)
{
	source = page_map_thp(&length, 0);
	target = uffdmove_map(length, MADV_HUGEPAGE);
	expected = pattern_fill(source, length, 68);
	if (is_state("thp-ptes")) {
		page_mprotect_cycle(source + length / 2, page_size());
		page_need_thp_mapped_by_ptes(source);
	}
	if (is_state("thp-shared"))
		share();
}

static void check_refused(int error, int wanted)
{
	gt_check(error == wanted, "UFFDIO_MOVE fails with %s, not %s", strerror(wanted), strerror(error));
	uffdmove_check_empty(target, length, "new");
	if (wanted == EBUSY)
		pattern_check(expected, source, length, "the memory at the old address");
}

/* What was moved is used: the source must not be, and others not have changed. */
static void check_moved(int error, size_t bytes)
{
	gt_check(!error, "UFFDIO_MOVE succeeds, not %s", strerror(error));
	uffdmove_check_empty(source, bytes, "old");
	pattern_check(expected, target, bytes, "the memory at the new address");
	pattern_check(expected + bytes, source + bytes, length - bytes, "the memory that was not moved");
	for (size_t at = 0; at < bytes; at += page_size())
		pattern_set(target, expected, at, 'w');
	pattern_check(expected, target, bytes, "the memory at the new address, once it was written");
	if (!strncmp(state, "swap", 4))
		for (size_t at = 0; at < bytes; at += page_size())
			swap_out(target + at);
	pattern_check(expected, target, bytes, "the memory at the new address, in the end");
	uffdmove_check_zeros(uffdmove_map(page_size(), MADV_NOHUGEPAGE), "memory that nobody wrote");
	uffdmove_check_zeros(source, "the memory at the old address");
}

static void run(void)
{
	int fd = uffdmove_open(), pin;
	size_t part;

	state = gt_param("state");
	page_stay_on_cpu();
	if (!strncmp(state, "thp", 3))
		map_huge();
	else
		map_small();
	part = !strcmp(state, "thp-part") ? length / 2 : length;
	uffd_register(fd, target, length, UFFDIO_REGISTER_MODE_MISSING);
	if (is_state("hole")) {
		check_refused(uffdmove_try(fd, target, source, length, 0), ENOENT);
		check_moved(uffdmove_try(fd, target, source, length, UFFDMOVE_ALLOW_HOLES), 0);
	} else if (is_state("thp-pinned")) {
		pin = cowpin_pin(source + length / 2, 1, COWPIN_LONGTERM | COWPIN_WRITE | COWPIN_FAST);
		check_refused(uffdmove_try(fd, target, source, length, 0), EBUSY);
		pattern_set(source, expected, length / 2, 'n');
		cowpin_check(pin, source + length / 2, page_size());
	} else if (strstr(state, "-shared")) {
		check_refused(uffdmove_try(fd, target, source, length, 0), EBUSY);
		partner_wake(&sharer);
		partner_end(&sharer);
	} else {
		check_moved(uffdmove_try(fd, target, source, part, 0), part);
	}
	gt_pass("the memory was moved, or not at all");
}

GUEST_TEST = {
	.summary       = "UFFDIO_MOVE moves memory in every state, or changes nothing",
	.contract      = "C-DATA",
	.mechanism     = "a page table entry moves, and the page in the swap cache or a part of the huge page does not",
	.fixes         = "0ea148a79919",
	.cve           = "CVE-2025-38242",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.8",
	.params        = "state: swapped swapcache swapped-shared zero hole thp thp-part thp-ptes thp-shared thp-pinned",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "other data at the new address, something left at the old one, or a page taken from somebody",
	.run           = run,
};
