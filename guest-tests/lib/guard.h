/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Guard regions: pages of a mapping that cannot be accessed, by a mark in the page table. */
#ifndef GUARD_H
#define GUARD_H
#include "access.h"
#include "guesttest.h"
#include "pagestate.h"

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102
#define MADV_GUARD_REMOVE 103
#endif
#define PAGE_GUARD (1ULL << 58)		/* in pagemap, since 6.15 */

/* Skips if the kernel has no guard regions in such memory. The pages lose their content. */
static inline void guard_install(char *start, size_t length)
{
	if (!madvise(start, length, MADV_GUARD_INSTALL))
		return;
	gt_need(errno == EINVAL, "MADV_GUARD_INSTALL");
	gt_skip("the kernel has no guard regions in such memory");
}

/* Each page ends a read and a write by SIGSEGV. */
static inline void guard_check(char *start, size_t length, const char *when)
{
	for (char *page = start; page < start + length; page += page_size()) {
		gt_check(!access_can_read(page), "a read of the guard page at offset %zu ends in SIGSEGV %s",
			 (size_t)(page - start), when);
		gt_check(!access_can_write(page + page_size() - 1, 'x'),
			 "a write to the guard page at offset %zu ends in SIGSEGV %s", (size_t)(page - start), when);
	}
}
#endif
