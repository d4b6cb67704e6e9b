// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A write to a KSM page takes a fault and a copy, so the writer can learn that somebody has a page
 * with equal contents. The test compares by rank: how often a write to a duplicated page is slower
 * than a write to a unique one. Without ksmd, the control, there must be no difference.
 */
#include "ksm.h"
#include <time.h>

enum { PAGES = 256, MOST_PERCENT = 70 };

static void fill(char *page, unsigned int seed)
{
	for (size_t i = 0; i < page_size(); i += sizeof(seed))
		memcpy(page + i, &(unsigned int){ seed * 2654435761u + i }, sizeof(seed));
}

/* Of a clock that tells tens of nanoseconds apart. */
static long now(void)
{
#if defined(__x86_64__)
	return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
	long ticks;

	asm volatile("isb; mrs %0, cntvct_el0" : "=r"(ticks));
	return ticks;
#else
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000L + time.tv_nsec;
#endif
}

static long time_write(volatile char *byte)
{
	long before = now();

	*byte = 'n';
	return now() - before;
}

/* In percent: 50 if slower and faster are even. */
static unsigned int rank(const long *twice, const long *once, int n)
{
	unsigned long slower = 0;

	for (int i = 0; i < n; i++)
		for (int j = 0; j < n; j++)
			slower += twice[i] > once[j] ? 2 : twice[i] == once[j];
	return slower * 50 / ((unsigned long)n * n);
}

static int count_distinct(const long *values, int n)
{
	int distinct = 0;

	for (int i = 0; i < n; i++) {
		bool is_new = true;

		for (int j = 0; j < i; j++)
			is_new &= values[i] != values[j];
		distinct += is_new;
	}
	return distinct;
}

static void merge(char *mine, char *other, size_t page)
{
	uint64_t alone[PAGES];

	for (int i = 1; i < PAGES; i += 2)
		alone[i] = page_frame(mine + i * page);
	ksm_start();
	ksm_offer(mine, PAGES);
	ksm_offer(other, PAGES / 2);
	for (int i = 0; i < PAGES; i += 2)
		while (!ksm_is_merged(mine + i * page, other + i / 2 * page))
			ksm_wait_scans(1);	/* a ksmd that does not merge ends in the test's timeout */
	ksm_stop();
	for (int i = 1; i < PAGES; i += 2)
		gt_need(page_frame(mine + i * page) == alone[i], "a page that exists once is not merged");
	if (!access(KSM_DIR "matched_random_distribution", F_OK))
		gt_note("the kernel has a mitigation, which may have to be enabled");
}

static void run(void)
{
	bool is_on = !strcmp(gt_param("ksm"), "on");
	char *mine = page_map(PAGES, 'o'), *other = page_map(PAGES / 2, 'o');
	long took[2][PAGES / 2];
	size_t page = page_size();
	unsigned int percent;

	for (int i = 0; i < PAGES; i++)
		fill(mine + i * page, i);
	for (int i = 0; i < PAGES; i += 2)
		fill(other + i / 2 * page, i);
	if (is_on)
		merge(mine, other, page);
	for (int i = 0; i < PAGES; i++)
		took[i % 2][i / 2] = time_write(mine + i * page);
	gt_need(count_distinct(took[1], PAGES / 2) > 3, "a clock that resolves a write to memory");
	percent = rank(took[0], took[1], PAGES / 2);
	gt_check(percent < MOST_PERCENT && percent > 100 - MOST_PERCENT,
		 "a page of which there are two is as fast to write as one of which there is one, but of %d pairs "
		 "it is slower in %u%%", PAGES / 2 * PAGES / 2, percent);
	gt_pass("of %d pairs, the page of which there are two is slower to write in %u%%", PAGES / 2 * PAGES / 2,
		percent);
}

GUEST_TEST = {
	.summary       = "the time of a write does not reveal whether another process has an equal page",
	.contract      = "C-ISO",
	.mechanism     = "a write to a KSM page takes a fault and a copy",
	.cve           = "CVE-2015-2877",
	.changelog     = "35",
	.needs_kconfig = "KSM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.11",
	.params        = "ksm: off on",
	.needs_root    = true,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "write latency reveals the memory of others",
	.run           = run,
};
