// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A registered buffer whose address is aligned otherwise than the folios behind it, and which begins in the
 * middle of one and ends in another. A ring that knows whole folios, and not pages, has to find each byte by
 * its place in the folio. Every page is sent and received by itself; in the end nothing is pinned any more.
 */
#include "guesttest.h"
#include "hugetlb.h"
#include "pagekind.h"
#include "pattern.h"
#include "pincount.h"
#include "shmemhuge.h"
#include "thp.h"
#include "uring.h"

enum { BEFORE = 3, INTO = 512, WAIT_MS = 3000 };	/* the buffer begins INTO bytes into page BEFORE */

static const char *kind;
static char *start, *expected;	/* all of the memory */
static size_t length, huge;

static bool is_kind(const char *name)
{
	return !strcmp(kind, name);
}

/* The second mapping begins one page into the file. */
static void map_file(void)
{
	int file = memfd_create("buffer", MFD_CLOEXEC);
	char *first;

	huge = page_thp_size();
	if ((size_t)get_avphys_pages() * page_size() < 8 * huge)
		gt_skip("not enough free memory for huge pages of %zu MiB", huge >> 20);
	shmemhuge_set("advise", "inherit");
	gt_need(file >= 0 && !ftruncate(file, 2 * huge), "a file of %zu bytes", 2 * huge);
	first = mmap(page_find_room(2 * huge, huge), 2 * huge, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0);
	gt_need(first != MAP_FAILED && !madvise(first, 2 * huge, MADV_HUGEPAGE), "mmap of the file");
	memset(first, 0, 2 * huge);
	if (page_smaps_kib(first, "ShmemPmdMapped") != 2 * huge >> 10)
		gt_skip("the file has no two huge pages, but %lu KiB", page_smaps_kib(first, "ShmemPmdMapped"));
	length = 2 * huge - page_size();
	start = mmap(page_find_room(2 * huge, huge), length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
		     page_size());
	gt_need(start != MAP_FAILED, "the second mapping");
	munmap(first, 2 * huge);
}

/* Two folios, moved to an address that is one page off. */
static void map_moved(void)
{
	const char *whole = is_kind("mthp") ? kind : "thp";
	char *first = pagekind_map(whole, 0, &huge), *second = pagekind_map(whole, 0, &huge), *room;

	length = 2 * huge;
	room = page_find_room(length + huge, huge) + page_size();
	gt_need(mremap(first, huge, huge, MREMAP_MAYMOVE | MREMAP_FIXED, room) == room, "mremap");
	gt_need(mremap(second, huge, huge, MREMAP_MAYMOVE | MREMAP_FIXED, room + huge) == room + huge, "mremap");
	start = room;
	page_need_thp_mapped_by_ptes(start);
	page_need_thp_mapped_by_ptes(start + huge);
	gt_need(page_frame(start) % (huge / page_size()) != (uintptr_t)start / page_size() % (huge / page_size()),
		"the folio is aligned otherwise than its address");
}

static void map(void)
{
	if (is_kind("memfd-thp")) {
		map_file();
	} else if (is_kind("thp-ptes") || is_kind("mthp")) {
		map_moved();
	} else if (is_kind("hugetlb")) {
		huge = hugetlb_usual_size();
		length = 2 * huge;
		hugetlb_make_pool(huge, 2);
		start = mmap(NULL, length, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | __builtin_ctzl(huge) << MAP_HUGE_SHIFT, -1, 0);
		if (start == MAP_FAILED)
			gt_skip("not enough huge pages are free: %s", strerror(errno));
	} else {
		huge = 8 * page_size();
		length = 2 * huge;
		start = page_map(length / page_size(), 0);
	}
}

static void check_sends(struct uring *ring, char *buffer, size_t pages)
{
	char *sent = page_map(1, 0);
	int file = memfd_create("sent", MFD_CLOEXEC);
	char what[60];

	gt_need(file >= 0, "memfd_create");
	for (size_t i = 0; i < pages; i++) {
		int got = uring_transfer_fixed(ring, IORING_OP_WRITE_FIXED, file, buffer + i * page_size(), page_size());

		gt_need(got == (int)page_size(), "WRITE_FIXED returned %d", got);
		gt_need(pread(file, sent, page_size(), 0) == (ssize_t)page_size(), "reading back the data sent");
		snprintf(what, sizeof(what), "bytes sent from page %zu of the buffer", i);
		gt_check_bytes(buffer + i * page_size(), sent, page_size(), what);
	}
	close(file);
	uring_check_sends(ring, buffer, pages * page_size());
}

static void check_receives(struct uring *ring, char *buffer, size_t pages)
{
	char *received = page_map(1, 0), *copy = expected + (buffer - start);
	int file = memfd_create("received", MFD_CLOEXEC), got;

	gt_need(file >= 0, "memfd_create");
	for (size_t i = 0; i < pages; i++) {
		pattern_write(received, page_size(), 1000 + i);
		gt_need(pwrite(file, received, page_size(), 0) == (ssize_t)page_size(), "filling the file");
		got = uring_transfer_fixed(ring, IORING_OP_READ_FIXED, file, buffer + i * page_size(), page_size());
		gt_need(got == (int)page_size(), "READ_FIXED returned %d", got);
		memcpy(copy + i * page_size(), received, page_size());
	}
	close(file);
	pattern_check(expected, start, length, "the memory after each page of the buffer was received");
}

static void check_unpinned(long before)
{
	long after = pincount_read();

	for (int i = 0; i < WAIT_MS && after != before; i++) {
		usleep(1000);
		after = pincount_read();
	}
	gt_check(after == before, "as many pages are pinned as before the registration, not %ld more", after - before);
}

/* Nothing keeps them, so they go back to the pool. */
static void check_pool(void)
{
	gt_need(!munmap(start, length), "munmap");
	hugetlb_check(huge, "free_hugepages", 2, "once the buffer is unregistered and unmapped");
}

static void run(void)
{
	struct uring ring;
	char *buffer;
	size_t pages;
	long before;

	kind = gt_param("page");
	map();
	expected = pattern_fill(start, length, pattern_new_salt());
	buffer = start + BEFORE * page_size() + INTO;
	pages = huge / page_size() + BEFORE;
	uring_open(&ring);
	before = pincount_read();
	uring_register_buffer(&ring, buffer, pages * page_size());
	gt_need(before < 0 || pincount_read() > before, "the registration pins pages");
	check_sends(&ring, buffer, pages);
	check_receives(&ring, buffer, pages);
	check_sends(&ring, buffer, pages);
	uring_unregister_buffer(&ring);
	if (before >= 0)
		check_unpinned(before);
	if (is_kind("hugetlb"))
		check_pool();
	gt_pass("%zu pages were sent and received from the right place, %s", pages,
		before < 0 ? "the pins are not counted" : "and none is pinned any more");
}

GUEST_TEST = {
	.summary       = "an io_uring fixed buffer within huge pages is used from the right byte, and unpinned",
	.contract      = "C-DATA",
	.mechanism     = "the place in the first folio is taken from the address, or another folio is unpinned",
	.fixes         = "3a3c6d61577d",
	.cve           = "CVE-2025-40216",
	.needs_kconfig = "IO_URING=y TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.10",
	.params        = "page: small mthp memfd-thp thp-ptes hugetlb",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "wrong bytes sent, bytes received elsewhere, or pages that stay pinned",
	.run           = run,
};
