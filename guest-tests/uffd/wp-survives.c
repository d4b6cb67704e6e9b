// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page that is write-protected by userfaultfd stops the next write, whatever the kernel does to the page
 * before; and no page stops a write that is not protected. page= is the state of the first page when all
 * of the memory is protected; with was=unprotected the protection is removed in this state. The monitor
 * has asked for events of fork (fork-event) and mremap, without which the kernel removes the protection.
 */
#include "collapse.h"
#include "survives.h"
#include "uffd.h"

#define PAGE_UFFD_WP (1ULL << 57)	/* since 5.14 */

enum { COLLAPSE_MS = 300 };	/* it need not succeed */

static int uffd;
static bool is_protected;

/* The next event; the operation that raises it waits until somebody reads it. */
static void *read_event(void *message)
{
	uffd_wait(uffd, -1, message);
	return NULL;
}

static void check_pages(const char *who, int fd, bool stops)
{
	char *pages[] = { survives.start, survives_last() };

	for (int i = 0; i < 2; i++) {
		gt_check(uffd_stops_write(fd, pages[i]) == stops, "the %s page of the %s %s a write",
			 i ? "last" : "first", who, stops ? "stops" : "does not stop");
		gt_check(*pages[i] == 'w', "the %s page of the %s was written", i ? "last" : "first", who);
	}
}

/* A child without protection: registered with a userfaultfd of its own, no page of it stops a write. */
static void fork_without_event(void)
{
	struct partner other;

	if (partner_fork(&other)) {
		int own = uffd_open();

		partner_wait(&other);
		for (int i = 0; i < 2; i++)
			gt_check(!(page_entry(i ? survives_last() : survives.start) & PAGE_UFFD_WP),
				 "the child's page is not marked as protected");
		uffd_register(own, survives.start, survives.length, UFFDIO_REGISTER_MODE_WP);
		check_pages("child", own, false);
		partner_end(&other);
	}
	migrating_let_go(true);
	partner_wake(&other);
	partner_end(&other);
}

/* The child's memory is protected as well, and the monitor has a userfaultfd for it. */
static void fork_with_event(void)
{
	struct uffd_msg message;
	struct partner other;
	pthread_t reader;

	gt_need(!pthread_create(&reader, NULL, read_event, &message), "a thread that reads the event");
	if (partner_fork(&other)) {
		for (int i = 0; i < 2; i++) {
			partner_wait(&other);
			*(volatile char *)(i ? survives_last() : survives.start) = 'c';
			partner_wake(&other);
		}
		partner_end(&other);
	}
	gt_need(!pthread_join(reader, NULL) && message.event == UFFD_EVENT_FORK, "the event of fork");
	migrating_let_go(true);
	for (int i = 0; i < 2; i++) {
		int fd = message.arg.fork.ufd;
		char *page = i ? survives_last() : survives.start;
		struct uffd_msg fault;
		bool stops;

		partner_wake(&other);
		stops = uffd_wait(fd, other.in, &fault);
		gt_check(stops == is_protected, "the child's %s page %s a write", i ? "last" : "first",
			 is_protected ? "stops" : "does not stop");
		if (stops)
			uffd_write_protect(fd, page, page_size(), false);
		partner_wait(&other);
	}
	partner_end(&other);
}

static void move(void)
{
	struct uffd_msg message;
	pthread_t reader;

	gt_need(!pthread_create(&reader, NULL, read_event, &message), "a thread that reads the event");
	survives_mremap(!survives_is_huge());
	gt_need(!pthread_join(reader, NULL) && message.event == UFFD_EVENT_REMAP, "the event of mremap");
}

/* Another page in place of the first one. */
static void copy_into(void)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)survives.start, .src = (uintptr_t)page_map(1, 'n'), .len = page_size(),
		.mode = is_protected ? UFFDIO_COPY_MODE_WP : 0,
	};

	gt_need(!madvise(survives.start, page_size(), MADV_DONTNEED), "MADV_DONTNEED");
	gt_need(!ioctl(uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY");
	gt_check(survives.start[1] == 'n', "the page has the content that was copied");
}

/* A page that is not protected is in the middle. khugepaged may refuse. */
static void collapse(void)
{
	char *page = survives.start + SURVIVES_PART * page_size();

	uffd_write_protect(uffd, page, page_size(), false);
	gt_note("the memory is %s huge page",
		collapse_try(survives.start, survives.length, page, COLLAPSE_MS) ? "a" : "no");
}

static void act(const char *verb)
{
	if (!strcmp(verb, "fork"))
		fork_without_event();
	else if (!strcmp(verb, "fork-event"))
		fork_with_event();
	else if (!strcmp(verb, "mremap"))
		move();
	else if (!strcmp(verb, "copy"))
		copy_into();
	else if (!strcmp(verb, "collapse"))
		collapse();
	else
		survives_do(verb);
}

static void run(void)
{
	const char *verb = gt_param("after");
	bool moves = !strcmp(verb, "mremap"), copies = !strcmp(verb, "copy");

	uffd = uffd_open_with(UFFD_FEATURE_PAGEFAULT_FLAG_WP | (moves ? UFFD_FEATURE_EVENT_REMAP : 0) |
			      (!strcmp(verb, "fork-event") ? UFFD_FEATURE_EVENT_FORK : 0));
	is_protected = !strcmp(gt_param("was"), "protected");
	survives_map(gt_param("page"), verb);
	uffd_register(uffd, survives.start, survives.length,
		      UFFDIO_REGISTER_MODE_WP | (copies ? UFFDIO_REGISTER_MODE_MISSING : 0));
	if (!is_protected)
		uffd_write_protect(uffd, survives.start, survives.length, true);
	survives_enter(verb);
	uffd_write_protect(uffd, survives.start, survives.length, is_protected);
	act(verb);
	if (strcmp(verb, "none"))
		migrating_let_go(!survives_waits(verb));
	check_pages("process", uffd, is_protected);
	migrating_let_go(false);
	gt_pass("a write is %s", is_protected ? "stopped" : "not stopped");
}

GUEST_TEST = {
	.summary       = "write protection by userfaultfd is neither lost nor invented",
	.contract      = "C-TRACK",
	.mechanism     = "a new page table entry is made without the uffd-wp bit of the old one, or writable",
	.needs_kconfig = "USERFAULTFD=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.7",
	.params        = "after: none read unshare pageout fork fork-event migrate mprotect mremap collapse copy; page: small swapped thp thp-ptes zero migrating thp-migrating; was: protected unprotected",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write to a protected page that nobody is told of, or one that is stopped for no reason",
	.run           = run,
};
