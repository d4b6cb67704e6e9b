/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Memory in a given state, and operations of the kernel on it that must neither lose nor invent a tracking
 * bit of its first and its last page. The first page has the state:
 *
 * small, thp, thp-ptes	as in pagekind.h; swapped: a small page that is swapped out
 * zero			the shared zero page
 * migrating		a small page whose page table entry says that it is moving to another node
 * thp-migrating	the same for a huge page
 *
 * A page stays "migrating" because another process moves it, and module cowhold stops that process. Some
 * operations wait for the end of the migration; then it goes on after a while.
 */
#ifndef SURVIVES_H
#define SURVIVES_H
#include "cowhold.h"
#include "cowpin.h"
#include "guesttest.h"
#include "numa.h"
#include "pagekind.h"
#include "partner.h"
#include "swap.h"

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25
#endif
#define SURVIVES_KHUGEPAGED PAGE_THP_DIR "khugepaged/"

enum { SURVIVES_MOVE = 1 << 1 /* MPOL_MF_MOVE */, SURVIVES_PART = 4 };

struct survives_order { char *page; int node, status; pid_t tid; };

static struct {
	const char *page;		/* the state */
	char *start;
	size_t length;
	int hold;			/* file of cowhold, or 0 */
	bool is_held;
	struct partner mover;
	struct survives_order *order;
} survives;

static inline bool survives_is(const char *page)
{
	return !strcmp(survives.page, page);
}

static inline bool survives_is_huge(void)
{
	return survives_is("thp") || survives_is("thp-migrating");
}

static inline bool survives_kernel_is(int major, int minor)
{
	struct utsname uts;
	int have[2] = { 0, 0 };

	gt_need(!uname(&uts) && sscanf(uts.release, "%d.%d", &have[0], &have[1]) == 2, "the kernel's version");
	return have[0] > major || (have[0] == major && have[1] >= minor);
}

static inline char *survives_last(void)
{
	return survives.start + survives.length - page_size();
}

static inline int survives_move(pid_t pid, char *page, int node)
{
	int status = -1;
	void *pages = page;

	if (syscall(SYS_move_pages, pid, 1UL, &pages, &node, &status, SURVIVES_MOVE) < 0)
		return -errno;
	return status;
}

/* The process that moves the page. It has none of the memory, and another CPU than the test. */
static inline void survives_start_mover(void)
{
	survives.hold = cowhold_open();
	survives.order = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	gt_need(survives.order != MAP_FAILED, "shared memory");
	if (partner_fork(&survives.mover)) {
		survives.order->tid = cowhold_move_away();
		partner_wake(&survives.mover);
		partner_wait(&survives.mover);
		survives.order->status = survives_move(getppid(), survives.order->page, survives.order->node);
		partner_end(&survives.mover);
	}
	partner_wait(&survives.mover);
}

/* Another node than that of the page, or of the last one if the page is nowhere. */
static inline int survives_other_node(void)
{
	bool is_somewhere = !survives_is("zero") && !survives_is("swapped");

	if (access("/sys/devices/system/node/node1", F_OK))
		gt_skip("the guest has one NUMA node");
	return !numa_node_of(is_somewhere ? survives.start : survives_last());
}

/* limit_ms: when the migration goes on although nobody lets it. */
static inline void survives_hold_migration(unsigned int limit_ms)
{
	/* While the page is copied. What it is called depends on the kernel. */
	static const char *const functions[] = { "migrate_page_copy", "folio_migrate_flags" };
	struct cowhold_arm arm = { .limit_ms = limit_ms };
	size_t i = 0;

	page_settle(survives.start);
	survives.order->page = survives.start;
	survives.order->node = survives_other_node();
	arm.tid = survives.order->tid;
	do {
		if (i == sizeof(functions) / sizeof(*functions))
			gt_skip("cannot stop a migration: %s", strerror(errno));
		snprintf(arm.symbol, sizeof(arm.symbol), "%s", functions[i++]);
	} while (ioctl(survives.hold, COWHOLD_IOC_ARM, &arm));
	partner_wake(&survives.mover);
	if (!cowhold_wait(survives.hold, survives.mover.in)) {
		gt_need(survives.order->status >= 0, "the page is migrated: %d", survives.order->status);
		gt_skip("the migration does not call %s", arm.symbol);
	}
	survives.is_held = true;
	gt_need(page_entry(survives.start) & PAGE_SWAPPED, "the page's entry is one of a migration");
}

/* Ends the migration, if any. in_time: it must not have ended by itself. */
static inline void survives_let_go(bool in_time)
{
	if (!survives.is_held)
		return;
	survives.is_held = false;
	gt_need(!ioctl(survives.hold, COWHOLD_IOC_RELEASE) || !in_time, "the migration ended too early");
	partner_end(&survives.mover);
}

/* Room for small pages, where a huge page would fit. Sets *length to that of the huge page. */
static inline char *survives_map_room(size_t *length)
{
	char text[64], *room;

	page_read_file(PAGE_THP_DIR "hpage_pmd_size", text, sizeof(text));
	*length = strtoul(text, NULL, 10) ?: 2 << 20;
	room = mmap(NULL, 2 * *length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	gt_need(room != MAP_FAILED, "mmap");
	room = (char *)(((uintptr_t)room + *length - 1) & -*length);
	madvise(room, *length, MADV_NOHUGEPAGE);
	return room;
}

/*
 * Maps the memory for the operation that comes next, not yet in its state if that is swapped or migrating.
 * More than a few small pages are mapped only if it is for all that fit into a huge page.
 */
static inline void survives_map(const char *page, const char *verb)
{
	bool is_zero = !strcmp(page, "zero");

	survives.page = page;
	page_stay_on_cpu();
	if (strstr(page, "migrating"))
		survives_start_mover();
	if (!strncmp(page, "thp", 3)) {
		survives.start = pagekind_map(strcmp(page, "thp-ptes") ? "thp" : page, 0, &survives.length);
	} else {
		survives.start = survives_map_room(&survives.length);
		if (strcmp(verb, "collapse") && strcmp(verb, "mremap-all"))
			survives.length = 2 * SURVIVES_PART * page_size();
		memset(survives.start + is_zero * page_size(), 1, survives.length - is_zero * page_size());
		gt_need(*(volatile char *)survives.start == !is_zero, "the first page");
	}
	/* A flag of its own, so that it is not merged with memory that is mapped later and is soft-dirty. */
	gt_need(!madvise(survives.start, survives.length, MADV_DONTDUMP), "MADV_DONTDUMP");
}

/* Whether the operation waits for the end of a migration. */
static inline bool survives_waits(const char *verb)
{
	static const char *const waits[] = { "none", "read", "unshare", "pageout", "migrate", "collapse" };

	for (size_t i = 0; i < sizeof(waits) / sizeof(*waits); i++)
		if (!strcmp(verb, waits[i]))
			return true;
	return false;
}

/* verb: the operation that comes next. */
static inline void survives_enter(const char *verb)
{
	if (survives_is("swapped")) {
		swap_need();
		swap_out(survives.start);
	} else if (strstr(survives.page, "migrating")) {
		survives_hold_migration(survives_waits(verb) ? 30 : 800);
	}
}

static inline void survives_unshare(void)
{
	bool was_there = page_entry(survives.start) & PAGE_PRESENT;
	uint64_t before = was_there ? page_frame(survives.start) : 0;
	static struct partner child;
	int pin = module_open("cowpin");

	if (partner_fork(&child)) {
		partner_wait(&child);
		partner_end(&child);
	}
	gt_need(!cowpin_try(pin, survives.start, 1, COWPIN_LONGTERM | COWPIN_FAST), "pinning the page");
	if (was_there && page_frame(survives.start) == before)
		gt_skip("this kernel makes no copy for an R/O pin");
	close(pin);
	partner_wake(&child);
	partner_end(&child);
}

/* part: only the first pages. For a huge page that is whole, and moves as such, all of it. */
static inline void survives_mremap(bool part)
{
	size_t length = part ? SURVIVES_PART * page_size() : survives.length, unused;
	char *target = survives_map_room(&unused);

	gt_need(mremap(survives.start, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, target) == target, "mremap");
	survives.start = target;
	survives.length = length;
}

static inline void survives_migrate(void)
{
	uint64_t entry = page_entry(survives.start);
	int node = survives_other_node(), status;

	page_drain_vectors();
	status = survives_move(getpid(), survives.start, node);
	if (survives_is("zero") || survives_is("swapped"))
		gt_need(status < 0, "the kernel does not move the page");
	else
		gt_need(status == node && PAGE_PFN(entry) != page_frame(survives.start),
			"the page moves to node %d: %d", node, status);
}

/*
 * Makes one huge page of it, or tries to: a page that is write-protected by userfaultfd may be in the way.
 * Returns whether it did. The page that is written is for khugepaged, which needs a writable one.
 */
static inline bool survives_collapse(char *writable, int limit_ms)
{
	static const char *const knobs[] = { "scan_sleep_millisecs", "alloc_sleep_millisecs", "pages_to_scan" };
	static const char *const values[] = { "0", "0", "100000" };
	char before[3][32], text[64];
	unsigned long scans;

	page_drain_vectors();
	gt_need(!madvise(survives.start, survives.length, MADV_HUGEPAGE), "MADV_HUGEPAGE");
	if (!madvise(survives.start, survives.length, MADV_COLLAPSE) || errno != EINVAL)
		return page_huge_kib(survives.start);
	page_read_file(PAGE_THP_DIR "enabled", text, sizeof(text));
	if (!*text || strstr(text, "[never]"))
		gt_skip("transparent huge pages are off");
	*(volatile char *)writable = 1;
	page_read_file(SURVIVES_KHUGEPAGED "full_scans", text, sizeof(text));
	scans = strtoul(text, NULL, 10);
	for (int i = 0; i < 3; i++) {
		char path[128];

		snprintf(path, sizeof(path), SURVIVES_KHUGEPAGED "%s", knobs[i]);
		page_read_file(path, before[i], sizeof(before[i]));
		gt_need(page_write_file(path, values[i]), "%s", path);
	}
	for (int i = 0; i < limit_ms && !page_huge_kib(survives.start); i++) {
		page_read_file(SURVIVES_KHUGEPAGED "full_scans", text, sizeof(text));
		if (strtoul(text, NULL, 10) >= scans + 3)
			break;
		usleep(1000);
	}
	for (int i = 3; i--; ) {
		char path[128];

		snprintf(path, sizeof(path), SURVIVES_KHUGEPAGED "%s", knobs[i]);
		page_write_file(path, before[i]);
	}
	return page_huge_kib(survives.start);
}

/* The operations that need nothing of the test. */
static inline void survives_do(const char *verb)
{
	if (!strcmp(verb, "read")) {
		(void)*(volatile char *)survives.start;
	} else if (!strcmp(verb, "unshare")) {
		survives_unshare();
	} else if (!strcmp(verb, "pageout")) {
		survives_let_go(false);
		swap_need();
		(void)*(volatile char *)survives.start;
		if (survives_is("zero"))
			madvise(survives.start, page_size(), MADV_PAGEOUT);
		else
			swap_out(survives.start);
	} else if (!strcmp(verb, "migrate")) {
		survives_let_go(false);
		survives_migrate();
	} else if (!strcmp(verb, "mprotect")) {
		page_mprotect_cycle(survives.start, survives.length);
	} else if (!strcmp(verb, "split")) {
		page_mprotect_cycle(survives.start, page_size());
	} else {
		gt_need(!strcmp(verb, "none"), "an operation named %s", verb);
	}
}
#endif
