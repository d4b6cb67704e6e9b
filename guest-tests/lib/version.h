/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The version of the running kernel. */
#ifndef VERSION_H
#define VERSION_H
#include "guesttest.h"

static inline bool version_is_at_least(int major, int minor)
{
	struct utsname uts;
	int have[2] = { 0, 0 };

	gt_need(!uname(&uts) && sscanf(uts.release, "%d.%d", &have[0], &have[1]) == 2, "the kernel's version");
	return have[0] > major || (have[0] == major && have[1] >= minor);
}
#endif
