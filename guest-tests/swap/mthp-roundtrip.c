// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A folio of 16 pages goes to swap as a whole, and its pages come back by writes, from the middle on. A child has all
 * of it, half of it or none: what is exclusive is said of each page, not of the folio. Each side sees what it wrote.
 */
#include "guesttest.h"
#include "memcg.h"
#include "mthp.h"
#include "partner.h"
#include "pattern.h"
#include "swap.h"

enum { FOLIO = 16, SALT_BEFORE = 1, SALT_PARENT, SALT_CHILD };

static char *map;
static size_t length;

/* Of both ways to leave: by itself, or compressed by zswap. */
static unsigned long count(const char *way)
{
	char path[128], text[32];

	snprintf(path, sizeof(path), PAGE_THP_DIR "hugepages-%zukB/stats/%s", length >> 10, way);
	page_read_file(path, text, sizeof(text));
	return strtoul(text, NULL, 10);
}

static unsigned long count_out(void)
{
	return count("swpout") + count("zswpout");
}

/* A child that has the folio from this offset on. */
static void watch(struct partner *parent, size_t from, const char *before)
{
	partner_wake(parent);
	partner_wait(parent);
	pattern_check(before + from, map + from, length - from, "the child's pages after the parent's writes");
	pattern_write(map + from, length - from, SALT_CHILD);
	partner_wake(parent);
	partner_end(parent);
}

static void share(struct partner *child, const char *before)
{
	size_t from = !strcmp(gt_param("shared"), "half") ? length / 2 : 0;

	if (!strcmp(gt_param("shared"), "none"))
		return;
	if (from)
		gt_need(!madvise(map, from, MADV_DONTFORK), "MADV_DONTFORK");
	if (partner_fork(child))
		watch(child, from, before);
	partner_wait(child);
	if (from)
		gt_need(!madvise(map, from, MADV_DOFORK), "MADV_DOFORK");
}

static void run(void)
{
	struct partner child = { 0 };
	char *before, *after;
	unsigned long was_out, was_in;

	swap_need();
	memcg_enter();
	page_stay_on_cpu();
	map = mthp_map(&length, FOLIO * page_size());
	before = pattern_fill(map, length, SALT_BEFORE);
	after = page_map(FOLIO, 0);
	pattern_write(after, length, SALT_PARENT);
	was_out = count_out();
	share(&child, before);
	gt_need(memcg_reclaim(map, FOLIO), "all pages are swapped out");
	if (count_out() == was_out)
		gt_skip("the kernel splits a folio of %zu KiB before it swaps it out", length >> 10);
	was_in = count("swpin");
	/* By writes, of what is there: a read would map the page write-protected. Not the folio's first page first. */
	for (size_t i = 0; i < FOLIO; i++) {
		size_t at = (i + FOLIO / 2 + 1) % FOLIO * page_size();

		*(volatile char *)(map + at) = before[at];
	}
	gt_note("%lu folios were swapped in as a whole", count("swpin") - was_in);
	pattern_check(before, map, length, "the parent's pages after they were swapped in");
	pattern_write(map, length, SALT_PARENT);
	if (child.pid) {
		partner_wake(&child);
		partner_wait(&child);
		partner_end(&child);
	}
	pattern_check(after, map, length, "the parent's pages after the child's writes");
	gt_pass("both sides have what they wrote");
}

GUEST_TEST = {
	.summary       = "a folio that was swapped out as a whole is shared page by page",
	.contract      = "C-ISO",
	.mechanism     = "do_swap_page() takes what is said of one page of a folio for all of it",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y SWAP=y MEMCG=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.10",
	.needs_root    = true,
	.params        = "shared: none half all",
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a child that sees what its parent wrote later, or lost data",
	.run           = run,
};
