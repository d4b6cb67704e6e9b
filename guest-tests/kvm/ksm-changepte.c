// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * ksmd replaces a page that a virtual machine maps by a KSM page. KVM could map the new page in
 * place of the old one; if it only drops the old one, the machine faults again on each page that it
 * only reads. The machine of this test reads all of its pages and halts, and the test counts the
 * faults.
 */
#include "ksm.h"
#ifdef __x86_64__
#include <linux/kvm.h>
#include <sys/ioctl.h>

enum { PAGES = 64, CODE_AT = 0, DATA_AT = 0x10000 };

/* In real mode: a byte of each page, by a segment a page; then halt, and from the start again. */
static const unsigned char read_all[] = {
	0xb8, 0x00, DATA_AT >> 12,		/* mov ax, DATA_AT >> 4 */
	0x8e, 0xd8,				/* next: mov ds, ax */
	0x8a, 0x1e, 0x00, 0x00,			/* mov bl, [0] */
	0x05, 0x00, 0x01,			/* add ax, a page */
	0x3d, 0x00, (DATA_AT >> 12) + PAGES,	/* cmp ax, the end */
	0x75, 0xf2,				/* jne next */
	0xf4,					/* hlt */
	0xeb, 0xec,				/* jmp to the start */
};

static void add_memory(int vm, unsigned int slot, uint64_t at, char *memory, size_t length)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = at, .memory_size = length, .userspace_addr = (uintptr_t)memory
	};

	gt_need(!ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "memory for the machine");
}

/* A machine that is about to read the data. Sets what it tells when it stops. */
static int make_machine(char *data, struct kvm_run **told)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC), vm, cpu;
	struct kvm_regs regs = { .rip = 0, .rflags = 2 };
	struct kvm_sregs sregs;
	char *code = page_map(1, 0);

	if (kvm < 0)
		gt_skip("no /dev/kvm: %s; nested virtualization is required", strerror(errno));
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		gt_skip("no virtual machines: %s", strerror(errno));
	memcpy(code, read_all, sizeof(read_all));
	add_memory(vm, 0, CODE_AT, code, page_size());
	add_memory(vm, 1, DATA_AT, data, PAGES * page_size());
	cpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	gt_need(cpu >= 0 && !ioctl(cpu, KVM_GET_SREGS, &sregs), "a CPU for the machine");
	sregs.cs.base = sregs.cs.selector = 0;
	gt_need(!ioctl(cpu, KVM_SET_SREGS, &sregs) && !ioctl(cpu, KVM_SET_REGS, &regs), "its registers");
	*told = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
	gt_need(*told != MAP_FAILED, "what the machine tells");
	return cpu;
}

static long count_faults(int cpu, const struct kvm_run *told)
{
	char text[32];
	long before;

	page_read_file("/sys/kernel/debug/kvm/pf_fixed", text, sizeof(text));
	if (!text[0])
		gt_skip("no KVM counters in /sys/kernel/debug/kvm");
	before = atol(text);
	gt_need(!ioctl(cpu, KVM_RUN, 0) && told->exit_reason == KVM_EXIT_HLT, "the machine halts, reason %u",
		told->exit_reason);
	page_read_file("/sys/kernel/debug/kvm/pf_fixed", text, sizeof(text));
	return atol(text) - before;
}

static void run(void)
{
	size_t page = page_size();
	char *data = page_map(PAGES, 'd'), *other = page_map(PAGES, 'd');
	struct kvm_run *told;
	long first, again, merged;
	int cpu;

	for (int i = 0; i < PAGES; i++)
		data[i * page] = other[i * page] = i;
	cpu = make_machine(data, &told);
	first = count_faults(cpu, told);
	again = count_faults(cpu, told);
	gt_need(first >= PAGES && again < PAGES / 4, "the first read faults (%ld), the next does not (%ld)", first,
		again);
	ksm_start();
	ksm_offer(data, PAGES);
	ksm_offer(other, PAGES);
	for (int i = 0; i < PAGES; i++)
		while (!ksm_is_merged(data + i * page, other + i * page))
			ksm_wait_scans(1);	/* a ksmd that does not merge ends in the test's timeout */
	ksm_stop();
	merged = count_faults(cpu, told);
	gt_check(merged < PAGES / 4, "%d merged pages are read without faults, but there are %ld", PAGES, merged);
	gt_pass("%d pages were read with %ld faults, again with %ld, once merged with %ld", PAGES, first, again, merged);
}
#else
static void run(void)
{
	gt_skip("this test needs x86");
}
#endif

GUEST_TEST = {
	.summary       = "a virtual machine reads its memory without new faults after ksmd merged it",
	.contract      = "C-COST",
	.mechanism     = "invalidate_range_start() drops the entry that change_pte() would have replaced",
	.changelog     = "10",
	.needs_kconfig = "KVM=y KSM=y PROC_PAGE_MONITOR=y",
	.min_kernel    = "3.11",
	.needs_root    = true,
	.kind          = "deterministic",
	.timeout_s     = 60,
	.detects       = "a fault for each page that is only read",
	.run           = run,
};
