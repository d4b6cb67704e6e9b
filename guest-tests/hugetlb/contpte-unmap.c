// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Some architectures map a hugetlb page by contiguous PTEs. Clearing them must stop at the last
 * one: the next entry belongs to another page table.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include <dirent.h>

/* A huge page smaller than what one entry of the next level maps, or 0. */
static size_t find_contiguous_size(void)
{
	size_t whole = page_size() * (page_size() / sizeof(long)), size, found = 0;
	DIR *sizes = opendir("/sys/kernel/mm/hugepages");

	for (struct dirent *entry; sizes && (entry = readdir(sizes)); )
		if (sscanf(entry->d_name, "hugepages-%zukB", &size) == 1 && size << 10 < whole)
			found = size << 10;
	return found;
}

static void run(void)
{
	size_t length = find_contiguous_size();
	char *map;

	if (!length)
		gt_skip("this architecture has no hugetlb pages made of contiguous PTEs");
	hugetlb_make_pool(length, 2);
	for (int i = 0; i < 8; i++) {
		map = hugetlb_map(length, i + 1);
		gt_check(map[page_size() - 1] == i + 1 && !map[length - 1], "the contents of the hugetlb page");
		gt_need(!munmap(map, length), "munmap");
	}
	gt_pass("8 huge pages of %zu KiB mapped, written and unmapped", length >> 10);
}

GUEST_TEST = {
	.summary       = "a hugetlb page made of contiguous PTEs can be unmapped",
	.contract      = "C-LIVE",
	.mechanism     = "clearing the contiguous PTEs compares each with the first, or runs past the last one",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.9",
	.needs_root    = true,
	.may_crash     = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "VM_BUG_ON in munmap() of a hugetlb page, on arm64 with 64 KiB pages",
	.run           = run,
};
