// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * NUMA balancing takes away access to pages, and gives it back in the fault that follows: the access of before, not
 * all that the mapping allows. A page of a file in a private mapping stays write-protected, or the next write
 * changes the file. The write comes after each page was read and had such a fault.
 */
#include "numa.h"
#include <sys/mman.h>
#include <time.h>

enum { PAGES = 32, SECONDS = 8 };

static char *map_file(int *fd)
{
	char name[] = "hint-private.XXXXXX", *map;
	size_t length = PAGES * page_size();

	*fd = mkstemp(name);
	gt_need(*fd >= 0 && !unlink(name), "a file in the current directory");
	map = page_map(PAGES, 'o');
	gt_need(write(*fd, map, length) == (ssize_t)length && !fsync(*fd), "writing the file");
	munmap(map, length);
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, *fd, 0);
	gt_need(map != MAP_FAILED, "mapping the file");
	return map;
}

/* The pages, of those that have had none, in which reading takes a fault; all pages are there. */
static int count_hinted(const volatile char *map, bool *hinted)
{
	int found = 0;

	for (int i = 0; i < PAGES; i++) {
		long before = numa_faults();

		(void)map[i * page_size()];
		if (hinted && !hinted[i] && numa_faults() > before)
			hinted[i] = ++found;
	}
	return found;
}

static void run(void)
{
	static bool hinted[PAGES];
	volatile char *map;
	time_t end;
	char byte;
	int fd, found = 0, round = 1;

	numa_need_balancing();
	map = map_file(&fd);
	count_hinted(map, NULL);
	/* Pages on the node of a process with one thread are not sampled. */
	for (end = time(NULL) + SECONDS; time(NULL) <= end && found < PAGES / 2; round++) {
		numa_go_to_node(round % 2);
		for (int i = 0; i < 50; i++) {
			found += count_hinted(map, hinted);
			numa_work();
		}
	}
	if (!found)
		gt_skip("pages of this file are not sampled");
	for (int i = 0; i < PAGES; i++) {
		map[i * page_size()] = 'n';
		gt_need(pread(fd, &byte, 1, i * page_size()) == 1, "reading the file");
		gt_check(byte == 'o', "a write to a private mapping leaves the file alone, page %d, which %s", i,
			 hinted[i] ? "had a hinting fault" : "had none");
	}
	gt_pass("the file is unchanged, %d of %d pages had hinting faults", found, PAGES);
}

GUEST_TEST = {
	.summary       = "a NUMA hinting fault does not make a private file mapping write to the file",
	.contract      = "C-ISO",
	.mechanism     = "do_numa_page() makes the page writable because its mapping is",
	.needs_kconfig = "NUMA_BALANCING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.13",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "a private write in the file",
	.run           = run,
};
