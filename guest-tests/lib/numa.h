/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Helpers for NUMA balancing: moving between two nodes, fast scanning, and counting of hinting faults. */
#ifndef NUMA_H
#define NUMA_H
#include "guesttest.h"
#include "pagestate.h"
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>

#define NUMA_SYSCTL_DIR "/proc/sys/kernel/numa_balancing"
#define NUMA_DEBUG_DIR "/sys/kernel/debug/sched/numa_balancing/"

/* Moves the thread to the first CPU of a node. */
static inline void numa_go_to_node(int node)
{
	char path[80], text[64];
	cpu_set_t cpus;

	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/cpulist", node);
	page_read_file(path, text, sizeof(text));
	if (text[0] < '0' || text[0] > '9')
		gt_skip("the guest has no NUMA node %d with a CPU", node);
	CPU_ZERO(&cpus);
	CPU_SET(strtoul(text, NULL, 10), &cpus);
	gt_need(!sched_setaffinity(0, sizeof(cpus), &cpus), "going to node %d", node);
}

/* A scan every few milliseconds; the knobs moved to debugfs in 5.13. */
static inline void numa_need_balancing(void)
{
	static const char *const knobs[] = { "scan_delay", "scan_period_min", "scan_period_max" };
	char path[120];

	numa_go_to_node(1);
	numa_go_to_node(0);
	if (!page_write_file(NUMA_SYSCTL_DIR, "1"))
		gt_skip("NUMA balancing cannot be switched on: %s", strerror(errno));
	for (size_t i = 0; i < 3; i++) {
		snprintf(path, sizeof(path), NUMA_SYSCTL_DIR "_%s_ms", knobs[i]);
		if (page_write_file(path, "20"))
			continue;
		snprintf(path, sizeof(path), NUMA_DEBUG_DIR "%s_ms", knobs[i]);
		if (!page_write_file(path, "20"))
			gt_note("no knob %s", knobs[i]);
	}
}

/* Minor faults of this thread: if all pages are present, each is a hinting fault. */
static inline long numa_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt;
}

/* The scan depends on the run time of a thread, not on wall-clock time. */
static inline void numa_work(void)
{
	for (volatile int i = 0; i < 100000; i++)
		;
}

/* Since 6.1 a page that waits for a hinting fault counts as not there: it is touched, and asked for again. */
static inline int numa_node_of(void *page)
{
	int node = -1;

	for (int i = 0; i < 100 && node < 0; i++) {
		(void)*(volatile char *)page;
		gt_need(!syscall(SYS_move_pages, 0, 1UL, &page, NULL, &node, 0), "query of a page's node");
	}
	gt_need(node >= 0, "a valid node of a page, not %d", node);
	return node;
}
#endif
