// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A KSM page is always copied on write, even if only one page table maps it. An R/O long-term pin
 * must therefore never refer to a KSM page: the process has to get a private page first.
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
	gt_check(pair[page_size()] == 'k', "the other page of the pair keeps its contents");
	gt_pass("the device reads the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "a KSM page is unshared by an R/O long-term pin",
	.contract      = "C-SYNC",
	.mechanism     = "the pin refers to the KSM page, which the next write copies",
	.fixes         = "a7f226604170",
	.changelog     = "22 29e",
	.needs_kconfig = "MODULES=y KSM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
