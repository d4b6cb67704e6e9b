// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ksmd merges pages with equal contents into one. A pinned page must stay mapped by its owner,
 * whatever other pages are equal to it.
 */
#include "guesttest.h"
#include "ksm.h"
#include "pipepin.h"
#include "uring.h"

static void run(void)
{
	bool by_ring = !strcmp(gt_param("pin"), "iouring");
	size_t page = page_size();
	char *pinned = page_map(2, PIPEPIN_OLD), *control, seen[PIPEPIN_SLICE];
	struct uring ring;
	uint64_t before = page_frame(pinned);
	int spliced[2];

	ksm_start();
	if (by_ring) {
		uring_open(&ring);
		uring_register_buffer(&ring, pinned, page);
	} else {
		gt_need(pipepin_splice(spliced, pinned), "vmsplice");
	}
	ksm_offer(pinned, 2);
	control = ksm_map_pair('k');	/* offered later, merged: ksmd has looked at the others too */
	ksm_wait_scans(3);
	gt_need(ksm_is_merged(control, control + page), "the control is still merged");
	gt_check(page_frame(pinned) == before && page_frame(pinned + page) != before, "a pinned page is not merged");
	if (by_ring) {
		uring_check_sends_new(&ring, pinned, page);
		gt_pass("ksmd merged the unpinned pages; the ring sends the data that the program wrote");
	}
	page_touch(pinned, 'n');
	memset(pinned, 'n', sizeof(seen));
	gt_need(read(spliced[0], seen, sizeof(seen)) == sizeof(seen), "reading the spliced page");
	gt_check_bytes(pinned, seen, sizeof(seen), "bytes in the pipe, compared with the page");
	gt_pass("ksmd merged the unpinned pages; the pipe holds the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "ksmd does not merge a pinned page",
	.contract      = "C-SYNC",
	.mechanism     = "write_protect_page() in ksmd must reject a page with references it cannot account for",
	.changelog     = "18 25",
	.needs_kconfig = "KSM=y IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "pin: iouring vmsplice",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a ring or pipe loses coherency with the memory it was given",
	.run           = run,
};
