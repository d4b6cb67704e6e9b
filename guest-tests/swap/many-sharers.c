// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A slot in swap counts up to 62 users by itself, and borrows from elsewhere for more. When all of them but one
 * have ended, the last one's page is still there.
 */
#include "guesttest.h"
#include "pattern.h"
#include "swap.h"
#include <sys/uio.h>

enum { CHILDREN = 70 };

static void run(void)
{
	pid_t children[CHILDREN];
	char *page, *expected, *seen = page_map(1, 0), byte;
	struct iovec to = { seen, page_size() }, from = { NULL, page_size() };
	int hold[2];

	swap_need();
	page_stay_on_cpu();
	page = page_map(1, 0);
	expected = pattern_fill(page, page_size(), pattern_new_salt());
	swap_out(page);
	gt_need(!pipe(hold), "pipe");
	for (int i = 0; i < CHILDREN; i++) {
		children[i] = gt_fork();
		if (!children[i]) {
			close(hold[1]);
			_exit(read(hold[0], &byte, 1) != 0);
		}
	}
	gt_need(page_entry(page) & PAGE_SWAPPED, "the page is in swap, for all");
	close(hold[1]);
	for (int i = 0; i < CHILDREN; i++)
		gt_reap(children[i]);
	/* By the kernel, which says if it cannot: a fault of our own would be tried for ever. */
	from.iov_base = page;
	gt_check(process_vm_readv(getpid(), &to, 1, &from, 1, 0) == (ssize_t)page_size(),
		 "the page of the last of %d processes can be read: %s", CHILDREN + 1, strerror(errno));
	pattern_check(expected, seen, page_size(), "the page of the last process");
	gt_pass("the last of %d processes that shared a swap slot has its page", CHILDREN + 1);
}

GUEST_TEST = {
	.summary       = "the last of many processes that share a swap slot keeps its page",
	.contract      = "C-LIVE",
	.mechanism     = "the count of a slot's users is wrong when it goes from the borrowed part to its own",
	.needs_kconfig = "SWAP=y CROSS_MEMORY_ATTACH=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page that is lost in swap",
	.run           = run,
};
