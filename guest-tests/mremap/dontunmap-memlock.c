// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MREMAP_DONTUNMAP moves locked pages and leaves an unlocked mapping behind. What the process has locked is
 * counted; once all is unmapped, the count must be 0, or the limit of locked memory is used up for good.
 */
#include "guesttest.h"
#include "pagestate.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif
#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif
enum { PAGES = 8, ROUNDS = 4 };

static unsigned long locked_kib(void)
{
	return page_read_field("/proc/self/status", "VmLck:");
}

static void *move(char *from, size_t length, int flags, char *to)
{
	void *moved = mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_DONTUNMAP | flags, to);

	if (moved == MAP_FAILED && errno == EINVAL)
		gt_skip("the kernel has no MREMAP_DONTUNMAP");
	gt_need(moved != MAP_FAILED, "mremap");
	return moved;
}

static void run(void)
{
	const char *part = gt_param("part");
	size_t length = PAGES * page_size(), step = page_size();
	unsigned long before = locked_kib();

	for (int round = 1; round <= ROUNDS; round++) {
		char *room = mmap(NULL, 4 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *moved;
		char *map = room + length;
		unsigned long locked;

		gt_need(room != MAP_FAILED && !munmap(room, 4 * length), "room");
		gt_need(mmap(map, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == map,
			"mmap");
		/* Pages would keep the moved mapping from merging with the one that stays. */
		gt_need(!mlock2(map, length, MLOCK_ONFAULT), "mlock2");
		gt_need(locked_kib() == before + (length >> 10), "the memory is locked");
		if (!strcmp(part, "whole"))
			moved = move(map, length, 0, NULL);
		else if (!strcmp(part, "middle"))
			moved = move(map + 2 * step, length - 4 * step, 0, NULL);
		else
			moved = move(map, length, MREMAP_FIXED, map + length);
		locked = locked_kib();
		munmap(moved, length);
		munmap(map, length);
		gt_check(locked_kib() == before,
			 "%lu KiB are locked once all is unmapped, not %lu (%lu after mremap, round %d)", before,
			 locked_kib(), locked, round);
	}
	gt_pass("nothing is locked once all is unmapped");
}

GUEST_TEST = {
	.summary       = "MREMAP_DONTUNMAP of locked memory does not use up the limit of locked memory",
	.contract      = "C-ACCT",
	.mechanism     = "the flag for locked memory is cleared on more than was moved, or on the target itself",
	.min_kernel    = "5.7",
	.params        = "part: whole middle beside",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 10,
	.detects       = "VmLck that is not what it was",
	.run           = run,
};
