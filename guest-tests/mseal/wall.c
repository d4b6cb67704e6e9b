// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is sealed by mseal() cannot be changed any more. layout=merging: every other part of the range is
 * sealed already, so each part that is sealed now becomes one mapping with its neighbours, while the kernel
 * goes from mapping to mapping. None of the parts may be left out, and nothing around the range be sealed.
 * How many mappings remain is noted: 6.17 and 6.18 lose their place, and leave more than one.
 */
#include "guesttest.h"
#include "pattern.h"
#include "thp.h"
#include <fcntl.h>
#include <sys/syscall.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

enum { PARTS = 7, PAGES = 2 };	/* of the range; of a part. One part more on each side is not sealed. */

static char *range, *spare;	/* spare: room for what moves */
static size_t part;

static bool seal(char *start, size_t length)
{
	return !syscall(SYS_mseal, start, length, 0UL);
}

/* 0, or the error of the operation on these parts. */
static int act(const char *verb, char *start, size_t length)
{
	void *got = NULL;
	int status = 0;

	if (!strcmp(verb, "munmap"))
		status = munmap(start, length);
	else if (!strcmp(verb, "mprotect"))
		status = mprotect(start, length, PROT_READ | PROT_WRITE | PROT_EXEC);
	else if (!strcmp(verb, "pkey-mprotect"))
		status = syscall(SYS_pkey_mprotect, start, length, PROT_NONE, -1);
	else if (!strcmp(verb, "dontneed"))
		status = madvise(start, length, MADV_DONTNEED);
	else if (!strcmp(verb, "mmap-over"))
		got = mmap(start, length, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	else if (!strcmp(verb, "mremap-move"))
		got = mremap(start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, spare);
	else if (!strcmp(verb, "mremap-shrink"))
		got = mremap(start, length, length - page_size(), 0);
	else if (!strcmp(verb, "mremap-over"))
		got = mremap(spare, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, start);
	else
		gt_broken("no operation named %s", verb);
	return status || got == MAP_FAILED ? errno : 0;
}

static char *read_maps(void)
{
	static char texts[2][1 << 16];
	static int turn;
	char *text = texts[turn = !turn];
	size_t used = 0;
	int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);

	gt_need(fd >= 0, "/proc/self/maps");
	for (ssize_t n; (n = read(fd, text + used, sizeof(texts[0]) - 1 - used)) > 0; used += n)
		;
	gt_need(used > 0 && used < sizeof(texts[0]) - 1, "all of /proc/self/maps");
	text[used] = 0;
	close(fd);
	return text;
}

static int count_mappings(void)
{
	unsigned long start, end;
	int count = 0;

	for (char *line = read_maps(); line && sscanf(line, "%lx-%lx", &start, &end) == 2;
	     line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		count += (char *)start < range + PARTS * part && range < (char *)end;
	return count;
}

static void check_refused(const char *verb, char *start, size_t length, const char *expected, const char *what)
{
	const char *before = read_maps();
	int error = act(verb, start, length);

	gt_check(error == EPERM, "%s of %s is refused with EPERM, not %s", verb, what, error ? strerror(error) : "done");
	gt_check(!strcmp(before, read_maps()), "%s of %s changes no mapping", verb, what);
	pattern_check(expected, range, PARTS * part, "the sealed memory");
}

static void map(void)
{
	range = page_find_room((PARTS + 2) * part, part) + part;
	spare = page_find_room(PARTS * part, part);
	gt_need(mmap(range - part, (PARTS + 2) * part, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED, "mmap");
	gt_need(mmap(spare, PARTS * part, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
		MAP_FAILED, "mmap");
}

static void run(void)
{
	const char *verb = gt_param("verb");
	char *expected, name[40];

	part = PAGES * page_size();
	map();
	if (act("pkey-mprotect", spare, part) == ENOSYS && !strcmp(verb, "pkey-mprotect"))
		gt_skip("the kernel has no pkey_mprotect()");
	gt_need(!mprotect(spare, part, PROT_READ | PROT_WRITE), "mprotect");
	expected = pattern_fill(range, PARTS * part, 462);
	memset(spare, 's', PARTS * part);
	/* Only memory that cannot be written is protected from being discarded. */
	gt_need(!mprotect(range, PARTS * part, PROT_READ), "mprotect before the range is sealed");
	if (!strcmp(gt_param("layout"), "merging"))
		for (int i = 1; i < PARTS; i += 2)
			if (!seal(range + i * part, part))
				gt_skip("mseal(): %s", strerror(errno));
	if (!seal(range, PARTS * part))
		gt_skip("mseal(): %s", strerror(errno));
	gt_note("the sealed range is %d mapping(s)", count_mappings());
	for (int i = 0; i < PARTS; i++) {
		snprintf(name, sizeof(name), "part %d of %d", i + 1, PARTS);
		check_refused(verb, range + i * part, part, expected, name);
	}
	check_refused(verb, range, PARTS * part, expected, "the whole range");
	for (int i = -1; i <= PARTS; i += PARTS + 1) {
		int error = act(verb, range + i * part, part);

		gt_check(!error, "%s works %s the sealed range: %s", verb, i < 0 ? "before" : "after", strerror(error));
		if (!strcmp(verb, "mremap-move") || !strcmp(verb, "mremap-over"))
			gt_need(mmap(spare, part, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == spare,
				"mmap");
	}
	pattern_check(expected, range, PARTS * part, "the sealed memory");
	gt_pass("%s is refused in all of the sealed range, and works around it", verb);
}

GUEST_TEST = {
	.summary       = "no part of a sealed range can be changed",
	.contract      = "C-ISO",
	.mechanism     = "mappings become one while they are sealed, and the next one is stepped over",
	.fixes         = "2697dd8ae721",
	.cve           = "CVE-2026-23416",
	.min_kernel    = "6.10",
	.params        = "verb: munmap mremap-move mremap-shrink mremap-over mmap-over mprotect pkey-mprotect dontneed; layout: one merging",
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "an operation that succeeds on a part of the range, or changes the mappings",
	.run           = run,
};
