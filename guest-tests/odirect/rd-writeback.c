// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A file is written back while a direct read is about to fill a page of it, mapped shared. The page is clean then,
 * and gets content that is nowhere else, so the end of the read has to make it dirty again. The read is from a disk:
 * of one from a file, the page is made dirty when the disk is asked, too.
 */
#include "stalledio.h"

enum { PAGE_DIRTY = 4 };

static void open_disk(struct stalled_io *io)
{
	char line[512], path[128] = "";
	FILE *swaps = fopen("/proc/swaps", "re");

	while (swaps && !path[0] && fgets(line, sizeof(line), swaps))
		if (sscanf(line, "%127s", path) != 1 || strncmp(path, "/dev/", 5))
			path[0] = 0;
	if (!path[0])
		gt_skip("no swap on a disk, which is as good as any to be read");
	io->fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	gt_need(io->fd >= 0, "opening %s", path);
}

/* As stalled_io_start(), but from a disk. */
static void start_read(struct stalled_io *io, char *page_a)
{
	struct uffd_msg message;
	size_t page = page_size();

	memset(io, 0, sizeof(*io));
	open_disk(io);
	io->page_a = io->target = page_a;
	io->in_a = page;
	io->length = 2 * page;
	io->page_b = page_map(1, 0);
	gt_need(!madvise(io->page_b, page, MADV_DONTNEED), "MADV_DONTNEED");
	io->uffd = uffd_open();
	uffd_register(io->uffd, io->page_b, page, UFFDIO_REGISTER_MODE_MISSING);
	gt_need(!pipe2(io->done, O_CLOEXEC) && !pthread_create(&io->thread, NULL, stalled_io_thread, io), "a thread");
	gt_need(uffd_wait(io->uffd, io->done[0], &message), "the read waits for page B");
}

static void finish_read(struct stalled_io *io)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)io->page_b, page_size() } };

	gt_need(!ioctl(io->uffd, UFFDIO_ZEROPAGE, &zero) && !pthread_join(io->thread, NULL), "the end of the read");
	gt_need(io->got == (ssize_t)io->length, "reading the disk: %zd (%s)", io->got, strerror(io->error));
}

/* Drops the file from memory, and reads what was stored. */
static void read_stored(int file, char *stored)
{
	unsigned char cached = 1;

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
	char name[] = "rd-writeback.XXXXXX", *old, *map, *seen, *stored;
	size_t page = page_size();
	struct stalled_io io;
	int file = mkstemp(name);

	old = page_map(1, 0xa5);
	seen = page_map(1, 0);
	stored = page_map(1, 0);
	gt_need(file >= 0 && !unlink(name) && write(file, old, page) == (ssize_t)page && !fsync(file), "a file");
	map = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	gt_need(map != MAP_FAILED, "mapping the file");
	*(volatile char *)map = 0xa5;
	start_read(&io, map);
	gt_need(!fsync(file), "fsync");
	gt_note("the page is %s before the read", page_is(map, PAGE_DIRTY) ? "dirty" : "clean");
	finish_read(&io);
	memcpy(seen, map, page);
	gt_need(memcmp(seen, old, page), "the disk begins with anything but what the file has");
	gt_note("the page is %s after it", page_is(map, PAGE_DIRTY) ? "dirty" : "clean");
	munmap(map, page);
	read_stored(file, stored);
	gt_check_bytes(seen, stored, page, "bytes of the file, compared with what its mapping had after the read");
	gt_pass("the file has what was read into its mapping");
}

GUEST_TEST = {
	.summary       = "O_DIRECT read into a shared file mapping survives the file's writeback",
	.contract      = "C-READ",
	.mechanism     = "the completion of the read does not make the page dirty, which was cleaned meanwhile",
	.needs_kconfig = "USERFAULTFD=y SWAP=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a file without the data that was read into it",
	.run           = run,
};
