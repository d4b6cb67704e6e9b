// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * GUP-fast takes references for direct I/O without a lock. When a concurrent fork() write-protects
 * the same page tables, it has to drop them and start over. A kernel that drops them wrongly frees
 * the page too early or leaks it. The test checks for kernel splats, compares the counts of
 * acquired and released pins, and verifies the data read.
 */
#include "guesttest.h"
#include "rate.h"
#include "stalledio.h"
#include "uring.h"
#include <time.h>

/* A small part of each page is read: to take many references is the point, not to move many bytes. */
enum { PAGES = 256, PART = (1 << 20) / PAGES, BALLAST = 4000, SECONDS = 4, AT_MOST = 40, ENOUGH = 10 };

static struct {
	struct stalled_io file;
	char *buffer, *expected;
	unsigned long reads, pins, forks;
	bool over;
} shared;

static bool is_over(void)
{
	return __atomic_load_n(&shared.over, __ATOMIC_RELAXED);
}

static bool is_enough(void)
{
	return shared.forks > ENOUGH && __atomic_load_n(&shared.reads, __ATOMIC_RELAXED) > ENOUGH &&
	       __atomic_load_n(&shared.pins, __ATOMIC_RELAXED) > ENOUGH;
}

static void *read_directly(void *arg)
{
	struct iovec parts[PAGES];
	size_t page = page_size();

	(void)arg;
	for (size_t i = 0; i < PAGES; i++)
		parts[i] = (struct iovec){ shared.buffer + i * page, PART };
	for (; !is_over(); shared.reads++) {
		for (size_t i = 0; i < PAGES; i++)
			memset(parts[i].iov_base, 0, PART);
		gt_need(preadv(shared.file.fd, parts, PAGES, 0) == PAGES * PART, "a direct read");
		for (size_t i = 0; i < PAGES; i++)
			gt_check_bytes(shared.expected + i * PART, parts[i].iov_base, PART,
				       "bytes read during forks");
	}
	return NULL;
}

/* Pins that are counted: on kernels whose direct I/O takes mere references, these are all there are. */
static void *register_and_unregister(void *arg)
{
	char *buffer = page_map(16, 1);
	struct uring ring;

	(void)arg;
	uring_open(&ring);
	for (; !is_over(); shared.pins++) {
		uring_register_buffer(&ring, buffer, 16 * page_size());
		gt_need(!syscall(SYS_io_uring_register, ring.fd, IORING_UNREGISTER_BUFFERS, NULL, 0),
			"unregistering");
	}
	close(ring.fd);
	return NULL;
}

static long long counted(const char *name)
{
	static char text[32768];
	char *line;

	page_write_file("/proc/sys/vm/stat_refresh", "1");	/* else each CPU has counts of its own */
	page_read_file("/proc/vmstat", text, sizeof(text));
	line = strstr(text, name);
	if (!line)
		gt_skip("the kernel does not count pins: no %s in /proc/vmstat", name);
	return atoll(line + strlen(name));
}

static long long outstanding_pins(void)
{
	return counted("nr_foll_pin_acquired ") - counted("nr_foll_pin_released ");
}

static void make_file(void)
{
	char name[] = "gupfast.XXXXXX";
	int fd = mkstemp(name);

	shared.buffer = page_map(PAGES, 0);
	shared.expected = malloc(PAGES * PART);
	for (size_t i = 0; i < PAGES * PART; i++)
		shared.expected[i] = 1 + i % 127;
	gt_need(fd >= 0 && write(fd, shared.expected, PAGES * PART) == PAGES * PART && !fsync(fd), "writing a file");
	close(fd);
	shared.file.fd = open(name, O_RDONLY | O_DIRECT | O_CLOEXEC);
	unlink(name);
	if (shared.file.fd < 0)
		gt_skip("no O_DIRECT on the file system of the current directory: %s", strerror(errno));
}

static void run(void)
{
	const time_t began = time(NULL);
	pthread_t reader, pinner;
	long long before = outstanding_pins(), taken = counted("nr_foll_pin_acquired ");
	pid_t pid;

	make_file();
	page_map(BALLAST, 1);		/* what makes a fork last */
	gt_need(!pthread_create(&reader, NULL, read_directly, NULL) &&
		!pthread_create(&pinner, NULL, register_and_unregister, NULL), "threads");
	/* a kernel with all its checks on a slow machine takes longer to have been asked anything */
	for (; time(NULL) - began <= (is_enough() ? SECONDS : AT_MOST); shared.forks++) {
		pid = fork();
		gt_need(pid >= 0, "fork");
		if (!pid)
			_exit(0);
		gt_need(waitpid(pid, NULL, 0) == pid, "waiting for a child");
	}
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(reader, NULL) && !pthread_join(pinner, NULL), "pthread_join");
	gt_need(is_enough(), "enough iterations: %lu forks, %lu reads, %lu pins", shared.forks, shared.reads,
		shared.pins);
	gt_need(counted("nr_foll_pin_acquired ") > taken, "pins are counted");
	/* A ring gives its pages back when it gets to it. */
	for (int i = 0; i < 50 && outstanding_pins() != before; i++)
		usleep(100000);
	gt_rate(llabs(outstanding_pins() - before), counted("nr_foll_pin_acquired ") - taken);
	gt_check(outstanding_pins() == before, "all pins are released: %lld outstanding before, %lld now", before,
		 outstanding_pins());
	gt_pass("%lu forks against %lu direct reads and %lu pins; every pin was released", shared.forks,
		shared.reads, shared.pins);
}

GUEST_TEST = {
	.summary       = "references taken by GUP-fast during fork() are all released",
	.contract      = "C-LIVE",
	.mechanism     = "the retry after a concurrent fork() drops a reference as if it were a pin, or not at all",
	.changelog     = "5",
	.needs_kconfig = "IO_URING=y DEBUG_VM=y",
	.min_kernel    = "5.7",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "a leaked pin, a page freed during a read, a kernel splat",
	.run           = run,
};
