// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A write-protected page that only one process maps has an R/O pin. The next write fault must reuse
 * the page: nobody else maps it, and the device goes on reading it.
 */
#include "cowpin.h"
#include <sys/resource.h>

/* By the bit for soft-dirty too where there is one: newer kernels let mprotect alone lift the protection. */
static void write_protect(char *page)
{
	bool has_bit = page_write_file("/proc/self/clear_refs", "4");

	page_mprotect_cycle(page, page_size());
	gt_note("write-protected by mprotect%s", has_bit ? " and clear_refs" : "");
}

static void run(void)
{
	struct rusage before, after;
	char *page, *control;
	int pin;

	module_need("cowpin");
	page = page_map(1, 'o');
	control = page_map(1, 'o');
	write_protect(page);
	page_mprotect_cycle(control, page_size());
	getrusage(RUSAGE_SELF, &before);
	page_touch(control, 'n');
	getrusage(RUSAGE_SELF, &after);
	if (after.ru_minflt == before.ru_minflt)
		gt_skip("on this kernel a write after mprotect to read-only and back takes no fault");
	gt_need(page_map_count(page) == 1, "the page is mapped once");
	pin = cowpin_pin(page, 1, COWPIN_LONGTERM | (strcmp(gt_param("walk"), "fast") ? 0 : COWPIN_FAST));
	cowpin_check_new(pin, page, page_size());
	gt_pass("the device reads the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "an unshared page with an R/O pin is not copied by a write fault",
	.contract      = "C-SYNC",
	.mechanism     = "do_wp_page() copies a page because its refcount is above one, here by the R/O pin",
	.fixes         = "6c287605fd56",
	.changelog     = "29c",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "walk: fast slow",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
