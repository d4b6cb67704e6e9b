/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reclaim of all memory of the test, shared pages too: the test is in a memory cgroup of its own. */
#ifndef MEMCG_H
#define MEMCG_H
#include "guesttest.h"
#include "pagestate.h"
#include "swap.h"
#include <sys/mount.h>
#include <sys/stat.h>

static char memcg_root[] = "/tmp/cgroup-XXXXXX", memcg_group[64];

static inline bool memcg_write(const char *folder, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", folder, file);
	return page_write_file(path, text);
}

static inline void memcg_leave(void)
{
	memcg_write(memcg_root, "cgroup.procs", "0");
	rmdir(memcg_group);
	umount2(memcg_root, MNT_DETACH);
	rmdir(memcg_root);
}

/* Before the test has its memory: pages that are there already belong to no group. */
static inline void memcg_enter(void)
{
	char path[128];

	gt_need(mkdtemp(memcg_root), "a folder in /tmp");
	if (mount("none", memcg_root, "cgroup2", 0, NULL)) {
		rmdir(memcg_root);
		gt_skip("the kernel has no cgroup2: %s", strerror(errno));
	}
	snprintf(memcg_group, sizeof(memcg_group), "%s/cowbell", memcg_root);
	gt_at_end(memcg_leave);
	if (!memcg_write(memcg_root, "cgroup.subtree_control", "+memory"))
		gt_skip("there is no memory controller in cgroup2: %s", strerror(errno));
	gt_need(!mkdir(memcg_group, 0700) || errno == EEXIST, "a cgroup");
	snprintf(path, sizeof(path), "%s/memory.reclaim", memcg_group);
	if (access(path, F_OK))
		gt_skip("the kernel has no memory.reclaim");
	gt_need(memcg_write(memcg_group, "cgroup.procs", "0"), "joining the cgroup");
}

/* Asks for reclaim of all that the group has, until no page of the range is mapped. Returns whether that is so. */
static inline bool memcg_reclaim(const char *start, size_t pages)
{
	for (int i = 0; i < 50; i++) {
		size_t present = 0;

		page_drain_vectors();
		memcg_write(memcg_group, "memory.reclaim", "64M");	/* an error if it was less */
		for (size_t page = 0; page < pages; page++)
			present += !!(page_entry(start + page * page_size()) & PAGE_PRESENT);
		if (!present)
			return true;
	}
	return false;
}
#endif
