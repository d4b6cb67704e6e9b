// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * perf samples physical addresses by GUP-fast in exception context, where it must not wait for any
 * lock. Here each access to a THP that is shared with a child triggers such an exception, while
 * another thread splits and drops the THP.
 */
#include "guesttest.h"
#include "rate.h"
#include "thp.h"
#include <linux/hw_breakpoint.h>
#include <linux/perf_event.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <time.h>

enum { SECONDS = 4, RING_PAGES = 64 };

static struct {
	char *huge;
	size_t length;
	unsigned long accesses, splits;
	bool over;
} shared;

static bool is_over(void)
{
	return __atomic_load_n(&shared.over, __ATOMIC_RELAXED);
}

/* The PMD is split, then the page; the next access gets another one. */
static void *split_on(void *arg)
{
	size_t page = page_size();
	pid_t child;

	(void)arg;
	for (; !is_over(); shared.splits++) {
		child = fork();
		gt_need(child >= 0, "fork");
		if (!child) {
			madvise(shared.huge + 4 * page, 4 * page, MADV_DONTNEED);
			_exit(0);
		}
		page_mprotect_cycle(shared.huge + 2 * page, page);
		gt_need(!madvise(shared.huge + 3 * page, page, MADV_DONTNEED), "MADV_DONTNEED");
		gt_need(waitpid(child, NULL, 0) == child, "waiting for a child");
		gt_need(!madvise(shared.huge, shared.length, MADV_DONTNEED), "MADV_DONTNEED");
	}
	return NULL;
}

static int watch(void *address)
{
	struct perf_event_attr attr = {
		.type = PERF_TYPE_BREAKPOINT, .size = sizeof(attr), .bp_type = HW_BREAKPOINT_RW,
		.bp_addr = (uintptr_t)address, .bp_len = HW_BREAKPOINT_LEN_1, .sample_period = 1,
		.sample_type = PERF_SAMPLE_ADDR | PERF_SAMPLE_PHYS_ADDR, .exclude_kernel = 1, .exclude_hv = 1,
	};
	int fd = syscall(SYS_perf_event_open, &attr, 0, -1, -1, 0);

	if (fd < 0)
		gt_skip("no hardware breakpoints with physical addresses: %s", strerror(errno));
	return fd;
}

struct sample {
	struct perf_event_header header;
	uint64_t address, physical;
};

/* Takes what is in the ring. Returns how many records have a physical address; sets the last one. */
static unsigned long take_samples(struct perf_event_mmap_page *ring, uint64_t *last)
{
	char *data = (char *)ring + page_size();
	uint64_t head = __atomic_load_n(&ring->data_head, __ATOMIC_ACQUIRE), tail = ring->data_tail;
	size_t room = RING_PAGES * page_size();
	unsigned long found = 0;
	struct sample sample;

	while (tail < head) {
		for (size_t i = 0; i < sizeof(sample); i++)	/* it may go round the end */
			((char *)&sample)[i] = data[(tail + i) % room];
		if (sample.header.type == PERF_RECORD_SAMPLE && sample.physical) {
			found++;
			*last = sample.physical;
		}
		tail += sample.header.size;
	}
	__atomic_store_n(&ring->data_tail, tail, __ATOMIC_RELEASE);
	return found;
}

static void run(void)
{
	struct perf_event_mmap_page *ring;
	unsigned long found = 0;
	const time_t end = time(NULL) + SECONDS;
	uint64_t physical = 0;
	volatile char *byte;
	pthread_t splitter;
	int fd;

	shared.huge = page_map_thp(&shared.length, 'o');
	byte = shared.huge + page_size() + 8;
	fd = watch((char *)byte);
	ring = mmap(NULL, (1 + RING_PAGES) * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	gt_need(ring != MAP_FAILED, "the ring of a perf event");
	gt_need(!pthread_create(&splitter, NULL, split_on, NULL), "a thread");
	for (; time(NULL) <= end; shared.accesses++) {
		*byte = 'n';
		found += take_samples(ring, &physical);
	}
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(splitter, NULL), "pthread_join");
	gt_need(shared.accesses > 100 && shared.splits > 10 && found > 50,
		"enough iterations: %lu accesses, %lu physical addresses, %lu splits", shared.accesses, found,
		shared.splits);
	*byte = 'n';
	*byte = 'm';		/* the first may have been a fault */
	gt_need(take_samples(ring, &physical), "a physical address without concurrent splits");
	gt_check(physical == page_frame(byte) * page_size() + (uintptr_t)byte % page_size(),
		 "the physical address matches frame 0x%llx of the pagemap, but is 0x%llx",
		 (unsigned long long)page_frame(byte), (unsigned long long)physical);
	gt_rate(0, shared.accesses);	/* one hit is the guest's end */
	gt_pass("%lu physical addresses of %lu accesses, against %lu splits of the page", found, shared.accesses,
		shared.splits);
}

GUEST_TEST = {
	.summary       = "physical addresses can be sampled in exceptions while the page is split",
	.contract      = "C-LIVE",
	.mechanism     = "GUP-fast in an exception spins on a lock that the interrupted task holds",
	.changelog     = "39",
	.needs_kconfig = "PERF_EVENTS=y HAVE_HW_BREAKPOINT=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.needs_root    = true,
	.may_crash     = true,
	.cpus          = 2,
	.memory_mib    = 768,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a lockup, a kernel splat, a wrong physical address",
	.run           = run,
};
