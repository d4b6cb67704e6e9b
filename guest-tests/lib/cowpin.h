/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pins taken by module cowpin, held as long as the file is open, and access to the pinned page as by a
 * device. A device that only reads memory takes an R/O pin: the kernel need not unshare the page for
 * that, but the page must stay coherent with the mapping.
 */
#ifndef LIB_COWPIN_H
#define LIB_COWPIN_H
#include "../module/cowpin.h"
#include "guesttest.h"
#include "module.h"
#include "pagestate.h"

/* 0, or -1 with errno. */
static inline int cowpin_try(int fd, void *start, size_t pages, unsigned int flags)
{
	struct cowpin_pin ask = { .addr = (uintptr_t)start, .pages = pages, .flags = flags };

	return ioctl(fd, COWPIN_IOC_PIN, &ask);
}

static inline void cowpin_read(int fd, void *into, size_t length)
{
	struct cowpin_copy ask = { .offset = 0, .buffer = (uintptr_t)into, .size = length };

	gt_need(!ioctl(fd, COWPIN_IOC_READ, &ask), "reading the pinned page");
}

/* Coherency check: the device reads the data that the program sees. */
static inline void cowpin_check(int fd, const char *page, size_t length)
{
	char *seen = malloc(length);

	cowpin_read(fd, seen, length);
	gt_check_bytes(page, seen, length, "bytes read by the device, compared with the page");
	free(seen);
}

/* Returns the file that holds the pin. Checks that the pin refers to the mapped page. */
static inline int cowpin_pin(void *start, size_t pages, unsigned int flags)
{
	char *seen = malloc(page_size());
	int fd = module_open("cowpin");

	gt_need(!cowpin_try(fd, start, pages, flags), "pinning %zu pages", pages);
	cowpin_read(fd, seen, page_size());
	gt_need(!memcmp(seen, start, page_size()), "the pin refers to the mapped page");
	free(seen);
	return fd;
}

/* R/O long-term pin, as taken for a device that only reads. */
static inline int cowpin_pin_readonly(void *page)
{
	return cowpin_pin(page, 1, COWPIN_LONGTERM | COWPIN_FAST);
}

/* Coherency check after the program has written all of the page: read fault, write fault, then the rest. */
static inline void cowpin_check_new(int fd, char *page, size_t length)
{
	uint64_t before = page_frame(page);

	page_touch(page, 'n');
	memset(page, 'n', length);
	gt_note("the write %s", page_frame(page) == before ? "kept the page frame" : "moved to another page frame");
	cowpin_check(fd, page, length);
}

/* How many page tables map the page. */
static inline uint64_t page_map_count(const volatile void *address)
{
	return page_word("/proc/kpagecount", page_frame(address));
}

/* Forks a child that keeps the shared pages until the byte arrives or the test ends. */
static inline pid_t cowpin_sharer(int go[2])
{
	pid_t child;
	char byte;

	gt_need(!pipe(go), "pipe");
	child = gt_fork();
	if (!child) {
		close(go[1]);
		_exit(read(go[0], &byte, 1) < 0);
	}
	close(go[0]);
	return child;
}

static inline void cowpin_end_sharer(pid_t child, int go[2])
{
	close(go[1]);
	gt_reap(child);
}
#endif
