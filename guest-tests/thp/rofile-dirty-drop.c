// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Text of a program may be made a huge page of the page cache while nobody has the file open for writing.
 * A kernel that cannot have such pages under a writer drops the file's cache at the next open for writing:
 * with it goes what was written to another part of the file, and is not on the disk yet.
 */
#include "collapse.h"
#include "guesttest.h"
#include "pattern.h"
#include "version.h"

enum { PAGE_DIRTY = 4, LIMIT_MS = 20000 };

static size_t length;			/* of a huge page; the file has three of them */
static char name[] = "text-XXXXXX";

static void remove_file(void)
{
	unlink(name);
}

static int open_file(int how)
{
	int fd = open(name, how | O_CLOEXEC);

	gt_need(fd >= 0, "opening %s", name);
	return fd;
}

/* The first part is on the disk, and of the third one a page is only in the page cache. */
static char *write_file(void)
{
	char *part = page_map(length / page_size(), 0);
	int fd = mkstemp(name);

	gt_need(fd >= 0, "making a file");
	gt_at_end(remove_file);
	pattern_write(part, length, 1);
	for (int i = 0; i < 3; i++)
		gt_need(pwrite(fd, part, length, i * length) == (ssize_t)length, "writing the file");
	gt_need(!fsync(fd), "fsync");
	pattern_write(part, page_size(), 2);
	gt_need(pwrite(fd, part, page_size(), 2 * length) == (ssize_t)page_size(), "writing a page");
	close(fd);
	return part;
}

/* Since 7.2 every file may have huge pages, under writers too. */
static void need_huge_text(void)
{
	struct utsname uts;

	gt_need(!uname(&uts), "uname");
	if (!version_is_at_least(7, 2) && gt_missing_symbols("READ_ONLY_THP_FOR_FS=y", uts.release))
		gt_skip("needs READ_ONLY_THP_FOR_FS=y");
}

static bool make_huge(char *map)
{
	if (!strcmp(gt_param("by"), "collapse")) {
		if (madvise(map, length, MADV_COLLAPSE))
			gt_skip("MADV_COLLAPSE of a file's text: %s", strerror(errno));
		return collapse_is_file_huge(map);
	}
	gt_need(!madvise(map, length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	return collapse_by_khugepaged(collapse_is_file_huge, map, LIMIT_MS);
}

static void run(void)
{
	char *written, *map, *tail, *got;
	int fd;

	need_huge_text();
	length = page_thp_size();
	written = write_file();
	got = page_map(1, 0);
	fd = open_file(O_RDONLY);
	map = mmap(page_find_room(length, length), length, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_FIXED, fd, 0);
	tail = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, 2 * length);
	gt_need(map != MAP_FAILED && tail != MAP_FAILED, "mapping the file");
	for (size_t i = 0; i < length; i += page_size())
		(void)*(volatile char *)(map + i);
	gt_need(!memcmp(tail, written, page_size()) && page_is(tail, PAGE_DIRTY), "the written page is dirty");
	munmap(tail, page_size());
	if (!make_huge(map))
		gt_skip("the kernel makes no huge page of a file's text");
	close(open_file(O_RDWR));
	gt_need(pread(fd, got, page_size(), 2 * length) == (ssize_t)page_size(), "reading the file");
	gt_check_bytes(written, got, page_size(), "what was written to the file");
	gt_pass("what was written outlives the huge page and the open for writing");
}

GUEST_TEST = {
	.summary       = "a write to a file is not lost when another part of it becomes a huge page",
	.contract      = "C-DATA",
	.mechanism     = "open for writing drops the page cache of a file with huge pages, dirty pages too",
	.fixes         = "2dfe9f5c91d0",
	.cve           = "CVE-2026-68086",
	.needs_kconfig = "TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.15",
	.params        = "by: collapse khugepaged",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 40,
	.detects       = "old bytes or zeros where new ones were written",
	.run           = run,
};
