// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The process that made a private hugetlb mapping has the reservation; its child shares the pages. When the
 * owner's page goes while the child still has it, the pool must count the reservation no more than once.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "partner.h"
#include "pagekind.h"

enum { POOL = 4 };

static size_t size;
static unsigned long long reserved;	/* before the test */

/* The owner: has a child that keeps the page, drops its own, may take another one, and ends. */
static void own(const char *then)
{
	struct partner child;
	char *map = hugetlb_map(size, 'h');

	if (partner_fork(&child)) {
		partner_wake(&child);
		partner_wait(&child);
		gt_check(*(volatile char *)map == 'h', "the child's page has its data");
		partner_end(&child);
	}
	partner_wait(&child);
	if (!strcmp(then, "munmap")) {
		gt_need(!munmap(map, size), "munmap");
	} else {
		if (madvise(map, size, MADV_DONTNEED)) {
			gt_need(errno == EINVAL, "MADV_DONTNEED");
			gt_skip("the kernel has no MADV_DONTNEED for hugetlb");
		}
		if (!strcmp(then, "refault"))
			*(volatile char *)map = 'n';
	}
	hugetlb_check(size, "resv_hugepages", reserved, "when the owner has let go and the child has not");
	partner_wake(&child);
	partner_end(&child);
}

static void run(void)
{
	unsigned long long free;
	pid_t owner;

	size = hugetlb_usual_size();
	hugetlb_make_pool(size, POOL);
	pagekind_wait_for_pool(size, POOL);
	reserved = hugetlb_count(size, -1, "resv_hugepages");
	free = hugetlb_count(size, -1, "free_hugepages");
	owner = gt_fork();
	if (!owner) {
		own(gt_param("then"));
		_exit(0);
	}
	gt_reap(owner);
	hugetlb_check(size, "resv_hugepages", reserved, "when both have ended");
	hugetlb_check(size, "free_hugepages", free, "when both have ended");
	gt_pass("%llu pages are reserved, as before", reserved);
}

GUEST_TEST = {
	.summary       = "a hugetlb page that owner and child share is reserved once, whoever lets go first",
	.contract      = "C-ACCT",
	.mechanism     = "unmapping gives the reservation back although the page lives on in a child",
	.cve           = "CVE-2026-89593",
	.needs_kconfig = "HUGETLBFS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.9",
	.params        = "then: munmap dontneed refault",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a counter of the pool that is not what it was",
	.run           = run,
};
