// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * madvise() excludes memory from fork(), or gives the child zeroes instead, until it is told otherwise. Where
 * the kernel refuses this for a kind of memory, nothing may change. thp-part: one page in the middle of a
 * THP; the child gets the others as usual.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "partner.h"
#include "pattern.h"

#ifndef MADV_WIPEONFORK
#define MADV_WIPEONFORK 18
#define MADV_KEEPONFORK 19
#endif

enum child_sees { CHILD_SEES_ALL, CHILD_SEES_ZEROES, CHILD_SEES_NOTHING };

static char *map, *expected, *zeroes;
static size_t length, start, end;	/* the advice is for the bytes from start to end */

/* A part that the advice does not cover comes before and after, unless it is for a page of hugetlbfs. */
static void map_memory(void)
{
	const char *kind = gt_param("page");
	bool is_part = !strcmp(kind, "thp-part"), is_small = !strcmp(kind, "small");

	map = pagekind_map(is_part ? "thp" : kind, 3, &length);
	start = is_part ? length / 2 : is_small ? page_size() : 0;
	end = is_part || is_small ? start + page_size() : length;
}

/* Returns whether the kernel accepts it. */
static bool advise(int advice)
{
	bool done = !madvise(map + start, end - start, advice);

	gt_need(done || errno == EINVAL, "madvise");
	return done;
}

static enum child_sees give_advice(const char *advice)
{
	bool wipes = !strcmp(advice, "wipeonfork") || !strcmp(advice, "keeponfork");
	bool undoes = !strcmp(advice, "dofork") || !strcmp(advice, "keeponfork");

	if (!advise(wipes ? MADV_WIPEONFORK : MADV_DONTFORK)) {
		gt_check(wipes && !strcmp(gt_param("page"), "hugetlb"), "the kernel accepts the advice");
		gt_note("the kernel refuses the advice for this memory");
	} else if (!undoes) {
		return wipes ? CHILD_SEES_ZEROES : CHILD_SEES_NOTHING;
	} else {
		gt_check(advise(wipes ? MADV_KEEPONFORK : MADV_DOFORK), "the advice can be undone");
	}
	return CHILD_SEES_ALL;
}

/* The kernel can read each page for us, or says EFAULT. */
static bool is_readable(const char *page)
{
	static int file;
	ssize_t got;

	file = file ?: memfd_create("readable", MFD_CLOEXEC);
	got = pwrite(file, page, page_size(), 0);
	gt_need(got == (ssize_t)page_size() || (got < 0 && errno == EFAULT), "writing to a file");
	return got > 0;
}

static void check_child(enum child_sees sees, const char *who)
{
	gt_note("checking the %s", who);
	for (size_t at = 0; at < length; at += page_size()) {
		bool lacks = sees == CHILD_SEES_NOTHING && at >= start && at < end;

		gt_check(is_readable(map + at) != lacks, "the child %s the page at offset %zu",
			 lacks ? "lacks" : "has", at);
	}
	if (sees != CHILD_SEES_NOTHING)
		pattern_check(sees == CHILD_SEES_ALL ? expected + start : zeroes, map + start, end - start,
			      "the child's memory that the advice covers");
	pattern_check(expected, map, start, "the child's memory before that of the advice");
	pattern_check(expected + end, map + end, length - end, "the child's memory after that of the advice");
}

static void write_all(uint64_t salt)
{
	pattern_write(map, length, salt);
	pattern_write(expected, length, salt);
}

/* The advice holds in the child as well: its own child must not see what it wrote. */
static void child(struct partner *parent, enum child_sees sees)
{
	check_child(sees, "child after fork");
	partner_wake(parent);
	partner_wait(parent);
	check_child(sees, "child after the parent wrote");
	if (sees == CHILD_SEES_NOTHING)
		partner_end(parent);
	/* One page is enough: the pool of huge pages has one for a copy. */
	pattern_write(map + start, page_size(), 5);
	pattern_write(expected + start, page_size(), 5);
	if (sees == CHILD_SEES_ZEROES) {
		pid_t grandchild = gt_fork();

		if (!grandchild) {
			check_child(sees, "child of the child");
			_exit(0);
		}
		gt_reap(grandchild);
	}
	partner_end(parent);
}

static void run(void)
{
	enum child_sees sees;
	struct partner other;

	map_memory();
	zeroes = page_map(length / page_size(), 0);
	expected = pattern_fill(map, length, 1);
	sees = give_advice(gt_param("advice"));
	pattern_check(expected, map, length, "the parent's memory after madvise");
	if (partner_fork(&other))
		child(&other, sees);
	partner_wait(&other);
	write_all(2);
	partner_wake(&other);
	partner_end(&other);
	pattern_check(expected, map, length, "the parent's memory after the child wrote");
	gt_pass("the child saw %s", sees == CHILD_SEES_ALL ? "the memory as it was at fork" :
		sees == CHILD_SEES_ZEROES ? "zeroes" : "nothing");
}

GUEST_TEST = {
	.summary       = "fork() follows MADV_DONTFORK, MADV_WIPEONFORK and their reversal",
	.contract      = "C-ISO",
	.mechanism     = "the flag of a VMA is not set, not cleared, or not obeyed by fork()",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.params        = "advice: dontfork dofork wipeonfork keeponfork; page: small mthp thp thp-part hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a child that sees memory it must not see, or misses memory that it should",
	.run           = run,
};
