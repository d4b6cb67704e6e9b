// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MADV_COLLAPSE makes a huge page of shared memory whatever the settings of transparent huge pages say, but
 * for "deny", which is for emergencies.
 */
#include "collapse.h"
#include "guesttest.h"
#include "pattern.h"
#include "shmemhuge.h"

static void run(void)
{
	bool is_denied = !strcmp(gt_param("setting"), "deny");
	size_t length = page_thp_size();
	char *map, *copy;
	int error;

	shmemhuge_set(is_denied ? "deny" : "never", "never");
	map = mmap(page_find_room(length, length), length, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(map != MAP_FAILED, "mmap");
	copy = pattern_fill(map, length, 3);
	gt_need(!page_smaps_kib(map, "ShmemPmdMapped"), "the memory begins as small pages");
	page_stay_on_cpu();
	page_settle(map + length - page_size());
	error = madvise(map, length, MADV_COLLAPSE) ? errno : 0;
	gt_note("MADV_COLLAPSE: %s", error ? strerror(error) : "done");
	pattern_check(copy, map, length, "the memory afterwards");
	if (is_denied) {
		gt_check(error == EINVAL, "MADV_COLLAPSE is refused as invalid under deny");
		gt_check(!page_smaps_kib(map, "ShmemPmdMapped"), "no huge page under deny");
		gt_pass("no huge page under deny");
	}
	gt_need(error != EAGAIN && error != ENOMEM && error != EBUSY, "no page was in the way: %s",
		strerror(error));
	gt_check(!error, "MADV_COLLAPSE works under never");
	gt_check(page_smaps_kib(map, "ShmemPmdMapped") == length >> 10, "the memory is one huge page");
	gt_pass("the memory is a huge page although all settings are never");
}

GUEST_TEST = {
	.summary       = "MADV_COLLAPSE of shared memory does not ask the settings of huge pages",
	.contract      = "C-LIVE",
	.mechanism     = "MADV_COLLAPSE of anonymous shared memory is held to the settings for page faults",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y SHMEM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "6.1",
	.params        = "setting: never deny",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "an error of MADV_COLLAPSE, or no huge page",
	.run           = run,
};
