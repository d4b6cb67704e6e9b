// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reclaim drops a page without writing it if it is clean and has its content elsewhere. A page that was
 * copied because an R/O reference was taken has never been written by the program, and neither has one that
 * came back from swap and gave up its swap slot. Both must still be written before they are dropped.
 */
#include "cowpin.h"
#include "partner.h"
#include "pattern.h"
#include "swap.h"
#include <sys/syscall.h>
#include <sys/uio.h>

#ifndef MLOCK_ONFAULT
#define MLOCK_ONFAULT 1
#endif

static void reference_by_pipe(char *page, char *seen)
{
	struct iovec slice = { page, page_size() };
	int spliced[2];

	gt_need(!pipe(spliced), "pipe");
	gt_need(vmsplice(spliced[1], &slice, 1, 0) == (ssize_t)page_size(), "vmsplice");
	gt_need(read(spliced[0], seen, page_size()) == (ssize_t)page_size(), "reading the spliced page");
	close(spliced[0]);
	close(spliced[1]);
}

static void reference_by_pin(char *page, char *seen)
{
	int pin = module_open("cowpin");

	gt_need(!cowpin_try(pin, page, 1, COWPIN_LONGTERM | COWPIN_FAST), "pinning the page");
	cowpin_read(pin, seen, page_size());
	close(pin);
}

/* Makes the page a copy of the one that the child keeps. Takes no longer than the reference, if any. */
static void make_copy(const char *how, char *page, char *expected)
{
	char *seen = page_map(1, 0);
	uint64_t before = page_frame(page);

	if (!strcmp(how, "write")) {
		pattern_set(page, expected, 3, 'w');
	} else {
		(strcmp(how, "pin") ? reference_by_pipe : reference_by_pin)(page, seen);
		pattern_check(expected, seen, page_size(), "the page seen through the reference");
		if (page_frame(page) == before)
			gt_skip("this kernel makes no copy for an R/O reference of this kind");
	}
	gt_check(page_frame(page) != before, "a shared page is copied when it is written");
	munmap(seen, page_size());
}

/* Reading a locked page from swap frees its slot at once, so that it has no content elsewhere. */
static void swap_in_without_slot(char *page)
{
	if (syscall(SYS_mlock2, page, page_size(), MLOCK_ONFAULT))
		gt_skip("no mlock2: %s", strerror(errno));
	(void)*(volatile char *)page;
	gt_need(!munlock(page, page_size()), "munlock");
}

static void run(void)
{
	char *page, *expected;
	struct partner child;

	swap_need();
	page_stay_on_cpu();
	page = page_map(1, 0);
	expected = pattern_fill(page, page_size(), pattern_new_salt());
	if (partner_fork(&child)) {
		partner_wait(&child);
		pattern_check(expected, page, page_size(), "the child's page");
		partner_end(&child);
	}
	make_copy(gt_param("copy"), page, expected);
	swap_out(page);
	pattern_check(expected, page, page_size(), "the copy, back from swap");
	/* It has a slot in swap with the same content, unless the kernel freed that already. */
	swap_out(page);
	pattern_check(expected, page, page_size(), "the unchanged copy, back from swap again");
	swap_out(page);
	swap_in_without_slot(page);
	swap_out(page);
	pattern_check(expected, page, page_size(), "the copy whose swap slot was freed, back from another");
	partner_wake(&child);
	partner_end(&child);
	gt_pass("the copy survives reclaim");
}

GUEST_TEST = {
	.summary       = "a copy that the program never wrote survives swap",
	.contract      = "C-LIVE",
	.mechanism     = "reclaim drops a page that nothing marks as dirty and that is stored nowhere",
	.changelog     = "21 29c",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "copy: pin vmsplice write",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "memory that is lost by reclaim",
	.run           = run,
};
