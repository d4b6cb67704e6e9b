/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory whose bytes all differ from their neighbours, with a copy of the expected content: a page that
 * was copied in part, to the wrong place or not at all does not compare equal.
 */
#ifndef PATTERN_H
#define PATTERN_H
#include "guesttest.h"
#include "pagestate.h"
#include <sys/mman.h>
#include <time.h>

static inline void pattern_write(void *start, size_t length, uint64_t salt)
{
	volatile uint64_t *words = start;

	for (size_t i = 0; i < length / sizeof(*words); i++)
		words[i] = (i + 1) * 0x9e3779b97f4a7c15ULL ^ salt * 0xbf58476d1ce4e5b9ULL;
}

/* A number that no other test, and no earlier run of this one, has used as salt. */
static inline uint64_t pattern_new_salt(void)
{
	struct timespec now;

	gt_need(!clock_gettime(CLOCK_REALTIME, &now), "the time");
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* Fills the memory. Returns a copy, in small pages of its own. */
static inline char *pattern_fill(void *start, size_t length, uint64_t salt)
{
	char *copy = page_map((length + page_size() - 1) / page_size(), 0);

	pattern_write(start, length, salt);
	pattern_write(copy, length, salt);
	return copy;
}

/* The same write to the memory and to the copy. */
static inline void pattern_set(char *start, char *copy, size_t offset, char value)
{
	((volatile char *)start)[offset] = value;
	copy[offset] = value;
}

static inline void pattern_check(const char *copy, const char *start, size_t length, const char *what)
{
	if (memcmp(copy, start, length))
		gt_check_bytes(copy, start, length, what);
}
#endif
