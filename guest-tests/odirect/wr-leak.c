// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A child writes a page that it shares with its parent to a file by O_DIRECT, and unmaps the page
 * while the write is in flight. If the parent's next write then reuses the page, the disk gets the
 * parent's new data.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "pipepin.h"
#include "stalledio.h"
#include "swap.h"

static void child(char *page, size_t length, int ready, int go)
{
	struct stalled_io io;

	/* Whoever maps the page: a read fault here brings it back from swap for us alone. */
	(void)*(volatile char *)page;
	stalled_write_from(&io, page, page_size() / 2);
	gt_need(!munmap(page, length), "munmap");
	pipepin_sync(ready, true);
	pipepin_sync(go, false);
	stalled_io_finish(&io);
	stalled_write_check(&io, PIPEPIN_OLD);
	_exit(0);
}

static char *make_page(const char *kind, size_t *length)
{
	char *page;

	if (strcmp(kind, "swapped")) {
		page = pagekind_map(kind, 2, length);
		memset(page, PIPEPIN_OLD, page_size());
		return page;
	}
	swap_need();
	page_stay_on_cpu();
	*length = page_size();
	page = page_map(1, PIPEPIN_OLD);
	swap_out(page);
	return page;
}

static void run(void)
{
	const char *kind = gt_param("page");
	size_t length;
	char *page = make_page(kind, &length);
	int ready[2], go[2];
	pid_t pid;

	gt_need(!pipe(ready) && !pipe(go), "pipes");
	pid = gt_fork();
	if (!pid) {
		close(go[1]);
		child(page, length, ready[1], go[0]);
	}
	close(ready[1]);
	pipepin_sync(ready[0], false);
	gt_need(strcmp(kind, "swapped") || page_entry(page) & PAGE_SWAPPED, "the parent's page is still in swap");
	/*
	 * No read first: after swap, it would map the page write-protected, and the fault of the write
	 * would be one that counts references. This one asks for mappings and swap entries only.
	 */
	memset(page, PIPEPIN_SECRET, page_size());
	pipepin_sync(go[1], true);
	gt_reap(pid);
	gt_pass("the file has the data of the time when the child started to write");
}

GUEST_TEST = {
	.summary       = "O_DIRECT write in a child does not see the parent's later writes",
	.contract      = "C-ISO",
	.mechanism     = "reuse by mapcount ignores the reference of an O_DIRECT write",
	.changelog     = "29a",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "page: small mthp thp thp-ptes swapped hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the parent's secret in the child's file",
	.run           = run,
};
