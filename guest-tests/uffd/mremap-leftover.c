// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * mremap() removes a mapping from userfaultfd unless the monitor requested remap events. Its PTEs
 * must lose their uffd-wp bit, since nobody can clear it later. Otherwise /proc/self/pagemap
 * reports the page as write-protected forever, and a write fault on a hugetlb page is retried
 * forever.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "uffd.h"

#define PAGE_UFFD_WP (1ULL << 57)

enum { STORE_MS = 10000 };

static char *move(char *page, size_t length)
{
	char *target = page_find_room(length, length);

	gt_need(mremap(page, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	return target;
}

static bool store_returns(char *byte)
{
	struct uffd_writer writer = { .byte = byte };
	struct pollfd done;

	gt_need(!pipe2(writer.done, O_CLOEXEC) && !pthread_create(&writer.thread, NULL, uffd_writer_thread, &writer),
		"a thread that writes");
	done = (struct pollfd){ .fd = writer.done[0], .events = POLLIN };
	return poll(&done, 1, STORE_MS) == 1 && !pthread_join(writer.thread, NULL);
}

static void run(void)
{
	size_t length;
	char *page = pagekind_map(gt_param("page"), 2, &length);
	int fd = uffd_open();

	memset(page, 'o', page_size());
	uffd_register(fd, page, length, UFFDIO_REGISTER_MODE_WP);
	uffd_write_protect(fd, page, length, true);
	gt_need(page_entry(page) & PAGE_UFFD_WP, "the page is write-protected, pagemap entry 0x%llx",
		(unsigned long long)page_entry(page));
	page = move(page, length);
	gt_check(*(volatile char *)page == 'o', "the page has moved");
	gt_check(!(page_entry(page) & PAGE_UFFD_WP), "the moved page is not write-protected by userfaultfd");
	gt_check(store_returns(page), "a store to the moved page returns within %d s", STORE_MS / 1000);
	gt_check(page_entry(page) & PAGE_PRESENT && *(volatile char *)page == 'w', "the store is there");
	gt_pass("the moved page is not write-protected, and a store to it returns");
}

GUEST_TEST = {
	.summary       = "mremap() out of a userfaultfd range leaves no write protection behind",
	.contract      = "C-TRACK",
	.mechanism     = "move_ptes() and the like copy the uffd-wp bit to a VMA without userfaultfd",
	.fixes         = "0cef0bb836e3",
	.cve           = "CVE-2025-21696",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.14",
	.params        = "page: small mthp thp thp-ptes hugetlb",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a page that stays write-protected, a store that never returns",
	.run           = run,
};
