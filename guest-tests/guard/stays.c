// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guard region is a mark in the page table, and no property of the mapping: whatever copies, moves or
 * changes page table entries must keep it, and whatever accesses memory for a program must stop at it. The
 * guard region is two pages in the middle; the pages around it go on working. free is MADV_FREE, and for
 * shared memory a hole in the file, which takes the pages of the mapping as well.
 */
#include "guard.h"
#include "guesttest.h"
#include "pagekind.h"
#include "pattern.h"
#include "stalledio.h"
#include "uring.h"
#include "version.h"

enum { PAGES = 8, GUARD = 3, GUARDS = 2 };	/* of them, the first one with a guard, and how many */

static char *start, *expected;
static size_t length;
static bool is_shared;

static char *at(int page)
{
	return start + page * page_size();
}

static void map(const char *kind)
{
	is_shared = !strcmp(kind, "shmem");
	if (is_shared) {
		int file = memfd_create("guarded", MFD_CLOEXEC);

		length = PAGES * page_size();
		gt_need(file >= 0 && !ftruncate(file, length), "a file in memory");
		start = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		gt_need(start != MAP_FAILED, "mmap of the file");
	} else if (!strcmp(kind, "small")) {
		length = PAGES * page_size();
		start = page_map(PAGES, 1);
	} else {
		start = pagekind_map(kind, 0, &length);
	}
	expected = pattern_fill(start, PAGES * page_size(), 58);
}

/* The pages beside the guard region have this content. */
static void check_neighbours(const char *when)
{
	const size_t before = GUARD * page_size(), after = (GUARD + GUARDS) * page_size();
	char what[100];

	snprintf(what, sizeof(what), "the pages before the guard region %s", when);
	pattern_check(expected, start, before, what);
	snprintf(what, sizeof(what), "the pages after the guard region %s", when);
	pattern_check(expected + after, start + after, PAGES * page_size() - after, what);
}

static void check(const char *when)
{
	guard_check(at(GUARD), GUARDS * page_size(), when);
	for (int page = 0; page < PAGES && version_is_at_least(6, 15); page++) {
		bool is_guard = page >= GUARD && page < GUARD + GUARDS;

		gt_check(!!(page_entry(at(page)) & PAGE_GUARD) == is_guard, "pagemap says %s that page %d is a guard",
			 when, page);
	}
}

/* All of the memory is discarded, but for the guards. */
static void discard(bool lazily)
{
	if (!lazily) {
		gt_need(!madvise(start, length, MADV_DONTNEED), "MADV_DONTNEED");
		if (!is_shared)
			memset(expected, 0, PAGES * page_size());
		return;
	}
	gt_need(!madvise(start, length, is_shared ? MADV_REMOVE : MADV_FREE), "discarding the pages");
	check("after the pages were discarded");
	for (int page = 0; page < PAGES; page++)
		if (page < GUARD || page >= GUARD + GUARDS) {
			memset(at(page), 'n', page_size());
			memset(expected + page * page_size(), 'n', page_size());
		}
}

static void check_child(void)
{
	pid_t child = gt_fork();

	if (!child) {
		check("in the child");
		check_neighbours("in the child");
		_exit(0);
	}
	gt_reap(child);
}

static void move(void)
{
	char *target = page_find_room(length, length);

	gt_need(mremap(start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	start = target;
}

static void change_protection(void)
{
	static const int protections[] = { PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE };

	for (int i = 0; i < 3; i++)
		gt_need(!mprotect(start, length, protections[i]), "mprotect");
}

/* Control: the same into a neighbour. */
static void read_direct(void)
{
	struct stalled_io io = { 0 };
	ssize_t got;

	stalled_io_open_file(&io);
	gt_need(pread(io.fd, at(GUARD - 1), page_size(), 0) == (ssize_t)page_size(), "O_DIRECT read into a neighbour");
	memcpy(expected + (GUARD - 1) * page_size(), io.on_disk, page_size());
	got = pread(io.fd, at(GUARD), page_size(), 0);
	gt_check(got < 0 && errno == EFAULT, "O_DIRECT read into a guard page fails with EFAULT, not %zd (%s)", got,
		 strerror(errno));
	got = pread(io.fd, at(GUARD - 1), 2 * page_size(), 0);
	gt_check(got <= (ssize_t)page_size(), "O_DIRECT read ends at the guard page, not after %zd bytes", got);
	got = pwrite(io.fd, at(GUARD), page_size(), 0);
	gt_check(got < 0 && errno == EFAULT, "O_DIRECT write from a guard page fails with EFAULT, not %zd (%s)", got,
		 strerror(errno));
}

static int try_register(struct uring *ring, int first, int pages)
{
	struct iovec buffer = { at(first), pages * page_size() };

	return syscall(SYS_io_uring_register, ring->fd, IORING_REGISTER_BUFFERS, &buffer, 1) ? errno : 0;
}

static void register_buffers(void)
{
	struct uring ring;

	uring_open(&ring);
	gt_need(!try_register(&ring, 0, GUARD), "registering the pages before the guard region");
	uring_unregister_buffer(&ring);
	gt_check(try_register(&ring, GUARD, 1) == EFAULT, "a guard page is no buffer: EFAULT");
	gt_check(try_register(&ring, 0, PAGES) == EFAULT, "pages around a guard region are no buffer: EFAULT");
}

static ssize_t transfer(bool write, char *remote, size_t bytes)
{
	static char local[1 << 20];
	struct iovec here = { local, bytes }, there = { remote, bytes };

	gt_need(bytes <= sizeof(local), "room for %zu bytes", bytes);
	return write ? process_vm_writev(getpid(), &here, 1, &there, 1, 0) :
		       process_vm_readv(getpid(), &here, 1, &there, 1, 0);
}

static void access_as_another_process(void)
{
	const ssize_t page = page_size();

	if (transfer(false, start, page) < 0 && errno == ENOSYS)
		gt_skip("the kernel has no process_vm_readv()");
	gt_need(transfer(false, start, page) == page, "process_vm_readv() of a neighbour");
	for (int write = 0; write < 2; write++) {
		gt_check(transfer(write, at(GUARD), page) < 0 && errno == EFAULT,
			 "process_vm_%sv() of a guard page fails with EFAULT", write ? "write" : "read");
		if (!write)
			gt_check(transfer(write, start, PAGES * page) <= GUARD * page,
				 "process_vm_readv() ends at the guard page");
	}
}

/* MADV_POPULATE_READ and MADV_POPULATE_WRITE */
static void populate(void)
{
	for (int advice = 22; advice <= 23; advice++) {
		gt_need(!madvise(start, GUARD * page_size(), advice), "populating the pages before the guard region");
		gt_check(madvise(start, length, advice) < 0 && errno == EFAULT,
			 "populating a guard page fails with EFAULT, advice %d", advice);
	}
}

static void act(const char *verb)
{
	if (!strcmp(verb, "dontneed") || !strcmp(verb, "free"))
		discard(!strcmp(verb, "free"));
	else if (!strcmp(verb, "fork"))
		check_child();
	else if (!strcmp(verb, "mremap"))
		move();
	else if (!strcmp(verb, "mprotect"))
		change_protection();
	else if (!strcmp(verb, "odirect"))
		read_direct();
	else if (!strcmp(verb, "register"))
		register_buffers();
	else if (!strcmp(verb, "vmread"))
		access_as_another_process();
	else if (!strcmp(verb, "populate"))
		populate();
	else
		gt_need(!strcmp(verb, "remove"), "an operation named %s", verb);
}

/* Control: without the guards the pages are there again, new ones or, of shared memory, those of the file. */
static void remove_guards(bool has_hole)
{
	char *guards = expected + GUARD * page_size();

	if (!is_shared || has_hole)
		memset(guards, 0, GUARDS * page_size());
	gt_need(!madvise(start, length, MADV_GUARD_REMOVE), "MADV_GUARD_REMOVE");
	for (int page = GUARD; page < GUARD + GUARDS; page++)
		gt_check(access_can_read(at(page)), "page %d can be read once its guard is removed", page);
	pattern_check(guards, at(GUARD), GUARDS * page_size(), "the pages whose guards were removed");
	for (int page = GUARD; page < GUARD + GUARDS; page++)
		gt_check(access_can_write(at(page), 'w') && *at(page) == 'w', "page %d can be written", page);
}

static void run(void)
{
	const char *verb = gt_param("verb");

	map(gt_param("page"));
	guard_install(at(GUARD), GUARDS * page_size());
	check("once it is installed");
	check_neighbours("once the guards are installed");
	act(verb);
	check("after the operation");
	check_neighbours("after the operation");
	remove_guards(!strcmp(verb, "free"));
	check_neighbours("after the guards were removed");
	gt_pass("the guard pages stopped every access, until they were removed");
}

GUEST_TEST = {
	.summary       = "guard pages stay guard pages, and stop all that accesses memory",
	.contract      = "C-LIVE",
	.mechanism     = "an operation on page table entries takes the mark of a guard page for one of an absent page",
	.needs_kconfig = "PROC_PAGE_MONITOR=y SHMEM=y",
	.min_kernel    = "6.13",
	.params        = "verb: remove dontneed free fork mremap mprotect odirect register vmread populate; page: small mthp thp-ptes shmem",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a guard page that can be accessed, or one that stays after its removal",
	.run           = run,
};
