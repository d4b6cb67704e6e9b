// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * If mprotect() makes PTEs writable to avoid faults, it must not do so where the fault is needed:
 * to copy a shared page, even if the other process has only a swap entry for it; to notify
 * userfaultfd; to set the soft-dirty bit.
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
		gt_check(*page == 'o', "the child keeps the data of the time of fork, not 0x%02x,", *page);
		page_mprotect_cycle(page, page_size());
		*page = 'c';
		pipepin_sync(ready[1], true);
		_exit(0);
	}
	close(ready[1]);
	gt_check(*page == 'o', "the page is unchanged");
	gt_need(!is_swapped || page_entry(page) & PAGE_PRESENT, "the page is swapped in in the parent alone");
	page_mprotect_cycle(page, page_size());
	*page = 'p';
	pipepin_sync(go[1], true);
	gt_reap(child);
	gt_check(*page == 'p', "the parent keeps the data it wrote, not 0x%02x,", *page);
	gt_pass("mprotect in both processes, and neither saw the other's writes");
}

static void check_uffd(char *pages)
{
	size_t page = page_size();
	int fd = uffd_open();

	uffd_register(fd, pages, 2 * page, UFFDIO_REGISTER_MODE_WP);
	uffd_write_protect(fd, pages, 2 * page, true);
	page_mprotect_cycle(pages, page);
	gt_check(uffd_stops_write(fd, pages + page), "a write-protected page without mprotect stops a write");
	gt_check(uffd_stops_write(fd, pages), "a protected page stops a write after mprotect");
	gt_check(!uffd_stops_write(fd, pages), "a page whose protection was lifted stops no write");
	gt_pass("userfaultfd saw the write");
}

static void check_soft_dirty(char *page)
{
	page_clear_soft_dirty();
	page_mprotect_cycle(page, page_size());
	gt_check(!(page_entry(page) & PAGE_SOFT_DIRTY), "mprotect alone is no write");
	*page = 'n';
	gt_check(page_entry(page) & PAGE_SOFT_DIRTY, "a page is soft-dirty after mprotect and a write");
	gt_pass("the write set the soft-dirty bit");
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
	.summary       = "mprotect() to read-only and back skips no write fault that others depend on",
	.contract      = "C-ISO",
	.mechanism     = "change_pte_range() makes a PTE writable without checking who shares or tracks the page",
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
