// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Clearing the soft-dirty bits write-protects every page of a process, including fixed buffers,
 * unless the kernel skips pinned pages. The next write fault must not replace the page of the
 * buffer.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "uring.h"

static void run(void)
{
	size_t length;
	char *buffer = pagekind_map(gt_param("page"), 1, &length);
	struct uring ring;

	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	page_clear_soft_dirty();
	uring_check_sends_new(&ring, buffer, page_size());
	gt_pass("the ring sends the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "io_uring fixed buffer stays coherent after clear_refs",
	.contract      = "C-SYNC",
	.mechanism     = "clear_refs write-protects a pinned page, and do_wp_page() copies it",
	.fixes         = "9348b73c2e1b",
	.changelog     = "29c 40",
	.needs_kconfig = "IO_URING=y MEM_SOFT_DIRTY=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "page: small swapped ksm mthp thp thp-ptes",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the ring sends stale bytes",
	.run           = run,
};
