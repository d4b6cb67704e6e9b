// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A huge page of shared memory is mapped by a read fault and then written: only the page table says that it
 * is dirty. When the mapping goes, that must be passed on to the page, or reclaim drops the page as if it
 * were clean, and the file has zeros instead of what was stored. A page that is mapped by a write fault is
 * dirty from the start.
 */
#include "guesttest.h"
#include "pattern.h"
#include "shmemhuge.h"
#include "swap.h"

enum { SALT = 77 };

static size_t length;
static int file;

static char *map_file(void)
{
	char *map = mmap(page_find_room(length, length), length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 file, 0);

	gt_need(map != MAP_FAILED, "mmap of the file");
	gt_need(!madvise(map, length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	return map;
}

static char *map_and_write(void)
{
	char *map = map_file();

	if (!strcmp(gt_param("first"), "read"))
		gt_need(!*(volatile char *)map, "the file begins as zeros");
	else
		*(volatile char *)map = 1;
	gt_need(page_smaps_kib(map, "ShmemPmdMapped") == length >> 10, "the file is mapped as one huge page");
	pattern_write(map, length, SALT);
	page_settle(map);
	return map;
}

static void write_and_drop(const char *how)
{
	char *map;
	pid_t child;

	if (!strcmp(how, "exit")) {
		child = gt_fork();
		if (!child) {
			map_and_write();
			_exit(0);
		}
		gt_reap(child);
		return;
	}
	map = map_and_write();
	if (!strcmp(how, "munmap"))
		gt_need(!munmap(map, length), "munmap");
	else
		gt_need(!madvise(map, length, MADV_DONTNEED), "MADV_DONTNEED");
}

/* Returns how much of the file was written to swap. */
static unsigned long reclaim_kib(void)
{
	unsigned long before = page_read_field("/proc/meminfo", "SwapFree:"), after;
	char *map = map_file();

	gt_need(*(volatile char *)map | 1, "reading the file");
	for (int i = 0; i < 200 && page_entry(map) & PAGE_PRESENT; i++) {
		gt_need(!madvise(map, length, MADV_PAGEOUT), "MADV_PAGEOUT");
		page_drain_vectors();
	}
	gt_need(!(page_entry(map) & PAGE_PRESENT), "reclaim takes the file's page");
	munmap(map, length);
	after = page_read_field("/proc/meminfo", "SwapFree:");
	return before > after ? before - after : 0;
}

static void run(void)
{
	char *expected, *got;
	unsigned long written;

	swap_need();
	length = page_thp_size();
	shmemhuge_set("advise", "inherit");
	file = memfd_create("data", MFD_CLOEXEC);
	gt_need(file >= 0 && !ftruncate(file, length), "a file of %zu bytes", length);
	expected = page_map(length / page_size(), 0);
	got = page_map(length / page_size(), 0);
	pattern_write(expected, length, SALT);
	page_stay_on_cpu();
	write_and_drop(gt_param("drop"));
	written = reclaim_kib();
	gt_need(pread(file, got, length, 0) == (ssize_t)length, "reading the file");
	pattern_check(expected, got, length, "the file after its page was reclaimed");
	gt_need(written >= length / 2048, "the page was written to swap: only %lu KiB were", written);
	gt_pass("the file has what was stored, %lu KiB of it came from swap", written);
}

GUEST_TEST = {
	.summary       = "a store to a huge page of shared memory outlives the mapping",
	.contract      = "C-DATA",
	.mechanism     = "zapping the huge mapping of a file's page forgets its dirty bit, and reclaim drops the page",
	.cve           = "CVE-2026-89987",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y SHMEM=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "drop: munmap dontneed exit; first: read write",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "bytes of the file that are not those that were stored",
	.run           = run,
};
