/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Huge pages of shared memory: the knobs that allow them, set for a test. */
#ifndef SHMEMHUGE_H
#define SHMEMHUGE_H
#include "guesttest.h"
#include "pagestate.h"
#include "thp.h"
#include <glob.h>

enum { SHMEMHUGE_KNOBS = 24 };

static struct {
	glob_t knobs;
	char before[SHMEMHUGE_KNOBS][16];
} shmemhuge;

static inline void shmemhuge_give_back(void)
{
	for (size_t i = 0; i < shmemhuge.knobs.gl_pathc; i++)
		page_write_file(shmemhuge.knobs.gl_pathv[i], shmemhuge.before[i]);
}

/* global: for all sizes; each: what each size says where the kernel has such files. Until the test ends. */
static inline void shmemhuge_set(const char *global, const char *each)
{
	bool is_first = !shmemhuge.knobs.gl_pathc;

	if (is_first) {
		if (glob(PAGE_THP_DIR "shmem_enabled", 0, NULL, &shmemhuge.knobs))
			gt_skip("the kernel has no huge pages of shared memory");
		glob(PAGE_THP_DIR "hugepages-*kB/shmem_enabled", GLOB_APPEND, NULL, &shmemhuge.knobs);
		gt_need(shmemhuge.knobs.gl_pathc <= SHMEMHUGE_KNOBS, "not more than %d sizes", SHMEMHUGE_KNOBS);
		for (size_t i = 0; i < shmemhuge.knobs.gl_pathc; i++)
			page_read_chosen(shmemhuge.knobs.gl_pathv[i], shmemhuge.before[i],
					 sizeof(shmemhuge.before[i]));
		gt_at_end(shmemhuge_give_back);
	}
	for (size_t i = 0; i < shmemhuge.knobs.gl_pathc; i++)
		gt_need(page_write_file(shmemhuge.knobs.gl_pathv[i], i ? each : global), "writing %s to %s",
			i ? each : global, shmemhuge.knobs.gl_pathv[i]);
}
#endif
