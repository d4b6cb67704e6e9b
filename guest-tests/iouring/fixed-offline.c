// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory with errors that were corrected goes offline: its content moves to another page. A page that a ring has
 * registered cannot move. It stays, or else the ring would go on with a page that is nobody's. Another page
 * shows that pages of this kind do move.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "pattern.h"
#include "uring.h"

#ifndef MADV_SOFT_OFFLINE
#define MADV_SOFT_OFFLINE 101
#endif
enum { SPARE = 4 };

/* Returns whether the page of this address is another one now. */
static bool moves(char *page)
{
	uint64_t before = page_frame(page);
	int result, error;

	page_drain_vectors();
	result = madvise(page, page_size(), MADV_SOFT_OFFLINE);
	error = result ? errno : 0;
	gt_note("MADV_SOFT_OFFLINE: %s", error ? strerror(error) : "done");
	if (error == EINVAL || error == EOPNOTSUPP)
		gt_skip("the kernel takes no such page offline: %s", strerror(error));
	return page_frame(page) != before;
}

static void run(void)
{
	char *buffer, *control, *expected;
	const char *kind = gt_param("page");
	struct uring ring;
	size_t length;

	page_stay_on_cpu();
	buffer = pagekind_map(kind, SPARE, &length);
	control = strcmp(kind, "hugetlb") ? pagekind_map(kind, 0, &length) : hugetlb_map(length, 1);
	expected = pattern_fill(control, length, pattern_new_salt());
	pattern_write(buffer, length, 1);
	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	gt_note("the registered page %s", moves(buffer + length / 2) ? "has moved" : "stays");
	uring_check_sends(&ring, buffer, length);
	uring_check_sends_new(&ring, buffer, length);
	gt_need(moves(control + length / 2), "a page that is not registered moves");
	pattern_check(expected, control, length, "the memory whose page has moved");
	gt_pass("the ring sends what the program wrote, and a page that is not registered can move");
}

GUEST_TEST = {
	.summary       = "a page of an io_uring fixed buffer does not go offline",
	.contract      = "C-SYNC",
	.mechanism     = "soft offlining migrates a page that is pinned",
	.needs_kconfig = "IO_URING=y MEMORY_FAILURE=y MIGRATION=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.params        = "page: small mthp thp thp-ptes hugetlb",
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
