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
#include "cowpin.h"
#include "guesttest.h"
#include "migrating.h"
#include "numa.h"
#include "pagekind.h"
#include "partner.h"
#include "swap.h"


enum { SURVIVES_PART = 4 };

static struct {
	const char *page;		/* the state */
	char *start;
	size_t length;
} survives;

static inline bool survives_is(const char *page)
{
	return !strcmp(survives.page, page);
}

static inline bool survives_is_huge(void)
{
	return survives_is("thp") || survives_is("thp-migrating");
}

static inline char *survives_last(void)
{
	return survives.start + survives.length - page_size();
}

/* Another node than that of the page, or of the last one if the page is nowhere. */
static inline int survives_other_node(void)
{
	bool is_somewhere = !survives_is("zero") && !survives_is("swapped");

	if (access("/sys/devices/system/node/node1", F_OK))
		gt_skip("the guest has one NUMA node");
	return !numa_node_of(is_somewhere ? survives.start : survives_last());
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
		migrating_start_mover();
	if (!strncmp(page, "thp", 3)) {
		survives.start = pagekind_map(strcmp(page, "thp-ptes") ? "thp" : page, 0, &survives.length);
	} else {
		survives.start = survives_map_room(&survives.length);
		if (strcmp(verb, "collapse") && strcmp(verb, "mremap-all"))
			survives.length = 2 * SURVIVES_PART * page_size();
		memset(survives.start + is_zero * page_size(), 1, survives.length - is_zero * page_size());
		gt_need(*(volatile char *)survives.start == !is_zero, "the first page");
	}
	/* khugepaged must not come in between: the huge page it makes is soft-dirty. */
	madvise(survives.start, survives.length, MADV_NOHUGEPAGE);
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
		migrating_hold(survives.start, survives_other_node(), survives_waits(verb) ? 30 : 800);
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
	status = migrating_move(getpid(), survives.start, node);
	if (survives_is("zero") || survives_is("swapped"))
		gt_need(status < 0, "the kernel does not move the page");
	else
		gt_need(status == node && PAGE_PFN(entry) != page_frame(survives.start),
			"the page moves to node %d: %d", node, status);
}

/* The operations that need nothing of the test. */
static inline void survives_do(const char *verb)
{
	if (!strcmp(verb, "read")) {
		(void)*(volatile char *)survives.start;
	} else if (!strcmp(verb, "unshare")) {
		survives_unshare();
	} else if (!strcmp(verb, "pageout")) {
		migrating_let_go(false);
		swap_need();
		(void)*(volatile char *)survives.start;
		if (survives_is("zero"))
			madvise(survives.start, page_size(), MADV_PAGEOUT);
		else
			swap_out(survives.start);
	} else if (!strcmp(verb, "migrate")) {
		migrating_let_go(false);
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
