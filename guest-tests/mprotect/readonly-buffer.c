// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A buffer into which a device or the kernel will write has to be writable for the program. Where GUP does not
 * say that it is going to write, PROT_READ memory is accepted, and shared pages are not copied first: the
 * data then appears in the child, or in the page cache of a file.
 */
#include "guesttest.h"
#include "pagekind.h"
#include "partner.h"
#include "pattern.h"
#include "uring.h"
#include <sys/uio.h>

static char *map, *expected, *text;
static size_t length;
static int mapped_file = -1;

/* A file with the new content. */
static int open_text(bool is_direct)
{
	char name[] = "readonly.XXXXXX";
	int file = is_direct ? mkstemp(name) : memfd_create("text", MFD_CLOEXEC);

	gt_need(file >= 0 && write(file, text, length) == (ssize_t)length, "writing a file");
	if (!is_direct)
		return file;
	gt_need(!fsync(file) && !close(file), "writing a file to disk");
	file = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (file < 0)
		gt_skip("no O_DIRECT on the file system of the current directory");
	return file;
}

static int error_of(ssize_t got)
{
	gt_need(got < 0 || got == (ssize_t)length, "a transfer of %zu bytes ended after %zd", length, got);
	return got < 0 ? errno : 0;
}

static int read_into(bool is_direct)
{
	int file = open_text(is_direct), error = error_of(pread(file, map, length, 0));

	close(file);
	return error;
}

static int write_by_other(void)
{
	struct iovec from = { text, length }, to = { map, length };
	int error = error_of(process_vm_writev(getpid(), &from, 1, &to, 1, 0));

	if (error == ENOSYS)
		gt_skip("the kernel has no process_vm_writev");
	return error;
}

static int register_and_read(void)
{
	struct iovec buffer = { map, length };
	struct uring ring;
	int file, got;

	uring_open(&ring);
	if (syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_BUFFERS, &buffer, 1)) {
		got = errno;
		close(ring.fd);
		return got;
	}
	file = open_text(false);
	got = uring_transfer_fixed(&ring, IORING_OP_READ_FIXED, file, map, length);
	close(file);
	close(ring.fd);
	gt_need(got == (int)length, "READ_FIXED returned %d", got);
	return 0;
}

/* Has the buffer filled with the text. Returns 0 or the error. */
static int fill_buffer(void)
{
	const char *by = gt_param("by");

	return !strcmp(by, "register") ? register_and_read() : !strcmp(by, "writev") ? write_by_other() :
	       read_into(!strcmp(by, "odirect"));
}

static char *map_file(void)
{
	char name[] = "mapped.XXXXXX";

	length = 4 * page_size();
	mapped_file = mkstemp(name);
	gt_need(mapped_file >= 0 && !unlink(name) && !ftruncate(mapped_file, length), "a file");
	map = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, mapped_file, 0);
	gt_need(map != MAP_FAILED, "mmap of a file");
	pattern_write(map, length, 1);
	munmap(map, length);
	map = mmap(NULL, length, PROT_READ, MAP_PRIVATE, mapped_file, 0);
	gt_need(map != MAP_FAILED, "private mmap of a file");
	return map;
}

static void check_file(void)
{
	char *content = page_map(length / page_size(), 0);

	if (mapped_file < 0)
		return;
	gt_need(pread(mapped_file, content, length, 0) == (ssize_t)length, "reading the mapped file");
	pattern_check(expected, content, length, "the file of which the buffer is a private mapping");
	munmap(content, length);
}

static void run(void)
{
	bool is_file = !strcmp(gt_param("page"), "file");
	struct partner child;
	int error;

	map = is_file ? map_file() : pagekind_map(gt_param("page"), 2, &length);
	if (!is_file)
		pattern_write(map, length, 1);
	expected = pattern_fill(page_map(length / page_size(), 0), length, 1);
	text = pattern_fill(page_map(length / page_size(), 0), length, 2);
	gt_need(!mprotect(map, length, PROT_READ), "mprotect to PROT_READ");
	if (partner_fork(&child)) {
		partner_wait(&child);
		pattern_check(expected, map, length, "the child's memory");
		partner_end(&child);
	}
	error = fill_buffer();
	pattern_check(expected, map, length, "the PROT_READ buffer");
	check_file();
	gt_check(error == EFAULT, "a PROT_READ buffer is refused with EFAULT, not %s", strerror(error));
	gt_need(!mprotect(map, length, PROT_READ | PROT_WRITE), "mprotect to PROT_WRITE");
	error = fill_buffer();
	if (is_file && error == EOPNOTSUPP) {
		gt_note("this kernel registers no buffer of a file");
	} else {
		gt_check(!error, "a writable buffer is accepted, not %s", strerror(error));
		pattern_check(text, map, length, "the writable buffer");
	}
	check_file();
	partner_wake(&child);
	partner_end(&child);
	gt_pass("the kernel wrote into the buffer when it was writable, and only for this process");
}

GUEST_TEST = {
	.summary       = "a PROT_READ buffer is refused by all that would write into it",
	.contract      = "C-ISO",
	.mechanism     = "pages are referenced without FOLL_WRITE for a transfer that writes into them",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.1",
	.params        = "by: register read odirect writev; page: small mthp thp thp-ptes hugetlb file",
	.needs_root    = true,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a transfer into PROT_READ memory, or into memory of another process",
	.run           = run,
};
