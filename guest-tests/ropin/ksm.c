// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A merged page is always copied on write, even when only one page table is left that maps it. A
 * device must therefore never get one to read for long: the pin has to be of a page of its own.
 */
#include "cowpin.h"
#include "ksm.h"

static void run(void)
{
	char *pair;
	int pin;

	module_need("cowpin");
	ksm_start();
	pair = ksm_map_pair('k');
	ksm_stop();		/* nothing is merged again behind our back */
	pin = cowpin_pin_readonly(pair);
	cowpin_check_new(pin, pair, page_size());
	gt_check(pair[page_size()] == 'k', "the other half of the pair keeps its bytes");
	gt_pass("the device reads what the program wrote");
}

GUEST_TEST = {
	.summary       = "a merged page is taken apart when it is pinned for reading",
	.contract      = "C-SYNC",
	.mechanism     = "the pin is of the merged page, which the next write copies",
	.fixes         = "a7f226604170",
	.changelog     = "22 29e",
	.needs_kconfig = "MODULES=y KSM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a device that reads stale bytes",
	.run           = run,
};
