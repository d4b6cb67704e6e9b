// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fork() with each of its allocations failing in turn. Either it fails, and the parent is as before: its memory, its
 * swap, its huge pages. Or it succeeds, and the child has all. A monitor that userfaultfd informs of a child may use
 * what it gets, even if the child never ran.
 */
#include "failnth.h"
#include "guesttest.h"
#include "ksm.h"
#include "pagekind.h"
#include "pattern.h"
#include "swap.h"
#include "uffd.h"
#include "uring.h"

enum { MOST = 5000, FEWEST = 30, SALT_PARENT = 1, SALT_CHILD };

struct watcher {
	int uffd, forked, forks;
	pthread_t thread;
};

static struct watcher watcher = { .uffd = -1 };
static const char *kind;
static char *map, *copy;
static size_t length;

static unsigned long used_swap(void)
{
	return page_read_field("/proc/meminfo", "SwapTotal:") - page_read_field("/proc/meminfo", "SwapFree:");
}

/* Small pages with page tables of their own: those of a neighbour are there when fork() comes to them. */
static char *map_alone(size_t pages)
{
	size_t table = page_size() * (page_size() / sizeof(uint64_t));
	char *room = page_find_room(table, table), *filled = page_map(pages, 1);

	gt_need(mmap(room, table, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == room,
		"room for a page table");
	gt_need(mremap(filled, pages * page_size(), pages * page_size(), MREMAP_MAYMOVE | MREMAP_FIXED, room) == room,
		"mremap");
	return room;
}

static void map_memory(void)
{
	/* not mapped: fork() would copy the ring as well, which is fork.fail-ring */
	struct uring ring = { 0 };
	bool is_page_kind = !strcmp(kind, "thp") || !strcmp(kind, "hugetlb") || !strcmp(kind, "mthp");

	if (is_page_kind) {
		map = pagekind_map(kind, 2, &length);
	} else {
		length = 8 * page_size();
		map = map_alone(8);
	}
	copy = pattern_fill(map, length, SALT_PARENT);
	if (!strcmp(kind, "swapped")) {
		swap_need();
		for (size_t at = 0; at < length; at += page_size())
			swap_out(map + at);
	} else if (!strcmp(kind, "pinned")) {
		ring.fd = syscall(SYS_io_uring_setup, 4, &ring.p);
		if (ring.fd < 0)
			gt_skip("no io_uring: %s", strerror(errno));
		uring_register_buffer(&ring, map, length);
	} else if (!strcmp(kind, "ksm")) {
		ksm_start();
		ksm_offer(map, length / page_size());
	} else if (!strcmp(kind, "uffd")) {
		watcher.uffd = uffd_open_with(UFFD_FEATURE_EVENT_FORK);
		uffd_register(watcher.uffd, map, length, UFFDIO_REGISTER_MODE_MISSING);
	} else {
		gt_need(is_page_kind || !strcmp(kind, "small"), "memory of kind %s", kind);
	}
}

/* The monitor: counts reported forks until the end of the pipe, and uses the userfaultfd of each child. */
static void *watch(void *unused)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)map, page_size() } };
	struct uffd_msg message;

	while (uffd_wait(watcher.uffd, watcher.forked, &message)) {
		gt_need(message.event == UFFD_EVENT_FORK, "a fork, got event 0x%x", message.event);
		watcher.forks++;
		/* the page is there, or the child is not: an error in any case, or worse */
		gt_check(ioctl(message.arg.fork.ufd, UFFDIO_ZEROPAGE, &zero), "a page is not overwritten");
		close(message.arg.fork.ufd);
	}
	return unused;
}

/* The child compares and overwrites what it has. */
static _Noreturn void be_child(void)
{
	pattern_check(copy, map, length, "what the child has");
	pattern_write(map, length, SALT_CHILD);
	_exit(0);
}

/* Forks with the nth allocation failing. Returns whether one failed. *child is -1 if the fork did. */
static bool fork_with_failure(unsigned int n, pid_t *child)
{
	int forked[2];
	bool has_failed;

	if (watcher.uffd >= 0) {
		watcher.forks = 0;
		gt_need(!pipe2(forked, O_CLOEXEC), "a pipe");
		watcher.forked = forked[0];
		gt_need(!pthread_create(&watcher.thread, NULL, watch, NULL), "a monitor thread");
	}
	fflush(stdout);
	failnth_arm(n);
	*child = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);	/* the library's fork() allocates, too */
	if (!*child)
		be_child();
	has_failed = failnth_end();
	if (*child < 0)
		gt_check(errno == ENOMEM || errno == EAGAIN, "fork() says that there is no memory, not %s", strerror(errno));
	if (watcher.uffd >= 0) {
		close(forked[1]);
		gt_need(!pthread_join(watcher.thread, NULL), "the monitor ends");
		close(forked[0]);
		/* a fork that fails late has already been reported */
		gt_check(watcher.forks == 1 || (!watcher.forks && *child < 0), "a fork is reported once, not %d times",
			 watcher.forks);
	}
	return has_failed;
}

/* A child that dies at memory which it lacks is a failure of the kernel, and not of the test. */
static void end_child(pid_t child)
{
	siginfo_t end;

	gt_need(!waitid(P_PID, child, &end, WEXITED | WNOWAIT), "waiting for the child");
	gt_check(end.si_code == CLD_EXITED || (end.si_status != SIGSEGV && end.si_status != SIGBUS),
		 "the child has the memory that it runs in; signal %d", end.si_status);
	gt_reap(child);
}

/* Reading brings pages in from swap: those are compared at the end. */
static void check_parent(bool is_end)
{
	if (strcmp(kind, "swapped") || is_end)
		pattern_check(copy, map, length, "what the parent has");
	else
		for (size_t at = 0; at < length; at += page_size())
			gt_check(page_entry(map + at) & PAGE_SWAPPED, "page %zu is in swap", at / page_size());
}

static void run(void)
{
	unsigned int n = 0, failures = 0, survivals = 0;
	unsigned long swap_before, huge_before = 0;
	bool is_hugetlb, has_failed = true;
	size_t huge = 0;
	pid_t child;

	kind = gt_param("page");
	is_hugetlb = !strcmp(kind, "hugetlb");
	failnth_begin();
	map_memory();
	swap_before = used_swap();
	if (is_hugetlb) {
		huge = hugetlb_usual_size();
		huge_before = hugetlb_count(huge, -1, "free_hugepages");
	}
	while (has_failed) {
		gt_need(++n < MOST, "a fork of fewer than %d allocations", MOST);
		has_failed = fork_with_failure(n, &child);
		if (child > 0)
			end_child(child);
		else
			gt_check(has_failed, "fork() has the memory that it needs");
		gt_check(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD, "a fork that failed leaves no child");
		failures += child < 0;
		survivals += has_failed && child > 0;
		check_parent(false);
		if (is_hugetlb)
			hugetlb_check(huge, "free_hugepages", huge_before, "when the child is gone or never was");
	}
	gt_note("%u allocations failed: %u times fork() did, %u times it went on", n - 1, failures, survivals);
	gt_need(failures >= FEWEST, "at least %d forks that failed, not %u", FEWEST, failures);
	gt_check(used_swap() <= swap_before + 4 * page_size() / 1024, "%lu KiB of swap are used, as before, not %lu",
		 swap_before, used_swap());
	check_parent(true);
	if (!strcmp(kind, "ksm"))
		ksm_wait_scans(2);
	pattern_write(map, length, SALT_CHILD);
	pattern_write(copy, length, SALT_CHILD);
	check_parent(true);
	gt_pass("of %u forks, each failed as a whole or gave the child everything", n);
}

GUEST_TEST = {
	.summary       = "fork() fails as a whole or not at all, whichever of its allocations fails",
	.contract      = "C-ACCT",
	.mechanism     = "an error path of fork() reports success, undoes too little, or leaves others a dead child",
	.fixes         = "f64e67e5d3a4",
	.needs_kconfig = "FAILSLAB=y FAIL_PAGE_ALLOC=y FAULT_INJECTION_DEBUG_FS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "page: small mthp thp hugetlb swapped pinned ksm uffd",
	.needs_root    = true,
	.may_crash     = true,
	.kind          = "deterministic",
	.timeout_s     = 120,
	.detects       = "a child that lacks a page, memory or swap that is lost, a crash in what watches forks",
	.run           = run,
};
