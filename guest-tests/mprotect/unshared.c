// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An R/O reference to a page that is shared with a child may give the process a copy, as a write does. But
 * the memory is PROT_READ: the copy must not be writable, neither for the program nor for read().
 */
#include "access.h"
#include "cowpin.h"
#include "pagekind.h"
#include "partner.h"
#include "pattern.h"
#include <sys/uio.h>

static char *map, *expected;
static size_t length;

static bool kernel_can_write(char *byte)
{
	int file = memfd_create("byte", MFD_CLOEXEC);
	ssize_t got;

	gt_need(file >= 0 && write(file, "x", 1) == 1, "a file in memory");
	got = pread(file, byte, 1, 0);
	gt_need(got == 1 || errno == EFAULT, "reading a byte of a file");
	close(file);
	return got == 1;
}

/* referenced: how many bytes, from the start, have a reference. */
static void check_readonly(size_t referenced, const char *who)
{
	gt_note("the %s writes to PROT_READ memory", who);
	for (size_t at = 11; at < length; at += at < referenced ? page_size() : length - at) {
		gt_check(!access_can_write(map + at, 'x'), "a write at offset %zu ends in SIGSEGV", at);
		gt_check(!kernel_can_write(map + at), "read() into offset %zu ends in EFAULT", at);
	}
	pattern_check(expected, map, length, "the memory after the writes that were refused");
}

/* Returns how much is referenced. */
static size_t take_reference(void)
{
	struct iovec slice = { map, 4 * page_size() };
	int spliced[2], pin;

	if (!strcmp(gt_param("by"), "vmsplice")) {
		gt_need(!pipe(spliced), "pipe");
		gt_need(vmsplice(spliced[1], &slice, 1, 0) == (ssize_t)slice.iov_len, "vmsplice");
	} else {
		pin = module_open("cowpin");
		gt_need(!cowpin_try(pin, map, 4, COWPIN_LONGTERM | COWPIN_FAST), "pinning the pages");
	}
	return 4 * page_size();
}

static void run(void)
{
	struct partner child;
	uint64_t before;
	size_t referenced;

	map = pagekind_map(gt_param("page"), 2, &length);
	expected = pattern_fill(map, length, 1);
	gt_check(access_can_write(map + 11, 'x') && kernel_can_write(map + 11), "writable memory is writable");
	expected[11] = 'x';
	gt_need(!mprotect(map, length, PROT_READ), "mprotect to PROT_READ");
	if (partner_fork(&child)) {
		partner_wait(&child);
		check_readonly(0, "child");
		partner_wake(&child);
		partner_wait(&child);
		pattern_check(expected, map, length, "the child's memory after the parent wrote");
		partner_end(&child);
	}
	before = page_frame(map);
	referenced = take_reference();
	gt_note("the reference %s", page_frame(map) == before ? "makes no copy" : "makes a copy");
	check_readonly(referenced, "parent");
	partner_wake(&child);
	partner_wait(&child);
	gt_need(!mprotect(map, length, PROT_READ | PROT_WRITE), "mprotect to PROT_WRITE");
	for (size_t at = 0; at < referenced; at += page_size())
		pattern_set(map, expected, at, 'n');
	pattern_check(expected, map, length, "the parent's memory, after it was made writable and written");
	partner_wake(&child);
	partner_end(&child);
	gt_pass("no write to PROT_READ memory succeeded");
}

GUEST_TEST = {
	.summary       = "an R/O reference to PROT_READ memory does not make it writable",
	.contract      = "C-ISO",
	.mechanism     = "a copy made by unsharing is mapped writable, although the VMA is not",
	.changelog     = "21 36",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "by: pin vmsplice; page: small mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write to PROT_READ memory that succeeds",
	.run           = run,
};
