// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One large folio of which a child has the second half only: half of its page table entries are exclusive
 * and writable, and half are shared. Whatever the kernel does to all of them at once must not give the
 * shared ones what the first one may do.
 */
#include "collapse.h"
#include "guesttest.h"
#include "memcg.h"
#include "migrating.h"
#include "numa.h"
#include "pagekind.h"
#include "partner.h"
#include "pattern.h"

enum { SALT_BEFORE = 1, SALT_PARENT, SALT_CHILD, LIMIT_MS = 20000 };

static char *map;
static size_t length, pages;

static char *page_at(size_t page)
{
	return map + page * page_size();
}

/* Half of it is for the child as well. */
static void map_folio(const char *kind)
{
	map = pagekind_map(kind, 0, &length);
	pages = length / page_size();
	pattern_write(map, length, SALT_BEFORE);
	gt_need(!madvise(map, length / 2, MADV_DONTFORK), "MADV_DONTFORK");
}

static void split(void)
{
	char range[96];

	snprintf(range, sizeof(range), "%d,0x%lx,0x%lx", getpid(), (unsigned long)map, (unsigned long)map + length);
	if (!page_write_file("/sys/kernel/debug/split_huge_pages", range))
		gt_skip("huge pages cannot be split by debugfs: %s", strerror(errno));
	for (size_t page = 0; page < pages; page++)
		gt_need(!page_is(page_at(page), PAGE_IN_THP), "page %zu is a small page", page);
}

/* All at once, the pages that the child has too. */
static void migrate(void)
{
	void *addresses[512];
	int nodes[512], status[512], other;
	size_t count = pages < 512 ? pages : 512;

	if (access("/sys/devices/system/node/node1", F_OK))
		gt_skip("the guest has one NUMA node");
	other = !numa_node_of(map);
	page_drain_vectors();
	for (size_t page = 0; page < count; page++) {
		addresses[page] = page_at(page);
		nodes[page] = other;
	}
	/* the first page takes the whole folio with it, and the others are then said to be busy */
	gt_need(syscall(SYS_move_pages, getpid(), count, addresses, nodes, status, 1 << 2 /* MPOL_MF_MOVE_ALL */) >= 0,
		"move_pages");
	for (size_t page = 0; page < count; page++)
		gt_need(numa_node_of(page_at(page)) == other, "page %zu is on node %d", page, other);
}

static void move(void)
{
	char *target = page_find_room(length, length);

	gt_need(mremap(map, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	map = target;
}

/* Returns whether the parent's pages have their content still. */
static bool act(const char *verb)
{
	if (!strcmp(verb, "mprotect")) {
		page_mprotect_cycle(map, length);
	} else if (!strcmp(verb, "mremap")) {
		move();
	} else if (!strcmp(verb, "pageout")) {
		gt_need(memcg_reclaim(map, pages), "all pages are swapped out");
	} else if (!strcmp(verb, "lazyfree")) {
		gt_need(!madvise(map, length, MADV_FREE), "MADV_FREE");
		/* One page is in use again: it keeps the folio from being dropped as a whole. */
		page_at(pages - 1)[0] = 1;
		gt_note("the folio is %slazyfree", page_is(map, PAGE_SWAPBACKED) ? "not " : "");
		memcg_reclaim(map, pages);
		gt_need(memcg_reclaim(page_map(1, 'c'), 1), "reclaim takes another page");
		return false;
	} else if (!strcmp(verb, "split")) {
		split();
	} else if (!strcmp(verb, "migrate")) {
		migrate();
	} else if (!strcmp(verb, "collapse")) {
		if (!collapse_try(map, length, map, LIMIT_MS))
			gt_skip("the kernel makes no huge page of it");
	} else {
		gt_need(!strcmp(verb, "none"), "an operation named %s", verb);
	}
	return true;
}

/* A child, of the second half or of all, that sees none of what the parent writes. */
static void watch(struct partner *parent, size_t from, const char *expected, const char *who)
{
	partner_wake(parent);
	partner_wait(parent);
	pattern_check(expected + from, map + from, length - from, who);
	pattern_write(map + from, length - from, SALT_CHILD);
	partner_wake(parent);
	partner_wait(parent);
	partner_end(parent);
}

static void run(void)
{
	const char *verb = gt_param("verb"), *kind = gt_param("page");
	struct partner half = { 0 }, whole = { 0 };
	bool keeps_content, needs_reclaim = !strcmp(verb, "pageout") || !strcmp(verb, "lazyfree");
	char *before, *by_parent;

	if (needs_reclaim) {
		swap_need();
		memcg_enter();
	}
	page_stay_on_cpu();
	map_folio(kind);
	before = pattern_fill(page_map(pages, 0), length, SALT_BEFORE);
	by_parent = pattern_fill(page_map(pages, 0), length, SALT_PARENT);
	if (partner_fork(&half))
		watch(&half, length / 2, before, "the first child's half after the parent's writes");
	partner_wait(&half);
	gt_need(!madvise(map, length / 2, MADV_DOFORK), "MADV_DOFORK");
	keeps_content = act(verb);
	if (keeps_content)
		pattern_check(before, map, length, "the parent's pages after the operation");
	else
		pattern_write(map, length, SALT_BEFORE);
	if (partner_fork(&whole))
		watch(&whole, 0, before, "the second child's pages after the parent's writes");
	partner_wait(&whole);
	pattern_write(map, length, SALT_PARENT);
	partner_wake(&half);
	partner_wait(&half);
	partner_wake(&whole);
	partner_wait(&whole);
	pattern_check(by_parent, map, length, "the parent's pages after the children's writes");
	partner_wake(&half);
	partner_end(&half);
	partner_wake(&whole);
	partner_end(&whole);
	gt_pass("all three have their own pages");
}

GUEST_TEST = {
	.summary       = "a folio that is half exclusive and half shared stays so, whatever is done to all of it",
	.contract      = "C-ISO",
	.mechanism     = "a batch of page table entries gets the write bit or the exclusiveness of its first one",
	.fixes         = "29f40594a281",
	.cve           = "CVE-2026-31398",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "verb: none mprotect mremap pageout lazyfree split migrate collapse; page: thp-ptes mthp",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "bytes that another process has written",
	.run           = run,
};
