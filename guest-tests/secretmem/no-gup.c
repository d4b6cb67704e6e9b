// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Only the process that maps memory of memfd_secret() reads it, by its page table: the kernel's own map has no
 * such pages. No way to have the kernel or a device access them may work. Each is tried with an ordinary
 * file in memory first, where it has to work.
 */
#include "cowpin.h"
#include "guesttest.h"
#include "pattern.h"
#include "stalledio.h"
#include "uring.h"
#include <sys/syscall.h>

#ifndef SYS_memfd_secret
#define SYS_memfd_secret 447
#endif

enum { REFUSED = -1 };

static const char *how;
static char *seen;		/* what came out */

static char *map(int file)
{
	char *page;

	gt_need(!ftruncate(file, page_size()), "ftruncate");
	page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	gt_need(page != MAP_FAILED, "mmap");
	return page;
}

/* Pages of files that were made dirty: direct I/O makes none. */
static unsigned long count_dirtied(void)
{
	char text[2];

	page_read_file("/proc/sys/vm/stat_refresh", text, sizeof(text));	/* folds in what each CPU has counted */
	return page_read_field("/proc/vmstat", "nr_dirtied ");
}

/* The page is sent to a file on disk, if the file system does not copy it by the page table, as write() does. */
static ssize_t write_direct(char *page)
{
	struct stalled_io io = { 0 };
	unsigned long dirtied;
	ssize_t got;
	int error;

	stalled_io_open_file(&io);
	dirtied = count_dirtied();
	got = pwrite(io.fd, page, page_size(), 0);
	error = errno;
	if (got > 0 && count_dirtied() > dirtied)
		gt_skip("what cannot be written directly is written through the page cache");
	gt_need(pread(io.fd, io.on_disk, page_size(), 0) == (ssize_t)page_size(), "reading the file back");
	memcpy(seen, io.on_disk, page_size());
	errno = error;
	return got;
}

static ssize_t splice_to_pipe(char *page)
{
	struct iovec slice = { page, page_size() };
	int ends[2];

	gt_need(!pipe2(ends, O_CLOEXEC | O_NONBLOCK), "pipe");
	if (vmsplice(ends[1], &slice, 1, 0) < 0)
		return REFUSED;
	return read(ends[0], seen, page_size());
}

static ssize_t send_registered(char *page)
{
	struct iovec buffer = { page, page_size() };
	int file = memfd_create("sent", MFD_CLOEXEC);
	struct uring ring;

	uring_open(&ring);
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1))
		return REFUSED;
	uring_transfer_fixed(&ring, IORING_OP_WRITE_FIXED, file, page, page_size());
	return pread(file, seen, page_size(), 0);
}

static ssize_t read_as_another_process(char *page)
{
	struct iovec here = { seen, page_size() }, there = { page, page_size() };
	ssize_t got = process_vm_readv(getpid(), &here, 1, &there, 1, 0);

	if (got < 0 && errno == ENOSYS)
		gt_skip("the kernel has no process_vm_readv()");
	return got;
}

static ssize_t read_proc_mem(char *page)
{
	int file = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);

	gt_need(file >= 0, "/proc/self/mem");
	return pread(file, seen, page_size(), (uintptr_t)page);
}

static ssize_t pin(char *page, unsigned int flags)
{
	int device = module_open("cowpin");

	if (cowpin_try(device, page, 1, flags))
		return REFUSED;
	cowpin_read(device, seen, page_size());
	return page_size();
}

/* What was read of it, negative if nothing. */
static ssize_t get(char *page)
{
	errno = 0;
	if (!strcmp(how, "odirect"))
		return write_direct(page);
	if (!strcmp(how, "vmsplice"))
		return splice_to_pipe(page);
	if (!strcmp(how, "register"))
		return send_registered(page);
	if (!strcmp(how, "vmread"))
		return read_as_another_process(page);
	if (!strcmp(how, "procmem"))
		return read_proc_mem(page);
	if (!strcmp(how, "pin-fast"))
		return pin(page, COWPIN_LONGTERM | COWPIN_FAST);
	if (!strcmp(how, "pin-slow"))
		return pin(page, COWPIN_LONGTERM);
	if (!strcmp(how, "get-fast"))
		return pin(page, COWPIN_GET | COWPIN_FAST);
	gt_broken("no access named %s", how);
}

static void run(void)
{
	int secret = syscall(SYS_memfd_secret, 0), ordinary = memfd_create("ordinary", MFD_CLOEXEC);
	char *page, *expected;
	ssize_t got;
	size_t same = 0;

	if (secret < 0)
		gt_skip("memfd_secret(): %s; it may need secretmem.enable=1 on the kernel's command line",
			strerror(errno));
	how = gt_param("how");
	seen = page_map(1, 0);
	page = map(ordinary);
	expected = pattern_fill(page, page_size(), 1);
	got = get(page);
	gt_need(got == (ssize_t)page_size() && !memcmp(seen, expected, page_size()),
		"control: an ordinary page can be read this way, got %zd", got);
	page = map(secret);
	expected = pattern_fill(page, page_size(), 2);
	memset(seen, 0, page_size());
	got = get(page);
	for (size_t i = 0; i < page_size(); i++)
		same += seen[i] == expected[i];
	gt_check(same < page_size() / 4, "the secret stays secret; %zu of %zu bytes of it came out", same, page_size());
	gt_check(got < 0 && (errno == EFAULT || errno == EIO), "the access fails with EFAULT or EIO, not %zd (%s)", got,
		 strerror(errno));
	pattern_check(expected, page, page_size(), "the secret page itself");
	gt_pass("an ordinary page can be read this way, a secret one cannot: %s", strerror(errno));
}

GUEST_TEST = {
	.summary       = "nothing but its process reads memory of memfd_secret()",
	.contract      = "C-ISO",
	.mechanism     = "a way to pages by page table does not ask whether they belong to memfd_secret()",
	.needs_kconfig = "SECRETMEM=y",
	.min_kernel    = "5.14",
	.params        = "how: odirect vmsplice register vmread procmem pin-fast pin-slow get-fast",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "the secret, or a reference to its page, outside of the process",
	.run           = run,
};
