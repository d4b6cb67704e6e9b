// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * khugepaged replaces small pages by a huge one with the same content. It leaves alone a range in which a page is
 * pinned: the device would go on with the old page. A second range without a pin shows that it can collapse one.
 */
#include "collapse.h"
#include "cowpin.h"
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"

enum { LIMIT_MS = 15000 };
/* As large as a huge page, and aligned like one. */
static char *map_small_pages(size_t length, int fill)
{
	char *map = mmap(NULL, 3 * length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	gt_need(map != MAP_FAILED && !madvise(map, 3 * length, MADV_NOHUGEPAGE), "memory");
	map = (char *)(((uintptr_t)map + length) & -length);
	memset(map, fill, length);
	return map;
}

static void run(void)
{
	char *pinned, *control, *first;
	size_t length;
	int pin;

	/* A first one shows that there are huge pages. */
	first = page_map_thp(&length, 1);
	munmap(first, length);
	page_stay_on_cpu();
	pinned = map_small_pages(length, 'o');
	control = map_small_pages(length, 'o');
	pin = cowpin_pin(pinned + length / 2, 1, COWPIN_WRITE | COWPIN_LONGTERM | COWPIN_FAST);
	gt_note("the range with the pin %s", collapse_try(pinned, length, pinned, LIMIT_MS) ? "was collapsed" :
		"was left alone");
	if (!collapse_try(control, length, control, LIMIT_MS))
		gt_skip("the kernel does not collapse pages here in %d s", LIMIT_MS / 1000);
	cowpin_check_new(pin, pinned + length / 2, page_size());
	gt_pass("the pin is coherent, and the range beside can be collapsed");
}

GUEST_TEST = {
	.summary       = "khugepaged leaves pinned pages alone",
	.contract      = "C-SYNC",
	.mechanism     = "khugepaged copies a page that more than page tables refer to",
	.needs_kconfig = "MODULES=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.memory_mib    = 512,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
