// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The other odirect tests stall the read to interfere; here all threads run freely. One thread
 * reads from the disk into the first half of a page, one writes to the second half, and one makes
 * the kernel write-protect or swap out the page. The rate of lost reads shows how often a real
 * program would lose data.
 */
#include "guesttest.h"
#include "rate.h"
#include "stalledio.h"
#include "swap.h"
#include <time.h>

enum { PAGES = 32, SECONDS = 5, UPSETS = 50 };

static struct {
	char *buffer, *on_disk;
	unsigned long reads, lost, writes, upsets;
	int fd;
	bool over, swaps;
} shared;

static bool is_over(void)
{
	return __atomic_load_n(&shared.over, __ATOMIC_RELAXED);
}

static void *write_other_halves(void *arg)
{
	size_t page = page_size();
	unsigned int next = 1;

	(void)arg;
	for (; !is_over(); shared.writes++) {
		next = next * 1103515245 + 12345;
		page_touch(shared.buffer + (next >> 16) % PAGES * page + page - 1, next >> 8);
	}
	return NULL;
}

static unsigned long pages_in_swap(void)
{
	unsigned long out = 0;

	for (int i = 0; i < PAGES; i++)
		out += !!(page_entry(shared.buffer + i * page_size()) & PAGE_SWAPPED);
	return out;
}

static void *upset_pages(void *arg)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	(void)arg;
	while (!is_over()) {
		if (shared.swaps) {
			madvise(shared.buffer, PAGES * page_size(), MADV_PAGEOUT);
			shared.upsets += pages_in_swap();
		} else {
			gt_check(write(fd, "4", 1) == 1, "clear_refs takes a 4");
			shared.upsets++;
		}
		sched_yield();
	}
	return NULL;
}

static void open_file(void)
{
	char name[] = "rdstress.XXXXXX";
	size_t half = page_size() / 2, size = PAGES * half;
	int fd = mkstemp(name);

	gt_need(!posix_memalign((void **)&shared.on_disk, page_size(), size), "memory");
	for (size_t i = 0; i < size; i++)
		shared.on_disk[i] = 1 + i % 63;
	gt_need(fd >= 0 && write(fd, shared.on_disk, size) == (ssize_t)size && !fsync(fd), "writing a file");
	close(fd);
	shared.fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (shared.fd < 0)
		gt_skip("no O_DIRECT on the file system of the current directory: %s", strerror(errno));
}

/* On a busy host a swap disk takes its time: it may be three times as long. */
static bool is_enough(time_t begin)
{
	time_t seconds = time(NULL) - begin;
	bool upset = __atomic_load_n(&shared.upsets, __ATOMIC_RELAXED) > UPSETS;

	return seconds > SECONDS && (upset || seconds > 3 * SECONDS);
}

static void read_on(void)
{
	size_t page = page_size(), half = page / 2;
	time_t begin = time(NULL);

	for (int i = 0; !is_enough(begin); i = (i + 1) % PAGES, shared.reads++) {
		char *target = shared.buffer + i * page;
		ssize_t got;

		memset(target, 0, half);
		got = pread(shared.fd, target, half, i * half);
		if (got < 0 && errno == EINVAL)
			gt_skip("the disk's blocks are larger than %zu bytes", half);
		gt_need(got == (ssize_t)half, "a direct read");
		shared.lost += !!memcmp(target, shared.on_disk + i * half, half);
	}
}

static void run(void)
{
	pthread_t writer, upsetter;

	shared.swaps = !strcmp(gt_param("mode"), "swap");
	if (shared.swaps)
		swap_need();
	else
		page_clear_soft_dirty();
	shared.buffer = page_map(PAGES, 'o');
	open_file();
	gt_need(!pthread_create(&writer, NULL, write_other_halves, NULL) &&
		!pthread_create(&upsetter, NULL, upset_pages, NULL), "threads");
	read_on();
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(writer, NULL) && !pthread_join(upsetter, NULL), "pthread_join");
	gt_need(shared.reads > 100 && shared.upsets > UPSETS && shared.writes > 100,
		"enough iterations: %lu reads, %lu writes, pages %s %lu times", shared.reads, shared.writes,
		shared.swaps ? "sent to swap" : "write-protected", shared.upsets);
	gt_rate(shared.lost, shared.reads);
	gt_check(!shared.lost, "no O_DIRECT read is lost, but %lu of %lu were, while pages were %s %lu times",
		 shared.lost, shared.reads, shared.swaps ? "sent to swap" : "write-protected", shared.upsets);
	gt_pass("%lu O_DIRECT reads, none lost, while pages were %s %lu times and written %lu times",
		shared.reads, shared.swaps ? "sent to swap" : "write-protected", shared.upsets, shared.writes);
}

GUEST_TEST = {
	.summary       = "O_DIRECT reads survive concurrent writes to the same page under write protection",
	.contract      = "C-READ",
	.mechanism     = "do_wp_page() copies a page that the disk is still writing to",
	.changelog     = "29b",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "mode: softdirty swap",
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a read succeeds and leaves the buffer unchanged",
	.run           = run,
};
