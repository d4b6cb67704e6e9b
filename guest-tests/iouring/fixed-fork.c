// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() shares the pages of a process with its child. A page that is registered with an io_uring
 * must not be shared, or the parent's next write gives it a copy while the ring keeps the old page:
 * fork() has to copy it for the child.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "uring.h"

static void run(void)
{
	size_t length;
	char *buffer = pagekind_map(gt_param("page"), 2, &length), *control = page_map(1, 'o');
	struct uring ring;
	uint64_t before;

	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	before = page_frame(control);
	if (!gt_fork())
		for (;;)
			pause();	/* alive, and so is its mapping of the buffer */
	page_touch(control, 'n');
	gt_check(page_frame(control) != before, "a page without a pin is copied after fork");
	uring_check_sends_new(&ring, buffer, page_size());
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer stays coherent with the parent after fork()",
	.contract      = "C-SYNC",
	.mechanism     = "fork() write-protects a pinned page in the parent instead of copying it for the child",
	.fixes         = "70e806e4e645",
	.changelog     = "5",
	.needs_kconfig = "IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "page: small swapped ksm mthp thp thp-ptes hugetlb hugetlb-1g",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
