/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel's count of pinned pages. */
#ifndef PINCOUNT_H
#define PINCOUNT_H
#include "guesttest.h"
#include "pagestate.h"

/* Pages pinned now, in the whole guest; -1 where that is not told exactly. */
static inline long pincount_read(void)
{
	static const char *const names[] = { "nr_foll_pin_acquired ", "nr_foll_pin_released " };
	static char text[16384];
	long count[2];

	page_read_file("/proc/sys/vm/stat_refresh", text, 2);	/* folds in what each CPU has counted */
	if (access("/proc/sys/vm/stat_refresh", R_OK))
		return -1;
	page_read_file("/proc/vmstat", text, sizeof(text));
	for (int i = 0; i < 2; i++) {
		char *found = strstr(text, names[i]);

		if (!found)
			return -1;
		count[i] = strtol(found + strlen(names[i]), NULL, 10);
	}
	return count[0] - count[1];
}
#endif
