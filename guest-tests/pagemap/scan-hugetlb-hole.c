// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PAGEMAP_SCAN of hugetlb memory that is not there yet, with write protection, takes the lock of the mapping
 * twice and waits for itself, for ever. A child does it, because nothing can kill what waits like this; the
 * test only looks whether it comes back. Then a write must be reported. match=written protects the pages that
 * were written, to which some kernels count no hole, and match=all protects all pages.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pagemapscan.h"
#include "partner.h"
#include "thp.h"

enum { PAGES = 2, WRITTEN = 1, LIMIT_MS = 5000, SUBTESTS = 4 };

/* A hole without a table: nothing else is where one table reaches. */
static char *map(size_t size, bool shared)
{
	size_t reach = size * (page_size() / sizeof(uint64_t));
	char *room = page_find_room(reach, reach);
	char *start = mmap(room, PAGES * size, PROT_READ | PROT_WRITE,
			   (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_ANONYMOUS | MAP_FIXED | MAP_HUGETLB |
			   __builtin_ctzl(size) << MAP_HUGE_SHIFT, -1, 0);

	if (start == MAP_FAILED)
		gt_skip("not enough huge pages are free: %s", strerror(errno));
	return start;
}

/* Registers the memory, protects all of it and writes one page. Each step is announced. */
static _Noreturn void scan(struct partner *parent, char *start, size_t length)
{
	size_t pages = length / page_size(), first = WRITTEN * pages / PAGES;
	bool *is_written = calloc(pages, sizeof(bool));

	pagemapscan_register(start, length);
	partner_wake(parent);
	/* The test's output must end even if this process cannot. */
	for (int fd = 0; fd < 3; fd++)
		close(fd);
	pagemapscan_protect(start, length, strcmp(gt_param("match"), "all") ? PAGEMAPSCAN_WRITTEN : 0);
	partner_wake(parent);
	pagemapscan_read(start, length, PAGEMAPSCAN_WRITTEN, 0, true, is_written);
	for (size_t page = 0; page < pages; page++)
		if (is_written[page])
			_exit(2);
	start[first * page_size()] = 'w';
	pagemapscan_read(start, length, PAGEMAPSCAN_WRITTEN, 0, true, is_written);
	for (size_t page = 0; page < pages; page++)
		if (is_written[page] && (page < first || page >= first + pages / PAGES))
			_exit(3);
	_exit(is_written[first] ? 0 : 5);
}

static void run(void)
{
	size_t size = hugetlb_usual_size();
	struct partner child;
	struct pollfd done;
	char byte;
	int status;

	hugetlb_make_pool(size, SUBTESTS * PAGES);	/* a process that hangs keeps its pages */
	if (partner_fork(&child))
		scan(&child, map(size, !strcmp(gt_param("mapping"), "shared")), PAGES * size);
	if (read(child.in, &byte, 1) != 1) {
		gt_need(waitpid(child.pid, &status, 0) == child.pid, "the child");
		if (WIFEXITED(status) && !WEXITSTATUS(status))
			gt_skip("userfaultfd or PAGEMAP_SCAN lacks what this needs, see above");
		gt_broken("the child ended with wait status 0x%x before it could scan", status);
	}
	done = (struct pollfd){ .fd = child.in, .events = POLLIN };
	gt_check(poll(&done, 1, LIMIT_MS) == 1,
		 "PAGEMAP_SCAN of %d huge pages that are not there returns within %d s; process %d cannot be killed any more",
		 PAGES, LIMIT_MS / 1000, child.pid);
	gt_need(read(child.in, &byte, 1) == 1, "the scan succeeds");
	gt_need(waitpid(child.pid, &status, 0) == child.pid && WIFEXITED(status), "the child");
	gt_check(WEXITSTATUS(status) != 2, "no page was written before one is");
	gt_check(WEXITSTATUS(status) != 3, "no other page is reported than the one that was written");
	gt_check(WEXITSTATUS(status) != 5, "the page that was written is reported");
	gt_need(!status, "the child ended with wait status 0x%x", status);
	gt_pass("the scan returned, and the write that came after it was reported");
}

GUEST_TEST = {
	.summary       = "PAGEMAP_SCAN with write protection returns from a hole in hugetlb memory",
	.contract      = "C-LIVE",
	.mechanism     = "the walk of hugetlb memory holds the lock that write protection of a hole takes",
	.fixes         = "e92d92bbafb2",
	.cve           = "CVE-2026-72174",
	.needs_kconfig = "USERFAULTFD=y HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.7",
	.params        = "mapping: private shared; match: written all",
	.needs_root    = true,
	.may_crash     = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a process that waits for itself and cannot be killed",
	.run           = run,
};
