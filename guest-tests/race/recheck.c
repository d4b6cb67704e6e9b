// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A write fault drops the lock of the page table, to copy a page or to wait for the page lock. Meanwhile another
 * thread may write to the page, or give it up and write to a new one. The first fault has to look at the page
 * table again: it must neither replace nor bring back a page. Module cowhold stops the first thread before it
 * copies; or the child that migrates the page, with the page lock, which the first thread then waits for.
 */
#include "cowhold.h"
#include "pagestate.h"
#include "partner.h"
#include "thp.h"
#include <pthread.h>
#include <sys/syscall.h>

enum { FIRST = 0, SECOND = 64, LIMIT_MS = 300, MOST_ROUNDS = 5 };

static struct {
	volatile char *page;
	pid_t tid;
	int go[2], done[2];
	bool moves;
	pthread_t thread;
} first;

static void *write_first(void *arg)
{
	char byte;

	(void)arg;
	__atomic_store_n(&first.tid, first.moves ? cowhold_move_away() : syscall(SYS_gettid), __ATOMIC_RELEASE);
	gt_need(read(first.go[0], &byte, 1) == 0, "waiting");
	first.page[FIRST] = '1';
	close(first.done[1]);
	return NULL;
}

static void start_first(char *page, bool moves)
{
	first.page = page;
	first.moves = moves;
	first.tid = 0;
	gt_need(!pipe(first.go) && !pipe(first.done) && !pthread_create(&first.thread, NULL, write_first, NULL),
		"a thread");
	while (!__atomic_load_n(&first.tid, __ATOMIC_ACQUIRE))
		sched_yield();
}

static void end_first(void)
{
	gt_need(!pthread_join(first.thread, NULL), "pthread_join");
	close(first.go[0]);
	close(first.done[0]);
	gt_check(first.page[SECOND] == '2', "the second thread's write is not lost");
}

/* A page that a write fault copies. */
static char *map_page(const char *kind)
{
	int file;
	char *page;

	if (!strcmp(kind, "shared"))
		return page_map(1, 'o');
	file = strcmp(kind, "file") ? -1 : memfd_create("private", MFD_CLOEXEC);
	gt_need(file < 0 || !ftruncate(file, page_size()), "a file in memory");
	page = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | (file < 0 ? MAP_ANONYMOUS : 0), file, 0);
	gt_need(page != MAP_FAILED, "mmap");
	madvise(page, page_size(), MADV_NOHUGEPAGE);
	(void)*(volatile char *)page;
	if (file >= 0)
		close(file);
	return page;
}

/* The first fault has found what to copy, and has no lock of the page table. The second may wait for its CPU. */
static bool copy_at_once(const char *kind)
{
	static const char *const names[] = {
		"wp_page_copy", "wp_page_copy.isra.0", "wp_page_copy.constprop.0", "folio_prealloc",
		"mem_cgroup_charge", NULL,
	};
	volatile char *page = map_page(kind);
	int hold = cowhold_open();
	struct partner child;
	bool held;

	if (partner_fork(&child)) {
		partner_wait(&child);
		partner_end(&child);
	}
	start_first((char *)page, true);
	cowhold_arm_first(hold, first.tid, LIMIT_MS, names, "a write fault");
	close(first.go[1]);
	held = cowhold_wait(hold, first.done[0]);
	page[SECOND] = '2';
	ioctl(hold, COWHOLD_IOC_RELEASE);
	end_first();
	gt_check(page[FIRST] == '1', "the first thread's write is not lost");
	close(hold);
	partner_wake(&child);
	partner_end(&child);
	return held;
}

static bool first_sleeps(void)
{
	char path[64], text[256], *state;

	snprintf(path, sizeof(path), "/proc/self/task/%d/stat", first.tid);
	page_read_file(path, text, sizeof(text));
	state = strrchr(text, ')');
	return state && state[1] && state[2] == 'D';
}

static bool first_is_done(void)
{
	struct pollfd done = { first.done[0], POLLIN, 0 };

	return poll(&done, 1, 0);
}

/* The child, on another CPU: moves the page to the other of two nodes, or tries to. */
static void migrate(struct partner *parent, void *page)
{
	int from = -1, node, status;

	cowhold_move_away();
	gt_need(!syscall(SYS_move_pages, 0, 1UL, &page, NULL, &from, 0), "asking where the page is");
	node = from == 0;
	partner_wake(parent);
	partner_wait(parent);
	if (syscall(SYS_move_pages, 0, 1UL, &page, &node, &status, 4 /* MPOL_MF_MOVE_ALL */) < 0)
		gt_note("move_pages: %s", strerror(errno));
	partner_wake(parent);
	partner_wait(parent);
	partner_end(parent);
}

/* The first thread's write may come before the page is given up, and then is given up with it. */
static bool wait_at_once(const char *kind)
{
	static const char *const names[] = { "try_to_migrate", "try_to_unmap", NULL };
	size_t length = page_size();
	volatile char *page = strcmp(kind, "lock-thp") ? page_map(1, 'o') : page_map_thp(&length, 'o');
	int hold = cowhold_open();
	struct partner child;
	bool held, done;

	page_settle(page);
	if (partner_fork(&child))
		migrate(&child, (void *)page);
	partner_wait(&child);
	start_first((char *)page, false);
	cowhold_arm_first(hold, child.pid, COWHOLD_MOST_MS, names, "the migration of a page");
	partner_wake(&child);
	held = cowhold_wait(hold, child.in);
	if (!held && errno != ETIME)
		gt_skip("the page is not migrated: are there two NUMA nodes?");
	close(first.go[1]);
	for (int i = 0; i < 400 && held && !first_sleeps() && !first_is_done(); i++)
		usleep(1000);
	done = first_is_done();
	gt_need(!madvise((void *)page, length, MADV_DONTNEED), "MADV_DONTNEED");
	page[SECOND] = '2';
	held = !ioctl(hold, COWHOLD_IOC_RELEASE) && held;
	if (done && held)
		gt_skip("a write fault does not wait for the page lock");
	partner_wait(&child);
	end_first();
	close(hold);
	partner_wake(&child);
	partner_end(&child);
	return held;
}

static void run(void)
{
	const char *kind = gt_param("page");
	bool copies = strncmp(kind, "lock", 4);
	int rounds = 1;

	page_stay_on_cpu();
	while (!(copies ? copy_at_once : wait_at_once)(kind))
		gt_need(++rounds <= MOST_ROUNDS, "the thread was held while the other wrote (busy host?)");
	gt_pass("no write was lost, in round %d", rounds);
}

GUEST_TEST = {
	.summary       = "two threads that write to a page at the same time lose no write",
	.contract      = "C-LIVE",
	.mechanism     = "a write fault maps a page without looking again at what another thread has mapped",
	.needs_kconfig = "MODULES=y KPROBES=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.params        = "page: shared zero file lock-small lock-thp",
	.needs_root    = true,
	.cpus          = 2,
	.memory_mib    = 768,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write that is not in memory",
	.run           = run,
};
