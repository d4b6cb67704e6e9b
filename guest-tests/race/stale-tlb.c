// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A thread on another CPU never stops writing to a page, so that its TLB keeps the entry. A system call changes
 * the page table. From when it returns, the writes must fault, be recorded, or reach the page that is mapped
 * now: a CPU that was not told to flush its TLB goes on writing to the page of before.
 */
#include "guesttest.h"
#include "swap.h"
#include "thp.h"
#include "uffd.h"
#include <sys/syscall.h>

enum { MOVES = 10, LIMIT_MS = 3000 };

/* Shared with a child. "at" is where the writer writes, "count" what it wrote there last. */
static struct {
	volatile uint64_t *at;
	uint64_t count;
	bool faulted, over;
} *writer;

static pthread_t thread;

static void on_fault(int number)
{
	(void)number;
	__atomic_store_n(&writer->faulted, true, __ATOMIC_RELEASE);
	for (;;)
		pause();
}

static void *write_on(void *arg)
{
	cpu_set_t others;

	memset(&others, 0xff, sizeof(others));
	CPU_CLR(*(int *)arg, &others);
	gt_need(!sched_setaffinity(0, sizeof(others), &others), "moving to another CPU");
	for (uint64_t n = 1; !__atomic_load_n(&writer->over, __ATOMIC_ACQUIRE); n++) {
		*writer->at = n;
		__atomic_store_n(&writer->count, n, __ATOMIC_RELEASE);
	}
	return NULL;
}

static uint64_t count(void)
{
	return __atomic_load_n(&writer->count, __ATOMIC_ACQUIRE);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}

/* Returns a number that was written before, once some writes were begun and ended since the call. */
static uint64_t wait_for_writes(void)
{
	uint64_t from = count(), end = now_ms() + LIMIT_MS;

	while (count() < from + 100) {
		gt_need(now_ms() < end, "the other thread writes");
		sched_yield();
	}
	return count();
}

static void start_writer(void *page)
{
	static int here;

	if (sysconf(_SC_NPROCESSORS_ONLN) < 2)
		gt_skip("needs 2 CPUs");
	page_stay_on_cpu();
	here = sched_getcpu();
	signal(SIGSEGV, on_fault);
	writer->at = page;
	gt_need(!pthread_create(&thread, NULL, write_on, &here), "a thread");
	wait_for_writes();
}

/* By the kernel's own mapping: this CPU's TLB could be as wrong as the other's. */
static uint64_t read_at(const volatile void *address)
{
	static int memory = -1;
	uint64_t value;

	if (memory < 0)
		memory = open("/proc/self/mem", O_RDONLY | O_CLOEXEC);
	gt_need(memory >= 0 && pread(memory, &value, 8, (uintptr_t)address) == 8, "reading /proc/self/mem");
	return value;
}

/* The writer has to fault. Where it wrote is visible at another address now, maybe. */
static void check_stopped(const void *visible, int uffd)
{
	struct pollfd message = { uffd, POLLIN, 0 };
	uint64_t before = read_at(visible), after, end = now_ms() + LIMIT_MS;
	bool stopped = false;

	while (!stopped && now_ms() < end) {
		sched_yield();
		stopped = uffd < 0 ? __atomic_load_n(&writer->faulted, __ATOMIC_ACQUIRE) : poll(&message, 1, 0) == 1;
		after = read_at(visible);
		gt_check(after == before, "no write reaches the page any more, but number %llu did after %llu",
			 (unsigned long long)after, (unsigned long long)before);
	}
	gt_need(stopped, "the other thread's write faults");
	gt_pass("the next write of the other thread faulted");
}

/* The writer's last writes have to be in what is mapped. */
static void check_current(const char *when)
{
	uint64_t written = wait_for_writes(), seen = read_at(writer->at);

	gt_check(seen >= written, "the page has what was written to it %s: number %llu or later, not %llu", when,
		 (unsigned long long)written, (unsigned long long)seen);
}

/* In the midst of others, so that no page table is freed: that flushes the TLB, too. */
static char *map_page(void)
{
	size_t room = 8UL << 20;
	char *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	gt_need(map != MAP_FAILED, "mmap");
	madvise(map, room, MADV_NOHUGEPAGE);
	map = (char *)(((uintptr_t)map + room / 2) & -(room / 4)) + 16 * page_size();
	for (int i = -2; i <= 2; i++)
		map[i * (long)page_size()] = 1;
	return map;
}

static void by_mprotect(void)
{
	char *page = map_page();

	start_writer(page);
	gt_need(!mprotect(page, page_size(), PROT_READ), "mprotect");
	check_stopped(page, -1);
}

static void by_uffd(void)
{
	char *page = map_page();
	int fd = uffd_open();

	uffd_register(fd, page, page_size(), UFFDIO_REGISTER_MODE_WP);
	start_writer(page);
	uffd_write_protect(fd, page, page_size(), true);
	check_stopped(page, fd);
}

static void by_mremap(void)
{
	char *page = map_page(), *target = page + 8 * page_size();

	start_writer(page);
	gt_need(mremap(page, page_size(), page_size(), MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	check_stopped(target, -1);
}

static void by_mremap_of_thp(void)
{
	size_t length;
	char *huge = page_map_thp(&length, 0), *target;

	target = mmap(NULL, 2 * length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	gt_need(target != MAP_FAILED, "mmap");
	target = (char *)(((uintptr_t)target + length - 1) & -length);
	start_writer(huge);
	gt_need(mremap(huge, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	gt_note("%lu KiB are mapped as a huge page after the move", page_huge_kib(target));
	check_stopped(target, -1);
}

/* All that could flush comes first. */
static void by_clear_refs(void)
{
	char *page = map_page();
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);

	start_writer(page);
	page_clear_soft_dirty();
	wait_for_writes();
	gt_need(fd >= 0 && write(fd, "4", 1) == 1, "clearing the soft-dirty bits");
	wait_for_writes();
	gt_check(page_entry(page) & PAGE_SOFT_DIRTY, "a page that was written is soft-dirty");
	gt_pass("the writes since the soft-dirty bits were cleared are recorded");
}

/* Returns whether the page became lazyfree: not if it was just on its way to another node. */
static bool free_lazily(char *page, char *control)
{
	writer->over = false;
	page_settle(page);
	start_writer(page);
	gt_need(!madvise(page, page_size(), MADV_FREE), "MADV_FREE");
	wait_for_writes();
	__atomic_store_n(&writer->over, true, __ATOMIC_RELEASE);
	gt_need(!pthread_join(thread, NULL), "pthread_join");
	page_free_lazily(control, 1);
	return !page_is(page, PAGE_SWAPBACKED);
}

static void by_madvise_free(void)
{
	char *page = map_page(), *control = page_map(1, 'o');
	uint64_t seen;
	int rounds = 0;

	while (!free_lazily(page, control))
		gt_need(++rounds < MOVES, "the page is lazyfree");
	for (int i = 0; i < 200 && page_entry(control) & PAGE_PRESENT; i++)
		if (madvise(page, page_size(), MADV_PAGEOUT) || madvise(control, page_size(), MADV_PAGEOUT))
			gt_skip("the kernel has no MADV_PAGEOUT");
	gt_need(!(page_entry(control) & PAGE_PRESENT), "a lazyfree page that was not written is discarded");
	seen = read_at(page);
	gt_check(seen == count(), "the page has number %llu, written after MADV_FREE, not %llu",
		 (unsigned long long)count(), (unsigned long long)seen);
	gt_pass("the page that was written after MADV_FREE is still there");
}

static void by_madvise_dontneed(void)
{
	char *page = map_page();

	start_writer(page);
	for (int i = 0; i < MOVES; i++) {
		gt_need(!madvise(page, page_size(), MADV_DONTNEED), "MADV_DONTNEED");
		check_current("after MADV_DONTNEED");
	}
	gt_pass("the writes after MADV_DONTNEED are in the page that is mapped");
}

static void by_migration(void)
{
	void *page = map_page();
	int status, moved = 0;

	start_writer(page);
	for (int i = 0; i < 10 * MOVES && moved < MOVES; i++) {
		int from = -1, node;

		gt_need(!syscall(SYS_move_pages, 0, 1UL, &page, NULL, &from, 0), "asking where the page is");
		node = from == 0;
		if (syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, 2 /* MPOL_MF_MOVE */) < 0)
			gt_skip("pages cannot be moved to NUMA node %d: %s", node, strerror(errno));
		moved += from >= 0 && status == node;
		check_current("around its migration");
	}
	gt_need(moved, "the page was migrated");
	gt_pass("the writes around %d migrations are in the page that is mapped", moved);
}

static int watch_parent(void *arg)
{
	uint64_t first = *writer->at;

	(void)arg;
	wait_for_writes();
	gt_check(*writer->at == first, "the child sees no write of its parent after the fork");
	return 0;
}

/* The child has a stack of its own: on a wrong kernel its parent goes on writing to that of before. */
static void by_fork(void)
{
	char *page = map_page(), *stack = page_map(16, 0);
	pid_t child;

	start_writer(page);
	child = (fflush(stdout), clone(watch_parent, stack + 16 * page_size(), SIGCHLD, NULL));
	gt_need(child > 0, "clone");
	gt_reap(child);
	check_current("after the fork");
	gt_pass("the child sees no write of its parent");
}

static void run(void)
{
	static const struct { const char *name; void (*run)(void); } calls[] = {
		{ "mprotect", by_mprotect }, { "uffd-wp", by_uffd }, { "mremap", by_mremap },
		{ "mremap-thp", by_mremap_of_thp }, { "clear-refs", by_clear_refs },
		{ "madv-free", by_madvise_free }, { "madv-dontneed", by_madvise_dontneed },
		{ "migration", by_migration }, { "fork", by_fork },
	};

	writer = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	gt_need(writer != MAP_FAILED, "mmap");
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++)
		if (!strcmp(calls[i].name, gt_param("by")))
			calls[i].run();
}

GUEST_TEST = {
	.summary       = "a thread that never stops writing to a page notices each change of its page table",
	.contract      = "C-LIVE",
	.mechanism     = "the TLB of another CPU is not flushed, or too late",
	.needs_kconfig = "PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "by: mprotect uffd-wp mremap mremap-thp clear-refs madv-free madv-dontneed migration fork",
	.needs_root    = true,
	.cpus          = 2,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "writes to a page that is no longer mapped, or that nothing records",
	.run           = run,
};
