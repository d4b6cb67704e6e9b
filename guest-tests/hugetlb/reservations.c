// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A mapping reserves its hugetlb pages, and each page that is touched uses up one reservation. Whatever ends
 * the mapping, what is left is given back, and no more: a reservation too few lets another process die by
 * SIGBUS, and one too many is a page that nobody can have.
 */
#include "guesttest.h"
#include "hugetlb.h"

enum { PAGES = 3, POOL = 5 };

static size_t size;

static char *map_pages(void)
{
	int kind = strcmp(gt_param("map"), "shared") ? MAP_PRIVATE : MAP_SHARED;
	char *map = mmap(NULL, PAGES * size, PROT_READ | PROT_WRITE,
			 kind | MAP_ANONYMOUS | MAP_HUGETLB | __builtin_ctzl(size) << MAP_HUGE_SHIFT, -1, 0);

	gt_need(map != MAP_FAILED, "mmap of %d huge pages", PAGES);
	return map;
}

static void touch(char *map, int pages)
{
	for (int i = 0; i < pages; i++)
		map[i * size] = 1;
}

/* The mapping is that of a child, which exits. */
static void use_in_child(int touched)
{
	pid_t child = gt_fork();

	if (!child) {
		touch(map_pages(), touched);
		_exit(0);
	}
	gt_reap(child);
}

/* A child has copies of the pages, without a reservation, and may leave after its parent has unmapped them. */
static void end(char *map, int touched, const char *how)
{
	pid_t child;

	if (!strcmp(how, "fork")) {
		child = gt_fork();
		if (!child) {
			touch(map, touched ? 1 : 0);
			_exit(0);
		}
		gt_reap(child);
	}
	if (!strcmp(how, "parts")) {
		for (int i = PAGES - 1; i >= 0; i--)
			gt_need(!munmap(map + i * size, size), "munmap of a part");
	} else {
		gt_need(!munmap(map, PAGES * size), "munmap");
	}
}

static void run(void)
{
	const char *how = gt_param("end");
	int touched = atoi(gt_param("touched"));
	unsigned long long reserved, free;
	char *map;

	size = hugetlb_usual_size();
	hugetlb_make_pool(size, POOL);
	reserved = hugetlb_count(size, -1, "resv_hugepages");
	free = hugetlb_count(size, -1, "free_hugepages");
	if (free < POOL)
		gt_skip("of %d huge pages, only %llu are free", POOL, free);
	if (!strcmp(how, "exit")) {
		use_in_child(touched);
	} else {
		map = map_pages();
		hugetlb_check(size, "resv_hugepages", reserved + PAGES, "once they are mapped");
		touch(map, touched);
		hugetlb_check(size, "resv_hugepages", reserved + PAGES - touched, "once some are touched");
		hugetlb_check(size, "free_hugepages", free - touched, "once some are touched");
		end(map, touched, how);
	}
	hugetlb_check(size, "resv_hugepages", reserved, "in the end");
	hugetlb_check(size, "free_hugepages", free, "in the end");
	gt_pass("%d of %d pages touched, and all is as before", touched, PAGES);
}

GUEST_TEST = {
	.summary       = "hugetlb reservations and pages are given back when their mapping ends",
	.contract      = "C-LIVE",
	.mechanism     = "the reservations that a mapping has used up are counted wrongly when it ends",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.9",
	.params        = "map: private shared; touched: 0 1 3; end: munmap parts exit fork",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a counter of the pool that is not what it was",
	.run           = run,
};
