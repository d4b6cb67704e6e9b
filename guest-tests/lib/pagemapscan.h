/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The ioctl PAGEMAP_SCAN of 6.7: which pages of a range are in given categories, and write protection of these. */
#ifndef PAGEMAPSCAN_H
#define PAGEMAPSCAN_H
#include "guesttest.h"
#include "pagestate.h"
#include "uffd.h"

enum { PAGEMAPSCAN_WRITTEN = 1 << 1, PAGEMAPSCAN_PRESENT = 1 << 3, PAGEMAPSCAN_SWAPPED = 1 << 4,
       PAGEMAPSCAN_SOFT_DIRTY = 1 << 7 };		/* categories */
enum { PAGEMAPSCAN_PROTECT = 1, PAGEMAPSCAN_MUST_PROTECT = 2 };	/* flags */

struct pagemapscan_range {
	uint64_t start, end, categories;
};

struct pagemapscan {
	uint64_t size, flags, start, end, walk_end, ranges, range_count, max_pages, inverted, all_of, any_of, report;
};

#define PAGEMAPSCAN_IOCTL _IOWR('f', 16, struct pagemapscan)

/* Returns what the ioctl does, with errno. Skips if the kernel does not have it, or a category. */
static inline long pagemapscan_ask(struct pagemapscan *ask)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC), error;
	long got;

	gt_need(fd >= 0, "/proc/self/pagemap");
	ask->size = sizeof(*ask);
	got = ioctl(fd, PAGEMAPSCAN_IOCTL, ask);
	error = errno;
	close(fd);
	if (got < 0 && error == ENOTTY)
		gt_skip("the kernel has no PAGEMAP_SCAN");
	if (got < 0 && error == EINVAL)
		gt_skip("PAGEMAP_SCAN knows no category of 0x%llx", (unsigned long long)(ask->all_of | ask->report));
	errno = error;
	return got;
}

/*
 * Sets is[n] for each page that has the category, reporting others beside it, if any. protect: and
 * write-protects those, if they are written.
 */
static inline void pagemapscan_read(char *start, size_t length, uint64_t category, uint64_t others, bool protect,
				    bool *is)
{
	struct pagemapscan_range ranges[8];
	char *end = start + length;
	const size_t page = page_size();

	memset(is, 0, length / page * sizeof(*is));
	for (char *from = start; from < end; ) {
		struct pagemapscan ask = {
			.flags = protect ? PAGEMAPSCAN_PROTECT | PAGEMAPSCAN_MUST_PROTECT : 0,
			.start = (uintptr_t)from, .end = (uintptr_t)end, .ranges = (uintptr_t)ranges,
			.range_count = sizeof(ranges) / sizeof(*ranges), .all_of = category, .report = category | others
		};
		long got = pagemapscan_ask(&ask);

		gt_need(got >= 0 && (char *)ask.walk_end > from, "PAGEMAP_SCAN");
		for (long i = 0; i < got; i++)
			for (char *at = (char *)ranges[i].start; at < (char *)ranges[i].end; at += page) {
				gt_check(start <= at && at < end, "PAGEMAP_SCAN reports pages of the range, not %p", at);
				is[(at - start) / page] = true;
			}
		from = (char *)ask.walk_end;
	}
}

/* Write-protects the pages of the category, or all pages if it is 0, without a report. */
static inline void pagemapscan_protect(char *start, size_t length, uint64_t category)
{
	struct pagemapscan ask = {
		.flags = PAGEMAPSCAN_PROTECT | PAGEMAPSCAN_MUST_PROTECT, .start = (uintptr_t)start,
		.end = (uintptr_t)start + length, .all_of = category
	};

	gt_need(pagemapscan_ask(&ask) >= 0 && ask.walk_end == (uintptr_t)start + length, "PAGEMAP_SCAN");
}

/* Write protection that the kernel removes by itself at a write, also of pages that are not there yet. */
static inline void pagemapscan_register(char *start, size_t length)
{
	const uint64_t shared = UINT64_C(1) << 12, unpopulated = UINT64_C(1) << 13,
		       async = UINT64_C(1) << 15;
	int fd = uffd_open_with(UFFD_FEATURE_PAGEFAULT_FLAG_WP | shared | unpopulated | async);

	uffd_register(fd, start, length, UFFDIO_REGISTER_MODE_WP);
}
#endif
