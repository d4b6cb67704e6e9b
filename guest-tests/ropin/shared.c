// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After fork, the parent pins a page for reading that it still shares with its child. Its next write
 * makes it part with somebody: it must be the child, and not the device. So the page has to become
 * the parent's own before it is pinned, whether or not the child is there when the write comes.
 */
#include "cowpin.h"

static void run(void)
{
	bool exits = !strcmp(gt_param("child"), "exited");
	char *page;
	int go[2], pin;
	pid_t child;

	module_need("cowpin");
	page = page_map(1, 'o');
	child = cowpin_sharer(go);
	gt_need(page_map_count(page) == 2, "the page is mapped twice after fork");
	pin = cowpin_pin(page, 1, COWPIN_LONGTERM | (strcmp(gt_param("walk"), "fast") ? 0 : COWPIN_FAST));
	if (exits)
		cowpin_end_sharer(child, go);
	cowpin_check_new(pin, page, page_size());
	if (!exits)
		cowpin_end_sharer(child, go);
	gt_pass("the device reads what the parent wrote");
}

GUEST_TEST = {
	.summary       = "a page shared with a child becomes the parent's own when it is pinned for reading",
	.contract      = "C-SYNC",
	.mechanism     = "a pin for reading triggers no copy, the write after it does",
	.fixes         = "a7f226604170",
	.changelog     = "21 29c",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "walk: fast slow; child: alive exited",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a device that reads stale bytes",
	.run           = run,
};
