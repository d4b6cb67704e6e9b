// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory of the movable zone can be taken offline at any time. A buffer that is registered with an io_uring is
 * pinned for as long as the ring lives: its pages must leave the zone before, and with their content.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "pattern.h"
#include "uring.h"

static bool is_movable(uint64_t frame)
{
	unsigned long long spanned = 0, start;
	char line[256], zone[32] = "";
	bool found = false;
	FILE *zones = fopen("/proc/zoneinfo", "re");

	gt_need(zones, "reading /proc/zoneinfo");
	while (fgets(line, sizeof(line), zones)) {
		sscanf(line, "Node %*d, zone %31s", zone);
		sscanf(line, " spanned %llu", &spanned);
		if (sscanf(line, " start_pfn: %llu", &start) == 1 && !strcmp(zone, "Movable"))
			found |= frame >= start && frame - start < spanned;
	}
	fclose(zones);
	return found;
}

static void run(void)
{
	size_t length, moved = 0;
	char *buffer = pagekind_map(gt_param("page"), 2, &length), *copy = pattern_fill(buffer, length, 1);
	struct uring ring;

	for (size_t at = 0; at < length; at += page_size())
		moved += is_movable(page_frame(buffer + at));
	if (!moved)
		gt_skip("no page of the buffer is in a movable zone (kernel parameter movablecore=)");
	uring_open(&ring);
	uring_register_buffer(&ring, buffer, length);
	for (size_t at = 0; at < length; at += page_size())
		gt_check(!is_movable(page_frame(buffer + at)), "page %zu of the buffer has left the movable zone",
			 at / page_size());
	pattern_check(copy, buffer, length, "the buffer after its registration");
	uring_check_sends(&ring, buffer, page_size());
	uring_check_sends_new(&ring, buffer, page_size());
	gt_pass("%zu pages left the movable zone and took their content with them", moved);
}

GUEST_TEST = {
	.summary       = "a page that is pinned for long leaves the zone whose pages must stay movable",
	.contract      = "C-SYNC",
	.mechanism     = "FOLL_LONGTERM pins a page where it is, or pins the old page after the content has moved",
	.fixes         = "d1e153fea2a8",
	.needs_kconfig = "IO_URING=y MIGRATION=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "page: small shmem mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "memory that cannot go offline, or a ring that sends the bytes of a page that nobody maps",
	.run           = run,
};
