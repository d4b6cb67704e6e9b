// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A uprobe puts a page of its own into each mapping of the probed instruction. mremap() back to where the
 * mapping was makes the two halves one again; the breakpoint must not be set in the part whose page table
 * entries are still to come, or its page is overwritten there: never freed, and counted for ever.
 */
#include "guesttest.h"
#include "pagestate.h"
#include <linux/perf_event.h>
#include <sys/syscall.h>

enum { ROUNDS = 300, SLACK_PAGES = 200 };

static char name[] = "probed-XXXXXX";

static void remove_file(void)
{
	unlink(name);
}

/* An instruction that does nothing. */
#if defined(__x86_64__)
static const unsigned char nop[] = { 0x90 };
#elif defined(__aarch64__)
static const unsigned char nop[] = { 0x1f, 0x20, 0x03, 0xd5 };
#else
static const unsigned char nop[] = { 0x13, 0x00, 0x00, 0x00 };
#endif

/* Two pages of them. */
static int make_file(void)
{
	char *pages = page_map(2, 0);
	int fd = mkstemp(name);

	gt_need(fd >= 0, "making a file");
	gt_at_end(remove_file);
	for (size_t i = 0; i < 2 * page_size(); i++)
		pages[i] = nop[i % sizeof(nop)];
	gt_need(write(fd, pages, 2 * page_size()) == (ssize_t)(2 * page_size()), "writing the file");
	close(fd);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	gt_need(fd >= 0, "opening the file");
	return fd;
}

/* A probe at the first instruction of the file. */
static void set_probe(void)
{
	struct perf_event_attr attr = { .size = sizeof(attr), .sample_period = 1, .wakeup_events = 1 };
	char text[32];

	page_read_file("/sys/bus/event_source/devices/uprobe/type", text, sizeof(text));
	if (!*text)
		gt_skip("the kernel has no uprobes for perf");
	attr.type = atoi(text);
	attr.uprobe_path = (uintptr_t)name;
	attr.probe_offset = 0;
	if (syscall(SYS_perf_event_open, &attr, getpid(), -1, -1, PERF_FLAG_FD_CLOEXEC) < 0)
		gt_skip("a uprobe cannot be set: %s", strerror(errno));
}

/* Pages that belong to no file. The kernel counts per CPU and tells the sum within some pages. */
static long anonymous_pages(void)
{
	return page_read_field("/proc/self/status", "RssAnon:") / (page_size() >> 10);
}

static void run(void)
{
	size_t page = page_size();
	int fd = make_file();
	char *away = mmap(NULL, page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *map;
	long before, after;

	set_probe();
	map = mmap(NULL, 2 * page, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0);
	gt_need(map != MAP_FAILED && away != MAP_FAILED, "mmap");
	gt_need(memcmp(map, nop, sizeof(nop)), "the probe is set");
	before = anonymous_pages();
	for (int i = 0; i < ROUNDS; i++) {
		gt_need(mremap(map, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, away) == away, "mremap away");
		gt_need(mremap(away, page, page, MREMAP_MAYMOVE | MREMAP_FIXED, map) == map, "mremap back");
	}
	after = anonymous_pages();
	gt_check(after < before + SLACK_PAGES, "%ld anonymous pages after %d times there and back, not %ld", before,
		 ROUNDS, after);
	gt_pass("%ld anonymous pages before, %ld after %d times there and back", before, after, ROUNDS);
}

GUEST_TEST = {
	.summary       = "mremap() of a probed page and back leaves no page of the probe behind",
	.contract      = "C-ACCT",
	.mechanism     = "merging with the neighbour sets the breakpoint where the moved entries go",
	.fixes         = "2b12d06c37fd",
	.cve           = "CVE-2025-38207",
	.needs_kconfig = "UPROBE_EVENTS=y PERF_EVENTS=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "4.17",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 20,
	.detects       = "pages that stay counted, and a bad RSS counter at exit",
	.run           = run,
};
