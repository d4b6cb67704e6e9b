// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A debugger may write into a read-only private mapping of a file: it gets a copy, and the file
 * must stay as it is. Between the fault that makes the copy and the write into it, another thread
 * can drop the copy again; a kernel that then forgets why it wanted to write changes the file
 * (CVE-2016-5195, and CVE-2022-2590 on shared memory).
 */
#include "guesttest.h"
#include "pagestate.h"
#include "rate.h"
#include <pthread.h>
#include <sys/stat.h>
#include <time.h>

static struct {
	char *map;
	int mem;
	bool over;
	unsigned long dropped;
} shared;

static void *drop_copies(void *arg)
{
	(void)arg;
	while (!__atomic_load_n(&shared.over, __ATOMIC_RELAXED)) {
		madvise(shared.map, page_size(), MADV_DONTNEED);
		shared.dropped++;
	}
	return NULL;
}

static bool force_write(char value)
{
	return pwrite(shared.mem, &value, 1, (uintptr_t)shared.map) == 1;
}

/* Writes for two seconds, or as long as a busy host needs, while another thread drops what was written. */
static unsigned long race(void)
{
	const time_t end = time(NULL) + 2;
	unsigned long writes = 0;
	pthread_t dropper;

	gt_need(!pthread_create(&dropper, NULL, drop_copies, NULL), "pthread_create");
	for (; time(NULL) <= end || __atomic_load_n(&shared.dropped, __ATOMIC_RELAXED) <= 100; writes++)
		gt_need(force_write('x'), "a forced write");
	__atomic_store_n(&shared.over, true, __ATOMIC_RELAXED);
	gt_need(!pthread_join(dropper, NULL), "pthread_join");
	gt_need(shared.dropped > 100 && writes > 100, "enough of a race: %lu writes, %lu drops", writes,
		shared.dropped);
	return writes;
}

static void run(void)
{
	bool in_memory = !strcmp(gt_param("race"), "shmem");
	char name[40], *original = malloc(page_size()), *now = malloc(page_size());
	unsigned long writes = 1;
	int fd;

	snprintf(name, sizeof(name), "%s/force-private.XXXXXX", in_memory ? "/dev/shm" : ".");
	memset(original, 'o', page_size());
	fd = mkstemp(name);
	gt_need(fd >= 0 && write(fd, original, page_size()) == (ssize_t)page_size() && !fchmod(fd, 0444),
		"a read-only file");
	close(fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	unlink(name);
	shared.map = mmap(NULL, page_size(), PROT_READ, MAP_PRIVATE, fd, 0);
	gt_need(fd >= 0 && shared.map != MAP_FAILED, "mapping the file");
	shared.mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
	gt_need(shared.mem >= 0, "/proc/self/mem");
	if (!force_write('x'))
		gt_skip("writes to read-only mappings are refused here: %s", strerror(errno));
	gt_need(*(volatile char *)shared.map == 'x', "the mapping shows what was written to it");
	if (strcmp(gt_param("race"), "none"))
		writes = race();
	gt_need(pread(fd, now, page_size(), 0) == (ssize_t)page_size(), "reading the file");
	gt_rate(!!memcmp(original, now, page_size()), writes);	/* the file stays changed */
	gt_check_bytes(original, now, page_size(), "the file after a forced write to its private mapping");
	gt_pass("%lu forced writes, %lu of the copies dropped, and the file is as it was", writes, shared.dropped);
}

GUEST_TEST = {
	.summary       = "a forced write to a read-only private mapping never reaches the file",
	.contract      = "C-ISO",
	.mechanism     = "get_user_pages forgets that it wants to write when its copy is dropped under it",
	.fixes         = "19be0eaffa3a",
	.cve           = "CVE-2016-5195 CVE-2022-2590",
	.min_kernel    = "3.16",
	.params        = "race: none dontneed shmem",
	.needs_root    = false,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a file changed by somebody who may only read it",
	.run           = run,
};
