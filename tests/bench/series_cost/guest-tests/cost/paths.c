// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a series on copy-on-write may make slower, in nanoseconds: the mean of many rounds. For
 * tests/bench/series_cost.py, which compares two kernels; by itself it always passes.
 */
#include "guesttest.h"
#include "pagestate.h"
#include <fcntl.h>
#include <sys/uio.h>
#include <time.h>

/* 40 rounds of all pages, or 400 of less, take some 50 ticks of the slowest clock */
enum { PAGES = 4096, FEW = 40, MANY = 400, CALLS = 256 };

static char *map;
static int pipes[2];

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static double fork_once(void)
{
	double began = now_ns();
	pid_t pid = gt_fork();

	if (!pid)
		_exit(0);
	began = now_ns() - began;
	gt_reap(pid);
	return began;
}

static double write_all(void)
{
	double began = now_ns();

	for (size_t i = 0; i < PAGES; i++)
		((volatile char *)map)[i * page_size()]++;
	return (now_ns() - began) / PAGES;
}

/* Write-protects by clearing the soft-dirty bits: after mprotect() a kernel may spare the fault. */
static double write_after_protection(void)
{
	page_clear_soft_dirty();
	return write_all();
}

static double mprotect_and_write(void)
{
	double began = now_ns();

	page_mprotect_cycle(map, PAGES * page_size());
	write_all();
	return (now_ns() - began) / PAGES;
}

static double write_after_fork(void)
{
	int go[2];
	pid_t pid;
	double took;

	gt_need(!pipe(go), "pipe");
	pid = gt_fork();
	if (!pid) {
		close(go[1]);
		_exit(read(go[0], &took, 1));
	}
	took = write_all();
	close(go[0]);
	close(go[1]);
	gt_reap(pid);
	return took;
}

/* One page at a time into a pipe and out of it again: the fast walk, for reading. */
static double refer(void)
{
	static char sink[65536];
	double took = 0;

	for (size_t i = 0; i < CALLS; i++) {
		struct iovec page = { map + i * page_size(), page_size() };
		double began = now_ns();

		gt_need(vmsplice(pipes[1], &page, 1, 0) == (ssize_t)page_size(), "vmsplice");
		took += now_ns() - began;
		gt_need(read(pipes[0], sink, page_size()) == (ssize_t)page_size(), "read");
	}
	return took / CALLS;
}

static void measure(const char *name, double (*once)(void), int rounds)
{
	double took = 0;

	/* the mean, as the clock of an emulated machine may tick as seldom as the timer does */
	for (int i = 0; i < rounds; i++)
		took += once();
	printf("# cost: %.0f ns %s\n", took / rounds, name);
}

static double refer_after_protection(void)
{
	page_clear_soft_dirty();
	return refer();
}

static void run(void)
{
	page_stay_on_cpu();
	gt_need(!pipe(pipes), "pipe");
	map = page_map(PAGES, 1);
	write_all();
	measure("fork of 4096 small pages, none ever referred to", fork_once, MANY);
	measure("mprotect there and back, and a write, a page", mprotect_and_write, FEW);
	measure("write fault on a page of one owner", write_after_protection, FEW);
	measure("write fault that copies a shared page", write_after_fork, FEW);
	write_all();
	measure("reference by the fast walk, page writable", refer, MANY);
	measure("reference by the fast walk, page write-protected", refer_after_protection, MANY);
	write_all();
	measure("fork of 4096 small pages, once referred to", fork_once, MANY);
	gt_pass("measured");
}

GUEST_TEST = {
	.summary       = "what paths of copy-on-write cost",
	.contract      = "C-COST",
	.mechanism     = "write faults, fork and references to pages do more or less work",
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "nothing: it measures",
	.run           = run,
};
