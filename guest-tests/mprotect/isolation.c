// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An mprotect that makes page table entries writable at once saves faults, and must not save those
 * that somebody waits for: the fault that copies a shared page, also one whose other user has it in
 * swap; the one that userfaultfd wants to see; the one that sets the soft-dirty bit.
 */
#include "guesttest.h"
#include "pipepin.h"
#include "swap.h"
#include "uffd.h"

static void check_shared(char *page, bool is_swapped)
{
	int go[2], ready[2];
	pid_t child;

	gt_need(!pipe(go) && !pipe(ready), "pipes");
	child = gt_fork();
	if (!child) {
		close(go[1]);
		pipepin_sync(go[0], false);
		gt_check(*page == 'o', "the child keeps what was there at fork, not 0x%02x,", *page);
		page_mprotect_cycle(page, page_size());
		*page = 'c';
		pipepin_sync(ready[1], true);
		_exit(0);
	}
	close(ready[1]);
	gt_need(*page == 'o', "the page as it was");
	gt_need(!is_swapped || page_entry(page) & PAGE_PRESENT, "the page is back in the parent alone");
	page_mprotect_cycle(page, page_size());
	*page = 'p';
	pipepin_sync(go[1], true);
	gt_reap(child);
	gt_check(*page == 'p', "the parent keeps what it wrote, not 0x%02x,", *page);
	gt_pass("mprotect on both sides, and each side kept its own");
}

static void check_uffd(char *pages)
{
	size_t page = page_size();
	int fd = uffd_open();

	uffd_register(fd, pages, 2 * page, UFFDIO_REGISTER_MODE_WP);
	uffd_write_protect(fd, pages, 2 * page, true);
	page_mprotect_cycle(pages, page);
	gt_need(uffd_stops_write(fd, pages + page), "a protected page that saw no mprotect stops a write");
	gt_check(uffd_stops_write(fd, pages), "a protected page stops a write after mprotect");
	gt_check(!uffd_stops_write(fd, pages), "a page whose protection was lifted stops no write");
	gt_pass("userfaultfd saw the write");
}

static void check_soft_dirty(char *page)
{
	page_clear_soft_dirty();
	page_mprotect_cycle(page, page_size());
	gt_need(!(page_entry(page) & PAGE_SOFT_DIRTY), "mprotect alone is no write");
	*page = 'n';
	gt_check(page_entry(page) & PAGE_SOFT_DIRTY, "a page is soft-dirty after mprotect and a write");
	gt_pass("the write was noticed");
}

static void run(void)
{
	const char *why = gt_param("why");
	bool is_swapped = !strcmp(why, "swapcount");
	char *pages = page_map(2, 'o');

	if (!strcmp(why, "uffd-wp"))
		check_uffd(pages);
	if (!strcmp(why, "softdirty"))
		check_soft_dirty(pages);
	if (is_swapped) {
		swap_need();
		page_stay_on_cpu();
		swap_out(pages);
	}
	check_shared(pages, is_swapped);
}

GUEST_TEST = {
	.summary       = "mprotect to read-only and back saves no fault that somebody waits for",
	.contract      = "C-ISO",
	.mechanism     = "change_pte_range makes an entry writable without asking who shares or watches the page",
	.changelog     = "20",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.3",
	.params        = "why: fork swapcount uffd-wp softdirty",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write seen by the other process, or missed by userfaultfd or soft-dirty",
	.run           = run,
};
