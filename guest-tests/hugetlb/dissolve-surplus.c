// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A free hugetlb page goes offline while its node has a surplus page in use. The pool keeps its size then:
 * the surplus page becomes one of the pool. A pool that shrinks instead has lost a page for good, once the
 * surplus page is freed.
 *
 * A free page beside a surplus one needs two nodes: the surplus page is allocated while the free page is
 * reserved, and the reservation is then used up on the other node.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pagekind.h"
#include <sys/syscall.h>

enum { MPOL_DEFAULT_NODES = 0, MPOL_BIND_NODES = 2, NODES = 2 };

static size_t size;
static char overcommit[96], overcommit_before[32];

static void give_back(void)
{
	page_write_file(overcommit, overcommit_before);
}

static void bind(int node)
{
	unsigned long mask = 1UL << node;

	gt_need(!syscall(SYS_set_mempolicy, MPOL_BIND_NODES, &mask, 8 * sizeof(mask)), "memory of node %d", node);
}

static char *map_page(int flags)
{
	char *map = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | __builtin_ctzl(size) << MAP_HUGE_SHIFT | flags,
			 -1, 0);

	gt_need(map != MAP_FAILED, "mmap of a huge page");
	return map;
}

static void touch(char *map, int node)
{
	bind(node);
	*(volatile char *)map = 1;
	/* a reservation counts only the nodes that the policy allows */
	gt_need(!syscall(SYS_set_mempolicy, MPOL_DEFAULT_NODES, NULL, 0UL), "memory of any node");
}

static int count(const char *name)
{
	return hugetlb_count(size, -1, name);
}

/* One page on each node. */
static void make_pool(void)
{
	char path[128];

	hugetlb_make_pool(size, NODES);
	for (int node = 0; node < NODES; node++) {
		snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/nr_hugepages",
			 node, size >> 10);
		if (access(path, F_OK))
			gt_skip("the guest has one NUMA node");
		gt_need(page_write_file(path, "1"), "setting %s", path);
	}
	pagekind_wait_for_pool(size, NODES);
	for (int node = 0; node < NODES; node++)
		if (hugetlb_count(size, node, "free_hugepages") != 1)
			gt_skip("node %d has no free huge page", node);
	snprintf(overcommit, sizeof(overcommit),
		 "/sys/kernel/mm/hugepages/hugepages-%zukB/nr_overcommit_hugepages", size >> 10);
	page_read_file(overcommit, overcommit_before, sizeof(overcommit_before));
	gt_at_end(give_back);
	gt_need(page_write_file(overcommit, "1"), "setting %s", overcommit);
}

/* The physical address of the pool's page on this node. */
static uint64_t find_address(int node)
{
	char *map = map_page(0);
	uint64_t frame;

	touch(map, node);
	frame = page_frame(map);
	munmap(map, size);
	pagekind_wait_for_pool(size, NODES);
	return frame * page_size();
}

static void run(void)
{
	char *used, *reserved, *surplus, text[32];
	uint64_t address;

	size = hugetlb_usual_size();
	if (access("/sys/devices/system/memory/soft_offline_page", F_OK))
		gt_skip("memory cannot go offline page by page");
	make_pool();
	address = find_address(1);
	used = map_page(0);
	touch(used, 0);
	reserved = map_page(0);
	surplus = map_page(MAP_NORESERVE);
	touch(surplus, 1);
	gt_need(hugetlb_count(size, 1, "surplus_hugepages") == 1, "node 1 has a surplus page");
	munmap(used, size);
	for (int i = 0; i < 2000 && !hugetlb_count(size, 0, "free_hugepages"); i++)
		usleep(1000);
	touch(reserved, 0);
	gt_need(count("free_hugepages") == 1 && hugetlb_count(size, 1, "free_hugepages") == 1 && !count("resv_hugepages"),
		"the page of node 1 is free and not reserved");
	snprintf(text, sizeof(text), "0x%llx", (unsigned long long)address);
	gt_need(page_write_file("/sys/devices/system/memory/soft_offline_page", text), "taking the free page offline");
	gt_need(count("nr_hugepages") == 2 && !count("free_hugepages"), "two pages in use are left");
	gt_check(!count("surplus_hugepages"), "no surplus page is left, as one of the pool is gone: %d",
		 count("surplus_hugepages"));
	munmap(surplus, size);
	for (int i = 0; i < 2000 && !count("free_hugepages") && count("nr_hugepages") == 2; i++)
		usleep(1000);
	gt_check(count("nr_hugepages") == 2, "the pool has 2 pages, not %d", count("nr_hugepages"));
	gt_pass("the surplus page has taken the place of the one that went offline");
}

GUEST_TEST = {
	.summary       = "a hugetlb page that goes offline is replaced by a surplus page",
	.contract      = "C-ACCT",
	.mechanism     = "dissolving a free page shrinks the pool although its node has a surplus page",
	.needs_kconfig = "HUGETLBFS=y MEMORY_FAILURE=y NUMA=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.0",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "a surplus count that stays, and a pool that has shrunk",
	.run           = run,
};
