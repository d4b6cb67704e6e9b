// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * khugepaged makes folios of 16 pages, in a range that also has pages which it must leave alone: those that a
 * ring has registered, that a child has too, that userfaultfd write-protects, or that are guard pages. A range
 * behind it shows that khugepaged came by and can make such a folio.
 */
#include "collapse.h"
#include "guard.h"
#include "guesttest.h"
#include "pagestate.h"
#include "partner.h"
#include "pattern.h"
#include "thp.h"
#include "uffd.h"
#include "uring.h"

enum { LIMIT_MS = 15000, FOLIO = 16, OBSTACLE = 2 * FOLIO + 5, SALT_BEFORE = 1, SALT_AFTER, SALT_CHILD };

static char each[96], huge[96], each_before[16], huge_before[16], *map, *page;
static size_t length, half;	/* of both ranges, and of one */

static bool is_state(const char *name)
{
	return !strcmp(gt_param("state"), name);
}

static void give_back(void)
{
	page_write_file(each, each_before);
	page_write_file(huge, huge_before);
}

/* Of all sizes only folios of 16 pages: a huge page of all would hide what is done with a part. */
static void choose_size(void)
{
	half = page_thp_size();
	length = 2 * half;
	snprintf(each, sizeof(each), PAGE_THP_DIR "hugepages-%zukB/enabled", FOLIO * page_size() >> 10);
	snprintf(huge, sizeof(huge), PAGE_THP_DIR "hugepages-%zukB/enabled", half >> 10);
	if (access(each, F_OK) || access(huge, F_OK))
		gt_skip("the kernel has no folios of %zu KiB", FOLIO * page_size() >> 10);
	page_read_chosen(each, each_before, sizeof(each_before));
	page_read_chosen(huge, huge_before, sizeof(huge_before));
	gt_at_end(give_back);
	gt_need(page_write_file(huge, "never") && page_write_file(each, "madvise"), "setting %s", huge);
}

static void map_small_pages(void)
{
	map = mmap(page_find_room(length, half), length, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(map != MAP_FAILED && !madvise(map, length, MADV_NOHUGEPAGE), "mmap of %zu bytes", length);
	page = map + OBSTACLE * page_size();
	pattern_write(map, length, SALT_BEFORE);
	page_settle(map + length - page_size());
}

static bool has_folio(const char *start)
{
	return page_entry(start) & PAGE_PRESENT && page_is(start, PAGE_IN_THP);
}

static void watch(struct partner *parent, const char *before)
{
	partner_wake(parent);
	partner_wait(parent);
	pattern_check(before, page, page_size(), "the child's page after the parent's writes");
	pattern_write(page, page_size(), SALT_CHILD);
	partner_wake(parent);
	partner_end(parent);
}

static void run(void)
{
	char *before, *after, *own;
	struct partner child = { 0 };
	struct uring ring;
	int watched = -1;

	page_stay_on_cpu();
	choose_size();
	before = page_map(length / page_size(), 0);
	after = page_map(length / page_size(), 0);
	pattern_write(before, length, SALT_BEFORE);
	pattern_write(after, length, SALT_AFTER);
	map_small_pages();
	own = before + OBSTACLE * page_size();
	if (is_state("pinned")) {
		uring_open(&ring);
		uring_register_buffer(&ring, page, page_size());
	} else if (is_state("shared")) {
		/* Only this page is shared. */
		gt_need(!madvise(map, length, MADV_DONTFORK) && !madvise(page, page_size(), MADV_DOFORK), "MADV_DONTFORK");
		if (partner_fork(&child))
			watch(&child, own);
		partner_wait(&child);
		gt_need(!madvise(map, length, MADV_DOFORK), "MADV_DOFORK");
	} else if (is_state("uffd-wp")) {
		watched = uffd_open_with(UFFD_FEATURE_PAGEFAULT_FLAG_WP);
		uffd_register(watched, map, length, UFFDIO_REGISTER_MODE_WP);
		uffd_write_protect(watched, page, page_size(), true);
	} else if (is_state("guard")) {
		guard_install(page, page_size());
	}
	gt_need(!has_folio(map + half) && !madvise(map, length, MADV_HUGEPAGE), "MADV_HUGEPAGE for small pages");
	if (!collapse_wait(has_folio, map + half, LIMIT_MS))
		gt_skip("khugepaged makes no folios of %zu KiB", FOLIO * page_size() >> 10);
	gt_note("the block with the page %s a folio", has_folio(page - 5 * page_size()) ? "became" : "did not become");
	if (is_state("pinned"))
		uring_check_sends_new(&ring, page, page_size());
	if (is_state("uffd-wp"))
		gt_check(uffd_stops_write(watched, page), "a write to the protected page is reported");
	if (is_state("guard")) {
		guard_check(page, page_size(), "after khugepaged was there");
		gt_need(!madvise(page, page_size(), MADV_GUARD_REMOVE), "MADV_GUARD_REMOVE");
	}
	if (!is_state("free") && !is_state("shared"))
		memcpy(page, own, page_size());
	pattern_check(before, map, length, "the pages after khugepaged was there");
	pattern_write(map, length, SALT_AFTER);
	if (is_state("shared")) {
		partner_wake(&child);
		partner_wait(&child);
		partner_end(&child);
	}
	pattern_check(after, map, length, "the pages after they were written");
	gt_pass("the pages of the range have their content, and what was %s is so still", gt_param("state"));
}

GUEST_TEST = {
	.summary       = "khugepaged makes folios of some pages, and leaves others alone",
	.contract      = "C-SYNC",
	.mechanism     = "collapse to a folio smaller than a huge page takes pages that are pinned, shared or marked",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.8",
	.needs_root    = true,
	.params        = "state: free pinned shared uffd-wp guard",
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "wrong bytes, a write that is not reported, or a guard page that is gone",
	.run           = run,
};
