// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages of memfd_secret() cannot be swapped out, so they count as locked memory for as long as they exist,
 * which is longer than a mapping of them does.
 */
#include "guesttest.h"
#include "pagestate.h"
#include <setjmp.h>
#include <sys/syscall.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif
enum { LIMIT_PAGES = 16, FILE_PAGES = 64, NOBODY = 65534 };

static sigjmp_buf back;

static void jump_back(int number)
{
	(void)number;
	siglongjmp(back, 1);
}

/* Whether the page of the file can be had. */
static bool touch(int fd, int page, int length)
{
	char *map = mmap(NULL, length * page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, page * page_size());
	volatile bool is_there = false;

	if (map == MAP_FAILED) {
		gt_need(errno == EAGAIN || errno == ENOMEM, "mmap of page %d", page);
		return false;
	}
	if (!sigsetjmp(back, 1)) {
		*(volatile char *)map = page + 1;
		is_there = true;
	}
	munmap(map, length * page_size());
	return is_there;
}

static char read_page(int fd, int page)
{
	char *map = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, fd, page * page_size()), value;

	gt_need(map != MAP_FAILED, "mmap of page %d", page);
	value = *(volatile char *)map;
	munmap(map, page_size());
	return value;
}

static void run(void)
{
	struct rlimit limit = { LIMIT_PAGES * page_size(), LIMIT_PAGES * page_size() };
	struct sigaction action = { .sa_handler = jump_back };
	int fd, kept = 0;

	fd = syscall(SYS_memfd_secret, 0);
	if (fd < 0)
		gt_skip("memfd_secret(): %s; it may need secretmem.enable=1 on the kernel's command line",
			strerror(errno));
	gt_need(!ftruncate(fd, FILE_PAGES * page_size()), "ftruncate");
	gt_need(!setrlimit(RLIMIT_MEMLOCK, &limit) && !setgid(NOBODY) && !setuid(NOBODY), "a user with a limit");
	gt_need(!sigaction(SIGBUS, &action, NULL), "sigaction");
	gt_need(touch(fd, 0, 1), "the first page can be had");
	for (int page = 1; page < FILE_PAGES && touch(fd, page, 1); page++)
		kept = page;
	gt_note("%d pages of %d could be touched, the limit is %d", kept + 1, FILE_PAGES, LIMIT_PAGES);
	for (int page = 0; kept >= LIMIT_PAGES && page <= kept; page++)
		gt_need(read_page(fd, page) == (char)(page + 1), "page %d still has its content", page);
	gt_check(kept < LIMIT_PAGES, "no more than %d pages that cannot be swapped out, not %d", LIMIT_PAGES,
		 kept + 1);
	gt_pass("the limit of locked memory holds");
}

GUEST_TEST = {
	.summary       = "pages of memfd_secret() count as locked memory after they are unmapped",
	.contract      = "C-ACCT",
	.mechanism     = "the limit is asked about mappings, not about the pages that stay",
	.cve           = "CVE-2026-93243",
	.needs_kconfig = "SECRETMEM=y",
	.min_kernel    = "5.14",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 10,
	.detects       = "more pages than the limit allows",
	.run           = run,
};
