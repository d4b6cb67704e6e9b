// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() of a process with an io_uring ring, which lies in page tables of its own, with each of its allocations failing
 * in turn. What the kernel knows of the child's copy of the ring is undone as far as it was done.
 */
#include "failnth.h"
#include "guesttest.h"
#include "thp.h"
#include "uring.h"
#include "version.h"

enum { MOST = 5000, FEWEST = 30 };

static void run(void)
{
	size_t table = page_size() * (page_size() / sizeof(uint64_t)), length;
	char *room = page_find_room(table, table), *ring, *moved;
	unsigned int n = 0, failures = 0;
	struct io_uring_params p = { 0 };
	int fd = syscall(SYS_io_uring_setup, 4, &p);
	bool has_failed = true;
	pid_t child;

	if (fd < 0)
		gt_skip("no io_uring: %s", strerror(errno));
	length = p.sq_entries * sizeof(struct io_uring_sqe);
	ring = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, IORING_OFF_SQES);
	gt_need(ring != MAP_FAILED, "mapping the ring");
	moved = mremap(ring, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, room);
	/* newer kernels choose the place, and their rings are of normal pages */
	gt_need(moved == room || version_is_at_least(6, 0), "moving the ring");
	ring = moved == room ? room : ring;
	memset(ring, 'r', length);
	failnth_begin();
	while (has_failed) {
		gt_need(++n < MOST, "a fork of fewer than %d allocations", MOST);
		failnth_arm(n);
		child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);	/* the library's fork() allocates, too */
		if (!child)
			_exit(ring[length - 1] != 'r');
		has_failed = failnth_end();
		if (child > 0)
			gt_reap(child);
		else
			gt_check(has_failed, "fork() has the memory that it needs");
		failures += child < 0;
		gt_check(ring[length - 1] == 'r', "the parent has the ring");
	}
	gt_need(failures >= FEWEST, "at least %d forks that failed, not %u", FEWEST, failures);
	gt_pass("of %u forks %u failed, and the ring stayed", n, failures);
}

GUEST_TEST = {
	.summary       = "fork() of a process with an io_uring ring fails as a whole, whichever of its allocations fails",
	.contract      = "C-ACCT",
	.mechanism     = "what is undone for a mapping of page frames is looked up in page tables that were not copied",
	.fixes         = "dc84bc2aba85",
	.cve           = "CVE-2025-22090",
	.needs_kconfig = "FAILSLAB=y FAIL_PAGE_ALLOC=y FAULT_INJECTION_DEBUG_FS=y IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.may_crash     = true,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "a WARNING about memory types that are not known, and ranges that stay reserved",
	.run           = run,
};
