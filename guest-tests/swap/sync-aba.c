// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A fault reads a page from zram, without the swap cache, and is held before it maps what it read. Meanwhile the page
 * comes in by another fault, is written and goes out again, until it is in the same place: there are few. What the held
 * fault finds in the page table is what it knows, but what it read is old. It is the fault of another process, which
 * reads the memory as a debugger does: reclaim flushes the TLB of no CPU that this process does not run on.
 */
#include "cowhold.h"
#include "partner.h"
#include "swap.h"
#include <sys/resource.h>
#include <sys/swap.h>

#define ZRAM "/sys/class/zram-control/"

enum { LIMIT_MS = 600, MOST_SWAPS = 4, PLACES = 8, ROUNDS = 4 * PLACES, DRAIN_PAGES = 64 * 50 };

static char number[16], device[32], sysfs[64];
static struct { char path[96]; int priority; } others[MOST_SWAPS];
static struct { char *page; pid_t tid; } *order;

static void give_back(void)
{
	char path[96];

	swapoff(device);
	snprintf(path, sizeof(path), "%s/reset", sysfs);
	if (!page_write_file(path, "1") || !page_write_file(ZRAM "hot_remove", number))
		gt_note("%s stays", device);
	for (int i = 0; i < MOST_SWAPS && *others[i].path; i++)
		swapon(others[i].path, others[i].priority < 0 ? 0 : SWAP_FLAG_PREFER | others[i].priority);
}

/* The only swap until the test ends is a small one. */
static void swap_to_few_places(void)
{
	char text[128], path[96], *header = page_map(1, 0);
	FILE *swaps;
	int fd;

	page_read_file(ZRAM "hot_add", number, sizeof(number));
	if (!*number)
		gt_skip("the kernel makes no zram devices: %s", strerror(errno));
	number[strcspn(number, "\n")] = 0;
	snprintf(device, sizeof(device), "/dev/zram%s", number);
	snprintf(sysfs, sizeof(sysfs), "/sys/block/zram%s", number);
	gt_at_end(give_back);
	swaps = fopen("/proc/swaps", "re");
	for (int i = 0; swaps && fgets(text, sizeof(text), swaps);) {
		if (sscanf(text, "/%95s %*s %*s %*s %d", path, &others[i].priority) != 2)
			continue;
		gt_need(i < MOST_SWAPS, "no more than %d swap devices", MOST_SWAPS);
		snprintf(others[i++].path, sizeof(others[0].path), "/%.90s", path);
	}
	if (swaps)
		fclose(swaps);
	for (int i = 0; i < MOST_SWAPS && *others[i].path; i++)
		gt_need(!swapoff(others[i].path), "switching the swap %s off", others[i].path);
	snprintf(path, sizeof(path), "%s/disksize", sysfs);
	snprintf(text, sizeof(text), "%zu", (PLACES + 1) * page_size());
	gt_need(page_write_file(path, text), "writing %s to %s", text, path);
	/* version, last page, bad pages */
	memcpy(header + 1024, (uint32_t[]){ 1, PLACES, 0 }, 12);
	memcpy(header + page_size() - 10, "SWAPSPACE2", 10);
	fd = open(device, O_RDWR | O_CLOEXEC);
	gt_need(fd >= 0 && pwrite(fd, header, page_size(), 0) == (ssize_t)page_size() && !fsync(fd), "writing to %s",
		device);
	close(fd);
	gt_need(!swapon(device, 0), "swapon %s", device);
}

static void read_as_debugger(struct partner *parent)
{
	void *pages[] = { order, NULL };
	char path[32], byte;
	int memory;

	snprintf(path, sizeof(path), "/proc/%d/mem", getppid());
	memory = open(path, O_RDONLY | O_CLOEXEC);
	gt_need(memory >= 0, "opening %s", path);
	order->tid = cowhold_move_away();
	/* The first reading brings in what the program itself needs, so that the second one has no other fault. */
	for (int i = 0; i < 2; i++) {
		partner_wake(parent);
		partner_wait(parent);
		pages[1] = order->page;
		gt_need(pread(memory, &byte, 1, (off_t)(uintptr_t)pages[i]) == 1, "reading from %s", path);
	}
	partner_end(parent);
}

/*
 * Writes to the page and swaps it out, again and again until it is in that place. Nothing here changes the
 * mappings, which would wait for the held fault.
 */
static bool swap_out_to(uint64_t place, char *page, char *drain)
{
	char *end = drain + DRAIN_PAGES * page_size();

	for (int i = 0; i < ROUNDS; i++) {
		memset(page, 'n', page_size());
		while (madvise(page, page_size(), MADV_PAGEOUT), !(page_entry(page) & PAGE_SWAPPED)) {
			if (drain == end)
				return false;
			for (int j = 0; j < 64; j++, drain += page_size())
				*drain = 1;
		}
		if (PAGE_PFN(page_entry(page)) == place)
			return true;
	}
	return false;
}

static long count_sleeps(void)
{
	struct rusage usage;

	gt_need(!getrusage(RUSAGE_SELF, &usage), "getrusage");
	return usage.ru_nvcsw;
}

static void run(void)
{
	/* What the end of the reading calls: the page is read, and not mapped. */
	static const char *const functions[] = { "folio_unlock", "unlock_page", NULL };
	int hold = cowhold_open();
	char *page, *drain, *expected;
	struct partner other;
	bool has_waited, is_same, in_time;
	uint64_t place;
	long sleeps;

	order = mmap(NULL, page_size(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	gt_need(order != MAP_FAILED, "shared memory");
	swap_to_few_places();
	page_stay_on_cpu();
	if (partner_fork(&other))
		read_as_debugger(&other);
	partner_wait(&other);
	partner_wake(&other);
	partner_wait(&other);
	drain = mmap(NULL, DRAIN_PAGES * page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	gt_need(drain != MAP_FAILED && !madvise(drain, DRAIN_PAGES * page_size(), MADV_NOHUGEPAGE), "mmap");
	expected = page_map(1, 'n');
	page = order->page = page_map(1, 'o');
	/* Places are taken in turns, the first ones at random. */
	for (int i = 0; i < 2 * PLACES; i++) {
		memset(page, 'o', page_size());
		swap_out(page);
	}
	place = PAGE_PFN(page_entry(page));
	cowhold_arm_first(hold, order->tid, LIMIT_MS, functions, "a fault that reads from swap");
	partner_wake(&other);
	gt_need(cowhold_wait(hold, other.in), "the fault of the other process is held");
	sleeps = count_sleeps();
	memset(page, 'n', page_size());
	/* the time of the hold may also be over because the host is slow */
	has_waited = ioctl(hold, COWHOLD_IOC_LOOK) && count_sleeps() > sleeps;
	is_same = swap_out_to(place, page, drain);
	in_time = !ioctl(hold, COWHOLD_IOC_RELEASE);
	partner_end(&other);
	gt_check_bytes(expected, page, page_size(), "the page that was written last");
	if (has_waited)
		gt_pass("the second fault waited for the first one");
	gt_need(is_same && in_time, "the page went to the same place, in time");
	gt_pass("the first fault saw that its page was another one");
}

GUEST_TEST = {
	.summary       = "a page that was in and out of swap again during a fault keeps what was written",
	.contract      = "C-DATA",
	.mechanism     = "a fault that bypasses the swap cache compares only the page table entry, which names the same slot",
	.fixes         = "13ddaf26be32",
	.cve           = "CVE-2024-26759",
	.needs_kconfig = "MODULES=y KPROBES=y SWAP=y ZRAM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.4",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 30,
	.detects       = "a write that is lost",
	.run           = run,
};
