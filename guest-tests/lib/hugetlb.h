/* SPDX-License-Identifier: GPL-2.0-or-later */
/* hugetlb pages from a pool that is set up for the test and restored at its end. */
#ifndef HUGETLB_H
#define HUGETLB_H
#include "guesttest.h"
#include "pagestate.h"

#ifndef MAP_HUGE_SHIFT
#define MAP_HUGE_SHIFT 26
#endif

static char hugetlb_pool[80], hugetlb_before[32];

static inline void hugetlb_give_back(void)
{
	page_write_file(hugetlb_pool, hugetlb_before);
}

static inline bool hugetlb_has(size_t size)
{
	snprintf(hugetlb_pool, sizeof(hugetlb_pool), "/sys/kernel/mm/hugepages/hugepages-%zukB/nr_hugepages",
		 size >> 10);
	return !access(hugetlb_pool, F_OK);
}

/* 2 MiB where there is such a size, else the default one. */
static inline size_t hugetlb_usual_size(void)
{
	char text[8192], *line;

	if (hugetlb_has(2 << 20))
		return 2 << 20;
	page_read_file("/proc/meminfo", text, sizeof(text));
	line = strstr(text, "Hugepagesize:");
	if (!line)
		gt_skip("the kernel has no hugetlbfs");
	return strtoul(line + strlen("Hugepagesize:"), NULL, 10) << 10;
}

/* A counter of the pool, such as free_hugepages; of one node, or of all if it is negative. */
static inline unsigned long long hugetlb_count(size_t size, int node, const char *name)
{
	char path[160], text[32], where[64] = "/sys/kernel/mm";

	if (node >= 0)
		snprintf(where, sizeof(where), "/sys/devices/system/node/node%d", node);
	snprintf(path, sizeof(path), "%s/hugepages/hugepages-%zukB/%s", where, size >> 10, name);
	page_read_file(path, text, sizeof(text));
	return strtoull(text, NULL, 10);
}

enum { HUGETLB_WAIT_MS = 2000 };

/* Pages may be freed late, by another thread of the kernel. Returns whether the counter of all nodes is so. */
static inline bool hugetlb_becomes(size_t size, const char *name, unsigned long long expected)
{
	for (int i = 0; i < HUGETLB_WAIT_MS && hugetlb_count(size, -1, name) != expected; i++)
		usleep(1000);
	return hugetlb_count(size, -1, name) == expected;
}

static inline void hugetlb_check(size_t size, const char *name, unsigned long long expected, const char *when)
{
	gt_check(hugetlb_becomes(size, name, expected), "%s is %llu, not %llu, %s", name, expected,
		 hugetlb_count(size, -1, name), when);
}

/*
 * Sets the pool to exactly this many free pages of this size. A pool that was filled at boot, as for
 * gigantic pages, is not changed.
 */
static inline void hugetlb_make_pool(size_t size, int pages)
{
	char text[32];

	if (!hugetlb_has(size))
		gt_skip("no huge pages of %zu MiB here", size >> 20);
	page_read_file(hugetlb_pool, hugetlb_before, sizeof(hugetlb_before));
	gt_at_end(hugetlb_give_back);
	snprintf(text, sizeof(text), "%d", pages);
	if (atoi(hugetlb_before) != pages)
		gt_need(page_write_file(hugetlb_pool, text), "setting %s", hugetlb_pool);
	page_read_file(hugetlb_pool, text, sizeof(text));
	if (atoi(text) != pages)
		gt_skip("of %d huge pages of %zu MiB, only %d could be allocated", pages, size >> 20, atoi(text));
}

/* Maps one private hugetlb page and fills its first small page; the rest of the pool is left for copies. */
static inline char *hugetlb_map(size_t size, int fill)
{
	int order = __builtin_ctzl(size);
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | order << MAP_HUGE_SHIFT, -1, 0);

	gt_need(map != MAP_FAILED, "mmap of a huge page of %zu MiB", size >> 20);
	memset(map, fill, page_size());
	gt_need(page_is(map, PAGE_HUGE), "no hugetlb page was allocated");
	return map;
}
#endif
