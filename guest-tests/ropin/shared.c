// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * After fork(), the parent takes an R/O pin of a page that it still shares with its child. The
 * parent's next write must separate it from the child, and not from the device. So the page has to
 * be unshared when the pin is taken, whether or not the child still exists at the time of the
 * write.
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
	gt_pass("the device reads the data that the parent wrote");
}

GUEST_TEST = {
	.summary       = "a page shared with a child is unshared by an R/O pin",
	.contract      = "C-SYNC",
	.mechanism     = "an R/O pin does not unshare, and the next write copies the page",
	.fixes         = "a7f226604170",
	.changelog     = "21 29c",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "walk: fast slow; child: alive exited",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
