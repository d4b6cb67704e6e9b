// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The soft-dirty bit of a page says that it was written since the bits were cleared. Whatever the kernel
 * does to the page, a write stays reported, a page that nobody wrote is not reported, and its next write
 * is. page= is the state of the first page, and was= says whether it was written before, or whether the
 * bits were cleared in this state. The last page is the opposite, unless both are in one huge page.
 *
 * The kernel may report too much: a huge page that was made of small ones, and, since 6.1, a huge page
 * that was split or migrated. Memory that was moved by mremap() is always reported.
 */
#include "collapse.h"
#include "survives.h"
#include "version.h"

enum { COLLAPSE_MS = 5000 };

static bool is_written[2];	/* the first and the last page */
static bool may_report_all;

static char *page_of(int i)
{
	return i ? survives_last() : survives.start;
}

static bool is_dirty(int i)
{
	return page_entry(page_of(i)) & PAGE_SOFT_DIRTY;
}

static void check(const char *who)
{
	for (int i = 0; i < 2; i++) {
		if (is_written[i])
			gt_check(is_dirty(i), "the %s page of the %s is soft-dirty, since it was written",
				 i ? "last" : "first", who);
		else if (!may_report_all)
			gt_check(!is_dirty(i), "the %s page of the %s is not soft-dirty, since nobody wrote it",
				 i ? "last" : "first", who);
	}
}

static void write_to(int i, char value)
{
	*(volatile char *)page_of(i) = value;
}

static void check_write(const char *who, char value)
{
	for (int i = 0; i < 2; i++) {
		write_to(i, value);
		gt_check(is_dirty(i), "the %s page of the %s is soft-dirty after a write", i ? "last" : "first", who);
	}
}

static void check_content(const char *who, const char expected[2])
{
	for (int i = 0; i < 2; i++)
		gt_check(*page_of(i) == expected[i], "the %s page of the %s is not what another process wrote",
			 i ? "last" : "first", who);
}

static void child(struct partner *parent)
{
	char content[2];

	partner_wait(parent);
	check("child");
	for (int i = 0; i < 2; i++)
		content[i] = *page_of(i);
	partner_wake(parent);
	partner_wait(parent);
	check("child");
	check_content("child", content);
	check_write("child", 'c');
	partner_end(parent);
}

static void fork_and_check(void)
{
	struct partner other;

	if (partner_fork(&other))
		child(&other);
	migrating_let_go(true);
	check("parent");
	partner_wake(&other);
	partner_wait(&other);
	check("parent");
	check_write("parent", 'p');
	partner_wake(&other);
	partner_end(&other);
	check_content("parent", "pp");
}

/*
 * A page that is writable when its migration begins is writable after it, even if the soft-dirty bits were
 * cleared meanwhile, and so its next write is not reported. That is left to is_cleared_in_between().
 */
static void protect_by_fork(void)
{
	pid_t pid = gt_fork();

	if (!pid)
		_exit(0);
	gt_reap(pid);
}

/* Whether the soft-dirty bits are cleared during the migration, which then must not end by itself. */
static bool is_cleared_in_between(const char *verb)
{
	return !strcmp(verb, "none") && !strcmp(gt_param("was"), "written");
}

static void make_state(const char *verb)
{
	bool was_written = !strcmp(gt_param("was"), "written"), is_one = survives_is_huge();

	page_clear_soft_dirty();
	write_to(survives_is("zero"), 'o');
	if (!was_written && strstr(survives.page, "migrating"))
		protect_by_fork();
	survives_enter(is_cleared_in_between(verb) ? "clear" : verb);
	if (!was_written) {
		page_clear_soft_dirty();
		if (!is_one && !survives_is("zero"))
			write_to(1, 'o');
	}
	is_written[0] = was_written && !survives_is("zero");
	is_written[1] = is_one || survives_is("zero") ? was_written : !was_written;
}

/* Since these kernels a huge page carries its dirty bit along, and on x86 that sets the soft-dirty bit. */
static bool kernel_reports_huge_pages(const char *verb)
{
	static const char *const exact[] = { "none", "read", "fork", "mprotect" };

	for (size_t i = 0; i < sizeof(exact) / sizeof(*exact); i++)
		if (survives_is("thp") && !strcmp(verb, exact[i]))
			return false;
	return survives_is_huge() && version_is_at_least(6, 1);
}

static void run(void)
{
	const char *verb = gt_param("after");

	survives_map(gt_param("page"), verb);
	make_state(verb);
	may_report_all = kernel_reports_huge_pages(verb);
	check("process");
	if (!strcmp(verb, "fork")) {
		fork_and_check();
		gt_pass("parent and child know what was written");
	}
	if (!strcmp(verb, "mremap") || !strcmp(verb, "mremap-all")) {
		survives_mremap(!strcmp(verb, "mremap"));
		is_written[0] = is_written[1] = true;
	} else if (!strcmp(verb, "collapse")) {
		gt_need(collapse_try(survives.start, survives.length,
				     survives.start + SURVIVES_PART * page_size(), COLLAPSE_MS),
			"the memory is one huge page");
		may_report_all = true;
	} else {
		survives_do(verb);
	}
	if (strcmp(verb, "none"))
		migrating_let_go(!survives_waits(verb));
	check("process");
	if (is_written[0])
		page_clear_soft_dirty();
	if (is_cleared_in_between(verb))
		migrating_let_go(true);
	check_write("process", 'w');
	migrating_let_go(false);
	gt_pass("the kernel knows what was written");
}

GUEST_TEST = {
	.summary       = "soft-dirty bits are neither lost nor invented",
	.contract      = "C-TRACK",
	.mechanism     = "a new page table entry is made without the bit of the old one, or writable",
	.needs_kconfig = "MEM_SOFT_DIRTY=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.14",
	.params        = "after: none read unshare pageout fork migrate mprotect split mremap mremap-all collapse; page: small swapped thp thp-ptes zero migrating thp-migrating; was: written clean",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write that is not reported, a page that is reported although nobody wrote it",
	.run           = run,
};
