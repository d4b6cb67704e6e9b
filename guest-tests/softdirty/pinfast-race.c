// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Kernels that copy pinned pages on write faults do not write-protect pinned pages in clear_refs.
 * But the check is racy: a pin taken by GUP-fast between the check and the write protection is
 * missed. The test does not depend on timing: the thread that clears the soft-dirty bits is held at
 * each instruction of the function in turn, and the pin is taken then.
 */
#include "cowhold.h"
#include "cowpin.h"
#include "rate.h"
#include <pthread.h>

#define WALKER "clear_refs_pte_range"
/* Below everything else that the process maps, so that it is what the clearing comes to first. */
#define LOWEST ((void *)(1UL << 20))

enum { LIMIT_MS = 100, MOST_BYTES = 8192 };

static struct {
	pid_t tid;
	int go[2], done[2];
} clearer;

static void *clear_soft_dirty(void *arg)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	char byte;

	(void)arg;
	gt_need(fd >= 0, "clear_refs");
	__atomic_store_n(&clearer.tid, cowhold_move_away(), __ATOMIC_RELEASE);
	while (read(clearer.go[0], &byte, 1) == 1)
		gt_need(write(fd, "4", 1) == 1 && write(clearer.done[1], &byte, 1) == 1, "clearing");
	return NULL;
}

/* How long the function is, in bytes: up to the next symbol. Sets its name as the compiler left it. */
static unsigned int find_walker(char *name, size_t room)
{
	FILE *symbols = fopen("/proc/kallsyms", "re");
	unsigned long address, start = 0, next = 0;
	char line[512], symbol[56];

	while (symbols && fgets(line, sizeof(line), symbols)) {
		if (sscanf(line, "%lx %*c %55s", &address, symbol) != 2)
			continue;
		if (!start && !strncmp(symbol, WALKER, strlen(WALKER)) && !strstr(symbol, ".cold")) {
			start = address;
			snprintf(name, room, "%s", symbol);
			rewind(symbols);
		} else if (start && address > start && (!next || address < next)) {
			next = address;
		}
	}
	if (symbols)
		fclose(symbols);
	if (!start || !next)
		gt_skip("cannot find " WALKER " in the kernel's symbols");
	return next - start < MOST_BYTES ? next - start : MOST_BYTES;
}

/* Returns whether the clearing came by this instruction, and sets whether the pin was left behind. */
static bool pin_at(int hold, int pin, const struct cowhold_arm *arm, volatile char *page, bool *is_lost)
{
	bool came;
	char seen;

	*page = 'o';		/* writable, which the fast walk needs */
	if (ioctl(hold, COWHOLD_IOC_ARM, arm))
		return false;	/* within an instruction */
	gt_need(write(clearer.go[1], "", 1) == 1, "starting the clearing");
	came = cowhold_wait(hold, clearer.done[0]);
	/* where the entry is write-protected already, the pin waits until the clearing has gone on */
	gt_need(!cowpin_try(pin, (void *)page, 1, COWPIN_WRITE | COWPIN_LONGTERM | COWPIN_FAST), "a pin");
	ioctl(hold, COWHOLD_IOC_RELEASE);
	gt_need(read(clearer.done[0], &seen, 1) == 1, "the end of the clearing");
	page_touch(page, 'n');
	cowpin_read(pin, &seen, 1);
	*is_lost = seen != 'n';
	gt_need(!ioctl(pin, COWPIN_IOC_UNPIN), "unpinning");
	return came;
}

static void run(void)
{
	struct cowhold_arm arm = { .limit_ms = LIMIT_MS };
	unsigned int length, came = 0, lost = 0;
	volatile char *page;
	pthread_t thread;
	bool is_lost;
	int hold, pin;

	hold = cowhold_open();
	pin = module_open("cowpin");
	page_clear_soft_dirty();
	length = find_walker(arm.symbol, sizeof(arm.symbol));
	page = mmap(LOWEST, page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	gt_need(page == LOWEST, "memory at %p", LOWEST);
	page_stay_on_cpu();
	gt_need(!pipe(clearer.go) && !pipe(clearer.done) &&
		!pthread_create(&thread, NULL, clear_soft_dirty, NULL), "a thread");
	while (!(arm.tid = __atomic_load_n(&clearer.tid, __ATOMIC_ACQUIRE)))
		sched_yield();
	for (arm.offset = 0; arm.offset < length; arm.offset++) {
		is_lost = false;
		came += pin_at(hold, pin, &arm, page, &is_lost);
		lost += is_lost;
		if (is_lost)
			gt_note("the pin at %s+0x%x lost coherency", arm.symbol, arm.offset);
	}
	gt_need(came > 20, "the clearing was held at %u instructions of %s", came, arm.symbol);
	gt_rate(lost, came);
	gt_check(!lost, "a pin before any of %u instructions of %s stays coherent, but before %u it does not",
		 came, arm.symbol, lost);
	gt_pass("a pin before each of %u instructions of %s stayed coherent", came, arm.symbol);
}

GUEST_TEST = {
	.summary       = "a pin that races with clearing the soft-dirty bits stays coherent",
	.contract      = "C-SYNC",
	.mechanism     = "clear_soft_dirty() write-protects a page that was pinned after its check",
	.changelog     = "41",
	.needs_kconfig = "MODULES=y KPROBES=y KALLSYMS=y MEM_SOFT_DIRTY=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "5.6",
	.needs_root    = true,
	.cpus          = 2,
	.kind          = "race",
	.timeout_s     = 60,
	.detects       = "the device reads stale bytes",
	.run           = run,
};
