// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * UFFDIO_MOVE of the huge zero page, which is not a page of the process: what arrives must be the huge zero page
 * again, or zeros of the process's own. A page frame that is made up from what is no page is some other memory,
 * or none. A write at the new address must not change the zeros of others.
 */
#include "guesttest.h"
#include "uffdmove.h"

#define KNOB PAGE_THP_DIR "use_zero_page"

enum { IS_ZERO_PAGE = 24 };

static char knob_before[8];

static void give_back(void)
{
	page_write_file(KNOB, knob_before);
}

/* Unlike the small zero page it has as many page frames as it has pages. */
static char *map_huge_zero_page(size_t length)
{
	char *start = uffdmove_map(length, MADV_HUGEPAGE);

	gt_need(!*(volatile char *)start, "reading the memory");
	gt_need(page_is(start, IS_ZERO_PAGE) && page_frame(start + page_size()) == page_frame(start) + 1,
		"the memory is the huge zero page");
	return start;
}

static void run(void)
{
	bool is_whole = !strcmp(gt_param("part"), "whole");
	size_t length = page_thp_size(), part;
	char *source, *target, *other;
	int fd = uffdmove_open(), error;

	page_allow_thp(length);
	part = is_whole ? length : length / 2;
	page_read_file(KNOB, knob_before, sizeof(knob_before));
	gt_at_end(give_back);
	gt_need(page_write_file(KNOB, "1"), "writing " KNOB);
	source = map_huge_zero_page(length);
	other = map_huge_zero_page(length);
	target = uffdmove_map(length, MADV_HUGEPAGE);
	uffd_register(fd, target, length, UFFDIO_REGISTER_MODE_MISSING);
	error = uffdmove_try(fd, target, source, part, 0);
	gt_check(!error, "UFFDIO_MOVE succeeds, not %s", strerror(error));
	uffdmove_check_empty(source, part, "old");
	gt_note("the new address has %s", page_is(target, IS_ZERO_PAGE) ? "a zero page" : "another page");
	for (size_t at = 0; at < part; at += page_size())
		uffdmove_check_zeros(target + at, "the memory at the new address");
	for (size_t at = 0; at < part; at += page_size())
		target[at] = 'w';
	for (size_t at = 0; at < length; at += page_size()) {
		gt_check(at >= part || target[at] == 'w', "what was written at offset %zu is there", at);
		uffdmove_check_zeros(other + at, "the zeros of another mapping");
		uffdmove_check_zeros(source + at, "the memory at the old address");
	}
	gt_pass("the zeros were moved, and those of others stayed");
}

GUEST_TEST = {
	.summary       = "UFFDIO_MOVE of the huge zero page moves zeros",
	.contract      = "C-DATA",
	.mechanism     = "the huge zero page is moved as if it were an anonymous page, which it is not",
	.fixes         = "fae654083bfa",
	.cve           = "CVE-2026-31397",
	.needs_kconfig = "USERFAULTFD=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.8",
	.params        = "part: half whole",
	.needs_root    = true,
	.may_crash     = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "something else than zeros at the new address, or a fault that the kernel cannot handle",
	.run           = run,
};
