// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() copies a page with references at once, instead of sharing it: a huge page as a whole, or page by
 * page after a split of its mapping. The child must find the complete copy, from the first byte to the last,
 * and neither process may see what the other writes to any part of it.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "partner.h"
#include "pattern.h"
#include "uring.h"

static struct uring ring;
static char *map, *expected;
static size_t length;
static bool is_pinned;

/* A pin of all, or a plain reference of the few pages for which a pipe has room. */
static void take_reference(void)
{
	struct iovec slice = { map, 4 * page_size() };
	int spliced[2];

	if (is_pinned) {
		uring_open(&ring);
		uring_register_buffer(&ring, map, length);
		return;
	}
	gt_need(!pipe(spliced), "pipe");
	gt_need(vmsplice(spliced[1], &slice, 1, 0) == (ssize_t)slice.iov_len, "vmsplice");
}

static void write_all(uint64_t salt)
{
	pattern_write(map, length, salt);
	pattern_write(expected, length, salt);
}

static void child(struct partner *parent)
{
	partner_wait(parent);
	pattern_check(expected, map, length, "the child's memory after the parent wrote");
	write_all(3);
	pattern_check(expected, map, length, "the child's memory after it wrote");
	partner_wake(parent);
	partner_wait(parent);
	pattern_check(expected, map, length, "the child's memory after the parent wrote again");
	partner_end(parent);
}

static void run(void)
{
	struct partner other;

	is_pinned = !strcmp(gt_param("by"), "pin");
	map = pagekind_map(gt_param("page"), 2, &length);
	expected = pattern_fill(map, length, 1);
	take_reference();
	if (partner_fork(&other))
		child(&other);
	pattern_check(expected, map, length, "the parent's memory after fork");
	write_all(2);
	partner_wake(&other);
	partner_wait(&other);
	pattern_check(expected, map, length, "the parent's memory after the child wrote");
	write_all(4);
	partner_wake(&other);
	if (is_pinned)
		uring_check_sends(&ring, map, length);
	partner_end(&other);
	pattern_check(expected, map, length, "the parent's memory after the child has ended");
	gt_pass("both processes have all of the memory, each its own");
}

GUEST_TEST = {
	.summary       = "fork() of a process with referenced memory gives the child all of it",
	.contract      = "C-ISO",
	.mechanism     = "fork() copies only a part of a huge page, or shares a part of it writable",
	.changelog     = "5",
	.needs_kconfig = "IO_URING=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "by: pin vmsplice; page: small mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a child with incomplete memory, or one that sees its parent's writes",
	.run           = run,
};
