// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that is written to swap with checksums must not change until the write has ended: the program gets a copy,
 * or waits. The disk is slow, so that the page is under writeback when the program writes to it: by a fault that
 * brings it back from the swap cache (fault), by one after it was read (read), or after mprotect() has made it
 * writable (mprotect).
 */
#include "slowdisk.h"
#include "swap.h"

enum { MOST_ROUNDS = 6 };

static void write_to(char *page)
{
	if (strcmp(gt_param("by"), "fault"))
		(void)*(volatile char *)page;
	if (!strcmp(gt_param("by"), "mprotect"))
		page_mprotect_cycle(page, page_size());
	*(volatile char *)page = 'n';
}

static void run(void)
{
	char name[64], *page;
	uint64_t frame = 0;
	bool is_same, is_written;
	int rounds = 0;

	slowdisk_find(name, sizeof(name));
	if (!slowdisk_is_stable(name))
		gt_skip("%s does not need pages that stay as they are while they are written", name);
	page_stay_on_cpu();
	slowdisk_begin();
	do {
		gt_need(++rounds <= MOST_ROUNDS, "the page is under writeback (busy host?)");
		page = page_map(1, 'o');
		frame = page_frame(page);
		gt_need(swap_ask(page), "the page was swapped out, pagemap entry 0x%llx",
			(unsigned long long)page_entry(page));
	} while (!swap_writes(frame));
	write_to(page);
	is_same = page_frame(page) == frame;
	is_written = swap_writes(frame);	/* after the write: it was so all the time */
	gt_check(!is_same || !is_written, "a page is not changed while it is written to %s", name);
	gt_check(*page == 'n', "the page has what was written");
	gt_pass("the program %s", is_same ? "waited for the writeback" : "got a copy");
}

GUEST_TEST = {
	.summary       = "a page does not change while it is written to swap that needs stable writes",
	.contract      = "C-LIVE",
	.mechanism     = "a fault or mprotect() makes a page of the swap cache writable during its writeback",
	.changelog     = "8",
	.needs_kconfig = "SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.9",
	.params        = "by: fault read mprotect",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page in swap whose checksum does not fit",
	.run           = run,
};
