// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A file is written back while a direct read fills a page of it, mapped shared. The page is clean then, with content
 * that is nowhere else, so the end of the read has to make it dirty again. The disk that is read is slow, and the
 * file is on another. sync: the kernel makes the page dirty at the end of the read alone; async: before, too.
 */
#include "slowdisk.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <sys/vfs.h>

enum { PAGE_DIRTY = 4 };

static struct {
	char *page;
	int disk, done[2];
	aio_context_t context;
	pthread_t thread;
	ssize_t got;
} rd;

static void *read_disk(void *arg)
{
	(void)arg;
	rd.got = pread(rd.disk, rd.page, page_size(), 0);
	close(rd.done[1]);
	return NULL;
}

static void start_read(bool async)
{
	static struct iocb request, *requests[] = { &request };

	if (!async) {
		gt_need(!pipe(rd.done) && !pthread_create(&rd.thread, NULL, read_disk, NULL), "a thread");
		usleep(200 * 1000);
		return;
	}
	request = (struct iocb){
		.aio_lio_opcode = IOCB_CMD_PREAD, .aio_fildes = rd.disk, .aio_buf = (uintptr_t)rd.page,
		.aio_nbytes = page_size()
	};
	if (syscall(SYS_io_setup, 1, &rd.context) && errno == ENOSYS)
		gt_skip("no asynchronous I/O");
	gt_need(syscall(SYS_io_submit, rd.context, 1L, requests) == 1, "io_submit");
}

/* Whether the read has ended; waits for it if wanted. */
static bool is_over(bool async, bool wants_wait)
{
	struct timespec at_once = { 0 };
	struct io_event event;
	struct pollfd done = { rd.done[0], POLLIN, 0 };

	if (!async)
		return poll(&done, 1, wants_wait ? -1 : 0) == 1;
	if (syscall(SYS_io_getevents, rd.context, 1L, 1L, &event, wants_wait ? NULL : &at_once) != 1)
		return false;
	rd.got = event.res;
	return true;
}

/* Drops the file from memory, and reads what was stored. */
static void read_stored(int file, char *stored)
{
	unsigned char cached = 1;

	munmap(rd.page, page_size());
	for (int i = 0; i < 100 && cached & 1; i++) {
		char *map;

		gt_need(!fsync(file) && !posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED), "writing the file");
		map = mmap(NULL, page_size(), PROT_READ, MAP_SHARED, file, 0);
		gt_need(map != MAP_FAILED && !mincore(map, page_size(), &cached), "mincore");
		munmap(map, page_size());
		page_drain_vectors();
	}
	if (cached & 1)
		gt_skip("the file cannot be dropped from memory");
	gt_need(pread(file, stored, page_size(), 0) == (ssize_t)page_size(), "reading the file");
}

static void run(void)
{
	char name[64], path[80], file_name[] = "rd-writeback.XXXXXX", *old, *seen, *stored;
	bool async = !strcmp(gt_param("read"), "async");
	size_t page = page_size();
	int file;

	slowdisk_find(name, sizeof(name));
	snprintf(path, sizeof(path), "/dev/%s", name);
	old = page_map(1, 0xa5);
	seen = page_map(1, 0);
	stored = page_map(1, 0);
	file = mkstemp(file_name);
	gt_need(file >= 0 && !unlink(file_name) && write(file, old, page) == (ssize_t)page && !fsync(file), "a file");
	rd.page = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	rd.disk = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	gt_need(rd.page != MAP_FAILED && rd.disk >= 0, "the file mapped, and %s opened", path);
	*(volatile char *)rd.page = 0xa5;
	slowdisk_begin();
	start_read(async);
	gt_need(!fsync(file), "fsync");
	gt_need(!is_over(async, false), "the file was written back during the read (busy host?)");
	gt_need(is_over(async, true) && rd.got == (ssize_t)page, "reading %s: %zd", path, rd.got);
	memcpy(seen, rd.page, page);
	gt_need(memcmp(seen, old, page), "%s begins with anything but what the file has", path);
	/* Where the page was clean, a kernel thread may make it dirty. */
	for (int i = 0; i < 500 && !page_is(rd.page, PAGE_DIRTY); i++)
		usleep(1000);
	gt_note("the page is %s", page_is(rd.page, PAGE_DIRTY) ? "dirty" : "clean");
	read_stored(file, stored);
	gt_check_bytes(seen, stored, page, "bytes of the file, compared with what its mapping had after the read");
	gt_pass("the file has what was read into its mapping");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read into a shared file mapping survives the file's writeback",
	.contract      = "C-READ",
	.mechanism     = "the completion of the read does not make the page dirty, which was cleaned meanwhile",
	.needs_kconfig = "SWAP=y AIO=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.params        = "read: sync async",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a file without the data that was read into it",
	.run           = run,
};
