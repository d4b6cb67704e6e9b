// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mremap() of hugetlb memory steps over what has no page table. The steps of source and target must stay the
 * same where the two are aligned differently: else pages land at wrong addresses, as their data does.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "thp.h"

enum { GIB = 1 << 30, OFF = 512 << 20 };	/* of a table of entries of 2 MiB, and half of it */

static size_t size;

static char *map_hole(char *room)
{
	char *map = mmap(room, 2UL * GIB, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED | MAP_HUGETLB |
			 __builtin_ctzl(size) << MAP_HUGE_SHIFT, -1, 0);

	gt_need(map != MAP_FAILED, "mmap of 2 GiB of hugetlb memory");
	return map;
}

static size_t find_page(const char *map)
{
	for (size_t at = 0; at < 2UL * GIB; at += size)
		if (page_entry(map + at) & PAGE_PRESENT)
			return at;
	return SIZE_MAX;
}

static void run(void)
{
	size_t at = atoi(gt_param("page")) * (size_t)(GIB / 2), found;
	char *map, *target;

	size = 2 << 20;
	if (page_size() * 512 != size)
		gt_skip("the holes of this test are page tables for 4 KiB pages");
	hugetlb_make_pool(size, 2);
	map = map_hole(page_find_room(2UL * GIB, GIB));
	target = page_find_room(3UL * GIB, GIB) + OFF;
	map[at] = 'm';
	gt_need(find_page(map) == at, "one page at offset %zu MiB", at >> 20);
	if (mremap(map, 2UL * GIB, 2UL * GIB, MREMAP_MAYMOVE | MREMAP_FIXED, target) != target) {
		gt_need(errno == EINVAL, "mremap");
		gt_skip("the kernel does not move hugetlb memory");
	}
	found = find_page(target);
	gt_check(found != SIZE_MAX, "the page is somewhere after mremap()");
	gt_check(found == at, "the page is at offset %zu MiB, not %zu MiB", at >> 20, found >> 20);
	gt_check(target[at] == 'm', "the page has its data");
	gt_pass("the page is at the same offset");
}

GUEST_TEST = {
	.summary       = "mremap() of hugetlb memory with holes keeps each page at its offset",
	.contract      = "C-DATA",
	.mechanism     = "the step over an absent page table rounds source and target up separately",
	.fixes         = "9bdad082d44b",
	.cve           = "CVE-2026-98373",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.16",
	.params        = "page: 0 1 2 3",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "a page at another offset, or none",
	.run           = run,
};
