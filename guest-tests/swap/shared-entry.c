// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that is swapped out before fork() has two swap entries and no mapping. The first process to
 * bring it back must not own it, although it is the only one to map it: the swap entry of the other
 * counts. Each side faults by reading or by writing first, since the two are decided at different
 * places.
 */
#include "guesttest.h"
#include "partner.h"
#include "pattern.h"
#include "swap.h"

static char *page, *expected;

static void access_swapped(const char *how, size_t offset, char value)
{
	gt_need(page_entry(page) & PAGE_SWAPPED, "the page is still in swap");
	if (!strcmp(how, "read"))
		pattern_check(expected, page, page_size(), "the page when it is read from swap");
	pattern_set(page, expected, offset, value);
	pattern_check(expected, page, page_size(), "the page after a write");
}

static void run(void)
{
	bool child_first = !strcmp(gt_param("first"), "child");
	size_t last = page_size() - 1;
	struct partner other;

	swap_need();
	page_stay_on_cpu();
	page = page_map(1, 0);
	expected = pattern_fill(page, page_size(), pattern_new_salt());
	swap_out(page);
	if (partner_fork(&other) == child_first) {
		access_swapped(gt_param("fault"), 5, 'f');
		partner_wake(&other);
		partner_wait(&other);
		pattern_check(expected, page, page_size(), "the first process' page after the second one wrote");
		pattern_set(page, expected, last, 'F');
		partner_wake(&other);
	} else {
		partner_wait(&other);
		access_swapped(gt_param("then"), 77, 's');
		partner_wake(&other);
		partner_wait(&other);
		pattern_check(expected, page, page_size(), "the second process' page after the first one wrote");
	}
	partner_end(&other);
	pattern_check(expected, page, page_size(), "the parent's page after the child has ended");
	gt_pass("neither process sees the other's writes");
}

GUEST_TEST = {
	.summary       = "a page in swap that two processes share stays private when either writes",
	.contract      = "C-ISO",
	.mechanism     = "a swap-in makes a page writable without counting the swap entry of the other process",
	.changelog     = "23 29a",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "first: parent child; fault: write read; then: write read",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a process reads what the other wrote after fork",
	.run           = run,
};
