// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim discards a lazyfree page (MADV_FREE) only until it is written again. The write sets the dirty bit
 * of the page table entry and takes no fault, so it is up to reclaim to look for that bit. A second lazyfree
 * page that is not written shows that reclaim discards such pages here.
 */
#include "guesttest.h"
#include "pattern.h"
#include "swap.h"
#include "thp.h"

static size_t length;

static char *map_lazyfree(void)
{
	char *map = strcmp(gt_param("page"), "thp") ? page_map((length = page_size()) / page_size(), 'o') :
						      page_map_thp(&length, 'o');

	page_free_lazily(map, length / page_size());
	return map;
}

/* The kernel writes, on behalf of read(), or the program does. */
static void write_page(char *page, const char *text)
{
	int file;

	if (strcmp(gt_param("by"), "read")) {
		memcpy(page, text, page_size());
		return;
	}
	file = memfd_create("text", MFD_CLOEXEC);
	gt_need(file >= 0 && write(file, text, page_size()) == (ssize_t)page_size(), "a file in memory");
	gt_need(pread(file, page, page_size(), 0) == (ssize_t)page_size(), "reading into the page");
	close(file);
}

static void reclaim(char *map)
{
	if (madvise(map, length, MADV_PAGEOUT)) {
		if (errno == EINVAL)
			gt_skip("the kernel has no MADV_PAGEOUT");
		gt_broken("MADV_PAGEOUT: %s", strerror(errno));
	}
	page_drain_vectors();
}

/* A page of a THP that was not written itself may have been discarded or not. */
static void check_others(const char *map, const char *written)
{
	size_t page = page_size();
	char *old = page_map(1, 'o'), *zero = page_map(1, 0);

	for (const char *at = map; at < map + length; at += page)
		if (at != written && memcmp(at, zero, page))
			pattern_check(old, at, page, "a page beside the written one, neither discarded nor as before");
}

static void run(void)
{
	size_t page = page_size();
	char *map, *control, *written, *text, *zero = page_map(1, 0);

	page_stay_on_cpu();
	text = page_map(1, 0);
	pattern_write(text, page, pattern_new_salt());
	map = map_lazyfree();
	control = map_lazyfree();
	written = map + length / page / 2 * page;
	write_page(written, text);
	for (int i = 0; i < 200 && page_entry(control) & PAGE_PRESENT; i++) {
		reclaim(map);
		reclaim(control);
	}
	gt_need(!(page_entry(control) & PAGE_PRESENT), "a lazyfree page that was not written is discarded");
	pattern_check(zero, control, page, "the discarded page");
	/* Once it is known to be in use it goes to swap, where there is any. */
	for (int i = 0; i < 20 && page_entry(written) & PAGE_PRESENT; i++)
		reclaim(map);
	gt_note("the written page %s", page_entry(written) & PAGE_PRESENT ? "is still mapped" : "is unmapped");
	pattern_check(text, written, page, "the page written after MADV_FREE");
	check_others(map, written);
	gt_pass("reclaim discarded the page that was not written, and kept the other");
}

GUEST_TEST = {
	.summary       = "a page written after MADV_FREE survives reclaim",
	.contract      = "C-LIVE",
	.mechanism     = "try_to_unmap() discards a lazyfree page without checking whether it is dirty",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "page: small thp; by: write read",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "zeroes in memory that was written",
	.run           = run,
};
