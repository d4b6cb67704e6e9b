// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A pipe holds a reference to the page that was vmsplice()d into it, and a reference to a subpage
 * keeps the whole THP. An unprivileged process that unmaps the THP afterwards holds memory beyond
 * any limit: its mappings are gone, and each pipe buffer is accounted as a small page. The test
 * allocates only as much as it needs to show that, and frees it again.
 */
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"
#include <sys/uio.h>

enum { SLOTS = 32, MEMLOCK_KIB = 64, NOISE_KIB = 16 << 10, NOBODY = 65534 };

/* With those that wait on a CPU's list, huge ones since 5.14, which MemFree leaves out. */
static long free_kib(void)
{
	FILE *zones = fopen("/proc/zoneinfo", "r");
	long pages = 0, some;
	char line[256];

	gt_need(zones, "opening /proc/zoneinfo");
	while (fgets(line, sizeof(line), zones))
		if (sscanf(line, " pages free %ld", &some) == 1 || sscanf(line, " count: %ld", &some) == 1)
			pages += some;
	fclose(zones);
	gt_need(pages, "free pages in /proc/zoneinfo");
	return pages * (long)(page_size() >> 10);
}

/* Puts the first bytes of a new page into a pipe, and unmaps all of it. */
static void splice_and_unmap(int pipe_in, bool is_huge)
{
	size_t length = page_size();
	char *page = is_huge ? page_map_thp(&length, 'o') : page_map(1, 'o');
	struct iovec slice = { page, page_size() };

	gt_need(vmsplice(pipe_in, &slice, 1, SPLICE_F_NONBLOCK) == (ssize_t)page_size(), "vmsplice");
	gt_need(!munmap(page, length), "munmap");
}

static void run(void)
{
	const struct rlimit memlock = { MEMLOCK_KIB << 10, MEMLOCK_KIB << 10 };
	bool is_huge = !strcmp(gt_param("page"), "thp");
	long before, during, after, held, slots = SLOTS;
	size_t length = page_size();
	int pipes[SLOTS][2];

	if (is_huge) {
		page_map_thp(&length, 'o');	/* switches huge pages on for who asks */
		slots = (long)(free_kib() / 4 / (length >> 10)) < SLOTS ? free_kib() / 4 / (length >> 10) : SLOTS;
	}
	gt_need(slots > 0, "free memory for a page");
	gt_need(!setrlimit(RLIMIT_MEMLOCK, &memlock) && !setresuid(NOBODY, NOBODY, NOBODY), "giving up privileges");
	for (int i = 0; i < slots; i++)
		gt_need(!pipe(pipes[i]), "pipe");
	before = free_kib();
	for (int i = 0; i < slots; i++)
		splice_and_unmap(pipes[i][1], is_huge);
	during = free_kib();
	for (int i = 0; i < slots; i++)
		gt_need(!close(pipes[i][0]) && !close(pipes[i][1]), "closing a pipe");
	after = free_kib();
	held = before - during > after - during ? before - during : after - during;
	gt_note("%ld buffers: %ld KiB allocated, %ld KiB freed on close", slots, before - during, after - during);
	gt_need(held < NOISE_KIB || after - during > held / 2, "the memory is freed when the pipes are closed");
	gt_need(!is_huge || slots * (long)(length >> 10) > 2 * NOISE_KIB, "enough free memory");
	gt_check(held < slots * (long)(page_size() >> 10) + MEMLOCK_KIB + NOISE_KIB,
		 "an unprivileged process without a mapping holds only what is accounted to its pipes, %ld KiB, "
		 "but it holds %ld KiB", slots * (long)(page_size() >> 10), held);
	gt_pass("%ld KiB are held by %ld pipe buffers", held, slots);
}

GUEST_TEST = {
	.summary       = "an unprivileged process holds no more memory by pipes than is accounted to them",
	.contract      = "bounded unprivileged pinned memory",
	.mechanism     = "vmsplice() refers to a whole THP, but its pipe buffer is accounted as a small page",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.11",
	.params        = "page: small thp",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "memory beyond any limit",
	.run           = run,
};
