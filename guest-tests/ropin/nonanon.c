// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Before its first write, a private mapping shows the zero page or a page cache page. A device with
 * an R/O long-term pin must see the first write too, so the mapping has to get an anonymous page
 * when the pin is taken.
 */
#include "cowpin.h"
#include "hugetlb.h"
#include "thp.h"

enum { PAGE_IS_ZERO = 24 };

static char *map_file(int fd, size_t length)
{
	char *map, *text = malloc(page_size());

	gt_need(fd >= 0 && !ftruncate(fd, length), "a file of %zu bytes", length);
	memset(text, 'o', page_size());
	/* hugetlbfs has no write() */
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	gt_need(map != MAP_FAILED, "mapping the file");
	memcpy(map, text, page_size());
	munmap(map, length);
	free(text);
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	gt_need(map != MAP_FAILED, "mapping the file privately");
	return map;
}

static int open_unlinked(const char *folder)
{
	char name[80];
	int fd;

	snprintf(name, sizeof(name), "%s/ropin.XXXXXX", folder);
	fd = mkstemp(name);
	if (fd < 0)
		gt_skip("no file in %s: %s", folder, strerror(errno));
	unlink(name);
	return fd;
}

static char *map_huge_zeropage(void)
{
	size_t length;
	char *map = page_map_thp(&length, 'o'), text[8];

	page_read_file(PAGE_THP_DIR "use_zero_page", text, sizeof(text));
	if (text[0] != '1')
		gt_skip("the kernel uses no huge zero page");
	gt_need(!madvise(map, length, MADV_DONTNEED), "MADV_DONTNEED");
	gt_check(!*(volatile char *)map, "a page reads as zeroes before the first write");
	gt_need(page_is(map, PAGE_IN_THP), "no huge page was allocated");
	return map;
}

static char *map_backing(const char *backing)
{
	char *map;

	if (!strcmp(backing, "hugezero"))
		return map_huge_zeropage();
	if (!strcmp(backing, "tmpfs"))
		return map_file(open_unlinked("/dev/shm"), page_size());
	if (!strcmp(backing, "disk"))
		return map_file(open_unlinked("."), page_size());
	if (!strcmp(backing, "memfd"))
		return map_file(memfd_create("ropin", MFD_CLOEXEC), page_size());
	if (!strcmp(backing, "hugetlb")) {
		size_t length = hugetlb_usual_size();

		hugetlb_make_pool(length, 2);	/* the file's and a copy */
		return map_file(memfd_create("ropin", MFD_CLOEXEC | MFD_HUGETLB |
					     (unsigned int)__builtin_ctzl(length) << MAP_HUGE_SHIFT), length);
	}
	map = page_map(1, 'o');
	gt_need(!madvise(map, page_size(), MADV_DONTNEED), "MADV_DONTNEED");
	return map;
}

static void run(void)
{
	const char *backing = gt_param("backing");
	bool is_zero = strstr(backing, "zero");
	char *map;
	int pin;

	module_need("cowpin");
	map = map_backing(backing);
	gt_check(*(volatile char *)map == (is_zero ? 0 : 'o'), "the contents of the mapping before a write");
	if (is_zero)
		gt_need(page_is(map, PAGE_IS_ZERO), "the zero page is mapped");
	gt_need(strcmp(backing, "hugetlb") || page_is(map, PAGE_HUGE), "a page of hugetlbfs is mapped");
	pin = cowpin_pin_readonly(map);
	cowpin_check_new(pin, map, page_size());
	gt_pass("the device reads the data that the program wrote");
}

GUEST_TEST = {
	.summary       = "R/O long-term pins in private mappings get an anonymous page",
	.contract      = "C-SYNC",
	.mechanism     = "the pin refers to the zero page or a page cache page, which the first write replaces",
	.fixes         = "84209e87c696",
	.changelog     = "29e",
	.needs_kconfig = "MODULES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.params        = "backing: zeropage hugezero tmpfs disk memfd hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
