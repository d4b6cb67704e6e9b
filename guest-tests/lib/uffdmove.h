/* SPDX-License-Identifier: GPL-2.0-or-later */
/* UFFDIO_MOVE: pages go to another address without a copy. */
#ifndef UFFDMOVE_H
#define UFFDMOVE_H
#include "guesttest.h"
#include "pagestate.h"
#include "pattern.h"
#include "thp.h"
#include "uffd.h"

enum { UFFDMOVE_ALLOW_HOLES = 2, UFFDMOVE_TRIES = 1000 };

struct uffdmove {
	uint64_t target, source, length, mode;
	int64_t moved;
};

static inline int uffdmove_open(void)
{
	return uffd_open_with(1 << 16);	/* UFFD_FEATURE_MOVE */
}

/* Memory for a move: source and target need the same advice, so that they are alike. */
static inline char *uffdmove_map(size_t length, int advice)
{
	char *start = mmap(page_find_room(length, length), length, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	gt_need(start != MAP_FAILED, "mmap");
	gt_need(!madvise(start, length, advice) || advice == MADV_NOHUGEPAGE, "MADV_HUGEPAGE");
	return start;
}

/* 0, or the error. The kernel may ask to try again. */
static inline int uffdmove_try(int fd, char *target, char *source, size_t length, uint64_t mode)
{
	struct uffdmove ask = { (uintptr_t)target, (uintptr_t)source, length, mode, 0 };

	for (int i = 0; i < UFFDMOVE_TRIES && ask.length; i++) {
		ask.moved = 0;
		if (!ioctl(fd, _IOWR(UFFDIO, 0x05, struct uffdmove), &ask))
			return 0;
		if (errno != EAGAIN)
			return errno;
		if (ask.moved > 0) {
			ask.target += ask.moved;
			ask.source += ask.moved;
			ask.length -= ask.moved;
		}
		page_drain_vectors();
	}
	return ask.length ? EAGAIN : 0;
}

static inline void uffdmove_check_empty(const char *start, size_t length, const char *what)
{
	for (size_t at = 0; at < length; at += page_size())
		gt_check(!(page_entry(start + at) & (PAGE_PRESENT | PAGE_SWAPPED)),
			 "there is no page at the %s address, offset %zu, pagemap entry 0x%llx", what, at,
			 (unsigned long long)page_entry(start + at));
}

/* What was never written, and not moved there, is zeros. */
static inline void uffdmove_check_zeros(const char *start, const char *what)
{
	static char zeros[1 << 16];

	gt_need(page_size() <= sizeof(zeros), "room for a page of zeros");
	gt_check_bytes(zeros, start, page_size(), what);
}
#endif
