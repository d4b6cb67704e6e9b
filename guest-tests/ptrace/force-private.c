// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A debugger may write to a read-only private mapping of a file: it gets a copy, and the file must
 * not change. Between the fault that makes the copy and the write to it, another thread can drop
 * the copy; a kernel that then forgets that the access is a write changes the file (CVE-2016-5195,
 * and CVE-2022-2590 for shared memory).
 */
#include "access.h"
#include "guesttest.h"
#include "pagestate.h"
#include "rate.h"
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <time.h>

static char *map;
/* Of the debugger, a child, and its parent, whose mapping it is. */
static struct shared {
	unsigned long writes, dropped;
	bool is_racing;
	int refused;		/* errno of the first write */
} *shared;

/* The debugger: since 7.3 by default nobody else may force a write. */
static int attach_to_parent(void)
{
	char path[40];
	int mem;

	gt_need(!ptrace(PTRACE_SEIZE, getppid(), NULL, NULL), "attaching to the parent");
	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	mem = open(path, O_RDWR | O_CLOEXEC);
	gt_need(mem >= 0, "%s", path);
	return mem;
}

static bool force_write(int mem, char value)
{
	return pwrite(mem, &value, 1, (uintptr_t)map) == 1;
}

/* Writes for two seconds, or as long as a busy host needs, while the parent drops what was written. */
static void force_writes(bool is_race)
{
	int mem = attach_to_parent();
	time_t end;

	if (!force_write(mem, 'x')) {
		shared->refused = errno;
		_exit(0);
	}
	shared->writes = 1;
	if (!is_race)
		_exit(0);
	__atomic_store_n(&shared->is_racing, true, __ATOMIC_RELEASE);
	for (end = time(NULL) + 2; time(NULL) <= end || __atomic_load_n(&shared->dropped, __ATOMIC_RELAXED) <= 100;
	     shared->writes++)
		gt_need(force_write(mem, 'x'), "a forced write");
	_exit(0);
}

static bool has_ended(pid_t pid)
{
	siginfo_t info = { 0 };

	gt_need(!waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT), "waitid");
	return info.si_pid == pid;
}

static void run(void)
{
	bool in_memory = !strcmp(gt_param("race"), "shmem"), is_mapped = !strcmp(gt_param("race"), "mapped");
	bool is_race = !is_mapped && strcmp(gt_param("race"), "none");
	char name[40], *original = malloc(page_size()), *now = malloc(page_size());
	pid_t debugger;
	int fd;

	snprintf(name, sizeof(name), "%s/force-private.XXXXXX", in_memory ? "/dev/shm" : ".");
	memset(original, 'o', page_size());
	fd = mkstemp(name);
	gt_need(fd >= 0 && write(fd, original, page_size()) == (ssize_t)page_size() && !fchmod(fd, 0444),
		"a read-only file");
	close(fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	unlink(name);
	map = mmap(NULL, page_size(), PROT_READ, MAP_PRIVATE, fd, 0);
	shared = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	gt_need(fd >= 0 && map != MAP_FAILED && shared != MAP_FAILED, "mapping the file");
	prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);	/* where Yama is */
	if (is_mapped)	/* the copy then is that of a mapped page */
		gt_need(*(volatile char *)map == 'o', "reading the mapping");
	debugger = gt_fork();
	if (!debugger)
		force_writes(is_race);
	while (!__atomic_load_n(&shared->is_racing, __ATOMIC_ACQUIRE) && !has_ended(debugger))
		sched_yield();
	if (shared->refused)
		gt_skip("the kernel rejects writes to read-only mappings: %s", strerror(shared->refused));
	gt_check(*(volatile char *)map == 'x', "the mapping shows the forced write");
	gt_check(is_race || !access_can_write(map, 'y'), "the mapping stays read-only for the program");
	while (!has_ended(debugger)) {
		madvise(map, page_size(), MADV_DONTNEED);
		__atomic_add_fetch(&shared->dropped, 1, __ATOMIC_RELAXED);
	}
	gt_reap(debugger);
	gt_need(!is_race || (shared->dropped > 100 && shared->writes > 100), "enough iterations: %lu writes, %lu drops",
		shared->writes, shared->dropped);
	gt_need(pread(fd, now, page_size(), 0) == (ssize_t)page_size(), "reading the file");
	gt_rate(!!memcmp(original, now, page_size()), shared->writes);	/* the file stays changed */
	gt_check_bytes(original, now, page_size(), "the file after a forced write to its private mapping");
	gt_pass("%lu forced writes, %lu of the copies dropped, and the file is unchanged", shared->writes,
		shared->dropped);
}

GUEST_TEST = {
	.summary       = "a forced write to a read-only private mapping never reaches the file",
	.contract      = "C-ISO",
	.mechanism     = "GUP forgets that it wants to write when its copy is dropped concurrently",
	.fixes         = "19be0eaffa3a",
	.cve           = "CVE-2016-5195 CVE-2022-2590",
	.min_kernel    = "3.16",
	.params        = "race: none mapped dontneed shmem",
	.needs_root    = false,
	.kind          = "race",
	.timeout_s     = 30,
	.detects       = "a file changed by somebody who may only read it",
	.run           = run,
};
