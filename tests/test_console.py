# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel logs, recorded and broken in every way, and what the parser sees in them."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.parse.console import (
    MAX_MARKERS,
    MAX_SPLATS_PER_KIND,
    ConsoleLog,
    ConsoleParser,
    parse_console,
)
from orchestrator.parse.openreport import MAX_EXCERPT_LINES
from orchestrator.parse.splat import Splat, SplatKind
from tests.conftest import LOGS, read_log

RECORDED = [
    path for path in sorted(LOGS.glob("*.expected.json")) if "console" in json.loads(path.read_text())
]
FAST = settings(max_examples=100, deadline=None, database=None)
TRACE = """\
CPU: 1 PID: 77 Comm: rd fork Tainted: G    B   W         5.15.148 #1
Call Trace:
 <TASK>
 dump_stack_lvl+0x34/0x44
 ? guess_me_not+0x1/0x2
 do_wp_page.isra.0+0x123/0x456
 handle_mm_fault+0x10/0x20 [some_module]
 </TASK>
"""


def only(log: ConsoleLog) -> Splat:
    (splat,) = log.splats
    return splat


def summary(log: ConsoleLog) -> dict[str, object]:
    return {
        "boots": log.boots,
        "panic": log.panic,
        "last_uptime_s": log.last_uptime_s,
        "milestones": [milestone.name for milestone in log.milestones],
        "markers": [f"{marker.line_number} {marker.action} {marker.test}" for marker in log.markers],
        "splats": [
            {
                "kind": str(splat.kind),
                "title": splat.title,
                "fingerprint": splat.fingerprint,
                "frames": list(splat.frames),
                "line_number": splat.line_number,
                "test": splat.test,
                "task": splat.task,
                "taint": splat.taint,
                "last_line": splat.excerpt.split("\n")[-1],
            }
            for splat in log.splats
        ],
    }


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.name.split(".")[0])
def test_recorded(path: Path) -> None:
    name = path.name.removesuffix(".expected.json")
    assert summary(parse_console(read_log(name))) == json.loads(path.read_text())["console"]


def test_every_log_is_expected() -> None:
    assert {path.name.split(".")[0] for path in LOGS.iterdir()} == {path.stem for path in LOGS.glob("*.log")}
    for path in LOGS.glob("*.log"):
        assert path.with_suffix(".expected.json").exists()


def test_a_stack_is_a_report_unless_requested() -> None:
    stack = "[    3.0] CPU: 0 PID: 7 Comm: a\n" + "".join(
        f"[    3.000001] {line}\n" for line in TRACE.splitlines()
    )
    found = only(parse_console(f"[    2.000000] something happened\n{stack}"))
    assert (found.kind, found.title) == (SplatKind.TRACE, "a stack without a report")
    assert found.fingerprint.startswith("trace:do_wp_page")
    asked = "[    2.000000] sysrq: Show State\n"
    assert not parse_console(asked + stack).splats
    # until the next test
    assert parse_console(f"{asked}[    2.5] x\n[    2.600000] cowbell: begin a.b\n{stack}").splats
    # user space shows what it likes
    assert not parse_console(f"[    2.000000] hello\n{TRACE}").splats


HEADERS = [
    ("Kernel panic - not syncing: Out of memory: compulsory panic_on_oom is enabled", SplatKind.PANIC),
    ("BUG: unable to handle page fault for address: ffffed1000c6cfd4", SplatKind.OOPS),
    ("BUG: unable to handle kernel NULL pointer dereference at 0000000000000010", SplatKind.OOPS),
    ("general protection fault, probably for non-canonical address 0xdead: 0000 [#1] SMP", SplatKind.OOPS),
    ("Oops: general protection fault, probably for non-canonical address 0x1: 0000 [#1] SMP", SplatKind.OOPS),
    ("divide error: 0000 [#1] SMP PTI", SplatKind.OOPS),
    ("invalid opcode: 0000 [#1] PREEMPT SMP", SplatKind.OOPS),
    ("BUG: stack guard page was hit at 000000001 (stack is 01..02)", SplatKind.OOPS),
    ("Unable to handle kernel paging request at virtual address dead000000000108", SplatKind.OOPS),
    ("Internal error: synchronous external abort: 96000410 [#1] SMP", SplatKind.OOPS),
    ("kernel BUG at mm/memory.c:1234!", SplatKind.BUG),
    ("BUG: spinlock bad magic on CPU#0, swapper/0/1", SplatKind.BUG),
    ("BUG: using smp_processor_id() in preemptible [00000000] code: a/1", SplatKind.BUG),
    ("BUG: something nobody has thought of", SplatKind.BUG),
    ("WARNING: CPU: 1 PID: 7 at mm/gup.c:93 try_grab_page+0x1/0x2", SplatKind.WARNING),
    ("WARNING: mm/gup.c:93 at try_grab_page+0x1/0x2, CPU#1: test/77", SplatKind.WARNING),
    ("BUG: KASAN: slab-use-after-free in ksm_scan_thread+0x1/0x2", SplatKind.KASAN),
    ("BUG: KFENCE: use-after-free read in ksm_do_scan+0x1/0x2", SplatKind.KFENCE),
    ("BUG: KCSAN: data-race in do_wp_page / page_add_rmap", SplatKind.KCSAN),
    ("BUG: KMSAN: uninit-value in copy_page_range+0x1/0x2", SplatKind.KMSAN),
    ("UBSAN: array-index-out-of-bounds in mm/hugetlb.c:12:3", SplatKind.UBSAN),
    ("WARNING: possible recursive locking detected", SplatKind.LOCKDEP),
    ("WARNING: inconsistent lock state", SplatKind.LOCKDEP),
    ("WARNING: suspicious RCU usage", SplatKind.LOCKDEP),
    ("WARNING: HARDIRQ-safe -> HARDIRQ-unsafe lock order detected", SplatKind.LOCKDEP),
    ("WARNING: bad unlock balance detected!", SplatKind.LOCKDEP),
    ("[ BUG: Invalid wait context ]", SplatKind.LOCKDEP),
    ("INFO: trying to register non-static key.", SplatKind.LOCKDEP),
    ("rcu: INFO: rcu_preempt self-detected stall on CPU", SplatKind.RCU_STALL),
    ("rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 1-.... }", SplatKind.RCU_STALL),
    ("INFO: rcu_tasks detected stalls on tasks:", SplatKind.RCU_STALL),
    ("watchdog: BUG: soft lockup - CPU#1 stuck for 22s! [rd-fork:77]", SplatKind.SOFT_LOCKUP),
    ("NMI watchdog: Watchdog detected hard LOCKUP on cpu 0", SplatKind.HARD_LOCKUP),
    ("watchdog: CPU0: Watchdog detected hard LOCKUP on cpu 1", SplatKind.HARD_LOCKUP),
    ("INFO: task khugepaged:33 blocked for more than 120 seconds.", SplatKind.HUNG_TASK),
    ("INFO: task kswapd0:33 blocked in I/O wait for more than 120 seconds.", SplatKind.HUNG_TASK),
    ("BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 31s!", SplatKind.STUCK_CPU),
    ("BUG: Bad page state in process rd-fork  pfn:12345", SplatKind.BAD_PAGE),
    ("BUG: Bad page map in process rd-fork  pte:80 pmd:90", SplatKind.BAD_PAGE),
    ("BUG: Bad rss-counter state mm:00000000 type:MM_ANONPAGES val:1", SplatKind.BAD_PAGE),
    ("refcount_t: underflow; use-after-free.", SplatKind.REFCOUNT),
    ("list_del corruption. prev->next should be ffff, but was dead", SplatKind.LIST),
    ("BUG kmalloc-64 (Tainted: G    B): Poison overwritten", SplatKind.SLAB),
    ("BUG: scheduling while atomic: rd-fork/77/0x00000002", SplatKind.ATOMIC),
    ("BUG: sleeping function called from invalid context at mm/slab.h:1", SplatKind.SLEEP),
    ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", SplatKind.KMEMLEAK),
    ("python3: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)", SplatKind.PAGE_ALLOC),
    ("python3 invoked oom-killer: gfp_mask=0x100cca(GFP_HIGHUSER_MOVABLE), order=0", SplatKind.OOM),
    ("Memory cgroup out of memory: Killed process 7 (python3) total-vm:1kB", SplatKind.OOM),
    ("WARNING: [a[i] <= 0 && b] mm/gup.c:93 at try_grab_page+0x1/0x2, CPU#1: test/77", SplatKind.WARNING),
    ("divide_error: 0000 [#1] SMP PTI", SplatKind.OOPS),
    ("fpu exception: 0000 [#12] SMP", SplatKind.OOPS),
    ("Oops: Oops: 0002 [#1] SMP", SplatKind.OOPS),
    ("WARNING: at mm/gup.c:93", SplatKind.WARNING),
    ("Oops [#1]", SplatKind.OOPS),
    ("Oops - load access fault [#1]", SplatKind.OOPS),
    ("Kernel BUG [#1]", SplatKind.OOPS),
    ("Internal error: Oops - CFI: 00000000f2008228 [#1] SMP", SplatKind.OOPS),
    ("CFI failure at try_grab_page+0x1/0x2 (target: a+0x0/0x4; expected type: 0x1)", SplatKind.OOPS),
    ("Insufficient stack space to handle exception!", SplatKind.OOPS),
    ("WARNING: rd-fork/77 still has locks held!", SplatKind.LOCKDEP),
    ("[ BUG: rd-fork/77 still has locks held! ]", SplatKind.LOCKDEP),
    ("[ BUG: lock held when returning to user space! ]", SplatKind.LOCKDEP),
    ("fork/77 still has locks held!", SplatKind.LOCKDEP),
    ("fork:77 blocked for more than 120 seconds.", SplatKind.HUNG_TASK),
    ("INFO: task a:b:77 can't die for more than 143 seconds.", SplatKind.HUNG_TASK),
    (" BUG: KCSAN: data-race in do_wp_page / page_add_rmap", SplatKind.KCSAN),
    ("\tWARNING: possible recursive locking detected", SplatKind.LOCKDEP),
    ("VFS: Busy inodes after unmount of vdb (ext4)", SplatKind.BUG),
    ("VFS: Close: file count is 0 (f_op=a)", SplatKind.BUG),
    ("a b: vmalloc error: size 4096, page order 0, failed to allocate pages", SplatKind.PAGE_ALLOC),
    ("a: vmalloc: allocation failure, allocated 1 of 2 bytes", SplatKind.PAGE_ALLOC),
    ("vmalloc: allocation failure: 4096 bytes", SplatKind.PAGE_ALLOC),
    ("PERCPU: allocation failed, size=8 align=8, failed to allocate new chunk", SplatKind.PAGE_ALLOC),
    ("a: some words, order:3, mode:0xcc0(GFP_KERNEL), nodemask=(null)", SplatKind.PAGE_ALLOC),
    ("FAULT_INJECTION: forcing a failure.", SplatKind.NOTICE),
    ("FAULT_FLAG_ALLOW_RETRY missing 70", SplatKind.NOTICE),
    (
        "unchecked MSR access error: RDMSR from 0x1 at rIP: 0xffff (native_read_msr+0x4/0x20)",
        SplatKind.NOTICE,
    ),
]


@pytest.mark.parametrize(("header", "kind"), HEADERS)
@pytest.mark.parametrize(
    "prefix", ["", "[   12.345678] ", "[   12.345678][   T77] ", "<4>[   12.345678][    C1] "]
)
def test_splat_kinds(header: str, kind: SplatKind, prefix: str) -> None:
    splat = only(parse_console("".join(f"{prefix}{line}\n" for line in [header, *TRACE.splitlines()])))
    assert splat.kind is kind
    assert splat.is_fault == (kind not in (SplatKind.OOM, SplatKind.PAGE_ALLOC, SplatKind.NOTICE))
    # the function that a WARNING or a CFI failure names in its first line
    named = ("try_grab_page",) if "try_grab_page" in header else ()
    assert splat.frames == (*named, "dump_stack_lvl", "do_wp_page.isra.0", "handle_mm_fault")
    assert splat.fingerprint == f"{kind}:{'/'.join((*named, 'do_wp_page', 'handle_mm_fault'))}"
    assert splat.taint == "GBW"


@pytest.mark.parametrize(
    "line",
    [
        "WARNING: Image format was not specified for 'r.img' and probing guessed raw.",
        "traps: rd-fork[77] general protection fault ip:5566 sp:7ffe error:0 in libc.so[7f]",
        "rd-fork[77]: segfault at 0 ip 0000 sp 0000 error 4 in rd-fork",
        "kmemleak: Kernel memory leak detector initialized (mem pool available: 15197)",
        "lkdtm: No crash points registered, enable through debugfs",
        "rcu: Hierarchical RCU implementation.",
        "cowbell: begin odirect/BUG: of a name",
        "Freeing unused kernel image (initmem) memory: 972K",
        "[drm] BUG in the documentation",
        "UBSAN is enabled",
        "Unable to handle kernel image of this size",
        "Oops: mydriver: cannot read the clock",
        "Oops - nothing here",
        "Internal error: mydriver lost its firmware",
        "mydriver: queue [#1] is full",
        # of the unwinder: the stack that it prints is not exact
        "WARNING: kernel stack regs at 000000001 in a:7 has bad 'bp' value 000000002",
        "WARNING: can't dereference registers at 000000001 for ip error_entry+0x1/0x2",
        "VFS: Mounted root (ext4 filesystem) readonly on device 254:0.",
    ],
)
def test_no_splat(line: str) -> None:
    assert parse_console(f"[    0.000000] Linux version 5.15.1\n[    1.000000] {line}\n").splats == ()


def stamp(*lines: str, at: str = "    5.000000", caller: str = "") -> str:
    return "".join(f"[{at}]{caller} {line}\n" for line in lines)


RISCV = (
    "Modules linked in:",
    "CPU: 0 UID: 0 PID: 7 Comm: a Not tainted 6.12.0 #1",
    "epc : wrong_one+0x4/0x10",
    " ra : its_return+0x1/0x2",
    "epc : ffffffff80014264 ra : ffffffff80014264 sp : ff8f8000fd7860",
    "status: 0000000200000120 badaddr: 0000000000000010 cause: 000000000000000d",
    "[<ffffffff80014264>] wrong_one+0x4/0x10",
    "[<ffffffff801c2668>] its_caller+0x930/0x1e14",
    "---[ end trace 0000000000000000 ]---",
)
STACKS: dict[str, tuple[str, str | None]] = {
    "message-before-cut-here": (
        stamp(
            "list_del corruption. next->prev should be 1, but was 2",
            "------------[ cut here ]------------",
            "kernel BUG at lib/list_debug.c:62!",
            "invalid opcode: 0000 [#1] SMP",
            "CPU: 0 PID: 7 Comm: a Not tainted 6.1.0 #1",
            "RIP: 0010:__list_del_entry_valid+0x1/0x2",
            "Call Trace:",
            " list_user+0x1/0x2",
            "---[ end trace 0 ]---",
        ),
        "list-corruption:list_user",
    ),
    "message-after-its-warning": (
        stamp(
            "------------[ cut here ]------------",
            "WARNING: CPU: 1 PID: 7 at lib/refcount.c:28 refcount_sub_and_test+0x1/0x2",
            "refcount_t: underflow; use-after-free.",
            "Call Trace:",
            " my_release+0x1/0x2",
        ),
        "refcount:my_release",
    ),
    "condition": (
        stamp("WARNING: [!list_empty(&x[1])] fs/a.c:3 at free_it+0x1/0x2, CPU#3: kworker/1:2/77"),
        "warning:free_it",
    ),
    "riscv-die": (stamp("Oops - illegal instruction [#1]", *RISCV), "oops:wrong_one/its_caller"),
    "riscv-fault": (
        stamp("Unable to handle kernel paging request at virtual address 10", "Oops [#1]", *RISCV),
        "oops:wrong_one/its_caller",
    ),
    "cfi-warning": (
        stamp(
            "CFI failure at calls_it+0x4/0x10 (target: a)",
            "------------[ cut here ]------------",
            "WARNING: CPU: 0 PID: 7 at calls_it+0x4/0x10",
            "Call Trace:",
            " its_caller+0x1/0x2",
        ),
        "oops:calls_it/its_caller",
    ),
    "riscv-cfi": (
        stamp("CFI failure at wrong_one+0x4/0x10 (target: a)", "Kernel BUG [#1]", *RISCV[-3:]),
        "oops:wrong_one/its_caller",
    ),
    "starved": (
        stamp(
            "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            "rcu: rcu_sched kthread starved for 9 jiffies! g1 f0x0 RCU_GP_WAIT_FQS(5)",
            "rcu: RCU grace-period kthread stack dump:",
            "Call Trace:",
            " __schedule+0x1/0x2",
            " rcu_gp_fqs_loop+0x1/0x2",
            " rcu_gp_kthread+0x1/0x2",
            " kthread+0x1/0x2",
            "NMI backtrace for cpu 1",
            "CPU: 1 PID: 0 Comm: swapper/1 Not tainted 6.1.0 #1",
            "RIP: 0010:default_idle+0x1/0x2",
            "Call Trace:",
            " do_idle+0x1/0x2",
            "NMI backtrace for cpu 0",
            "CPU: 0 PID: 7 Comm: a Not tainted 6.1.0 #1",
            "Call Trace:",
            " <IRQ>",
            " rcu_dump_cpu_stacks+0x1/0x2",
            " asm_sysvec_apic_timer_interrupt+0x1/0x2",
            "RIP: 0010:spinning+0x1/0x2",
            "RAX: 0000000000000000 RBX: 0000000000000000 RCX: 0000000000000000",
            " </IRQ>",
            " its_caller+0x1/0x2",
            " handle_mm_fault+0x1/0x2",
            " asm_exc_page_fault+0x1/0x2",
            "RIP: 0010:copy_user_generic+0x1/0x2",
        ),
        "rcu-stall:spinning/its_caller/handle_mm_fault",
    ),
    "dump-cpu-task": (
        stamp(
            "INFO: rcu_sched self-detected stall on CPU",
            "Call Trace:",
            " <IRQ>",
            " sched_show_task.cold+0x1/0x2",
            " dump_cpu_task+0x1/0x2",
            " rcu_check_callbacks+0x1/0x2",
            " smp_apic_timer_interrupt+0x1/0x2",
            " apic_timer_interrupt+0x1/0x2",
            " </IRQ>",
            " spinning+0x1/0x2",
            " its_caller+0x1/0x2",
        ),
        "rcu-stall:spinning/its_caller",
    ),
    "allocator": (
        stamp(
            "WARNING: CPU: 0 PID: 7 at mm/page_alloc.c:47 __alloc_frozen_pages_noprof+0x1/0x2",
            "Call Trace:",
            " alloc_pages_mpol+0x1/0x2",
            " ___kmalloc_large_node+0x1/0x2",
            " __kmalloc_cache_noprof+0x1/0x2",
            " big_ioctl+0x1/0x2",
        ),
        "warning:big_ioctl",
    ),
    "nothing-but-an-allocator": (
        stamp("WARNING: CPU: 0 PID: 7 at mm/slub.c:47 new_slab+0x1/0x2", "Call Trace:", " kthread+0x1/0x2"),
        "warning:new_slab/kthread",
    ),
    "spinlock": (
        stamp(
            "BUG: spinlock bad magic on CPU#0, a/7",
            "Call Trace:",
            " spin_dump+0x1/0x2",
            " do_raw_spin_lock+0x1/0x2",
            " _raw_spin_lock_irqsave+0x1/0x2",
            " its_user+0x1/0x2",
        ),
        "bug:its_user",
    ),
    "riscv-and-arm64-stack-overflow": (
        stamp(
            "Insufficient stack space to handle exception!",
            "CPU: 1 PID: 7 Comm: a Not tainted 6.1.0",
            "pc : deep+0x4/0x1b4",
            "lr : deeper+0x4/0x1b4",
            "Kernel panic - not syncing: kernel stack overflow",
            "Call trace:",
            " panic_bad_stack+0x1/0x2",
            " __bad_stack+0x1/0x2",
            " deep+0x4/0x1b4",
            " deeper+0x1/0x2",
        ),
        "oops:deep/deeper",
    ),
    "lock-held-at-return": (
        stamp(
            "WARNING: lock held when returning to user space!",
            "6.1.0 #1 Not tainted",
            "a/7 is leaving the kernel with locks still held!",
            "1 lock held by a/7:",
            " #0: ffff8881 (&x->lock){+.+.}-{3:3}, at: takes_it+0x1/0x2",
        ),
        "lockdep:takes_it",
    ),
    "unlock-imbalance": (
        stamp(
            "[ BUG: bad unlock balance detected! ]",
            "a/7 is trying to release lock (x) at:",
            "[<ffffffff834dea24>] gives_it+0xe4/0x140",
            "#0:  (&p->lock){+.+.+.}, at: [<ffffffff815e4ded>] other+0xdd/0x1290",
        ),
        "lockdep:gives_it",
    ),
    "panic-on-warn-within-the-trace": (
        stamp(
            "WARNING: CPU: 0 PID: 7 at fs/a.c:3 warns+0x1/0x2",
            "Kernel panic - not syncing: panic_on_warn set ...",
            "Call Trace:",
            " dump_stack+0x1/0x2",
            " panic+0x1/0x2",
            " asm_exc_invalid_op+0x1/0x2",
            "RIP: 0010:warns+0x1/0x2",
            "RSP: 0018:ffff EFLAGS: 00010282",
            " its_caller+0x1/0x2",
        ),
        "warning:warns/its_caller",
    ),
    "report-in-an-interrupt": (
        stamp(
            "WARNING: inconsistent lock state",
            "Call Trace:",
            " <IRQ>",
            " mark_lock+0x1/0x2",
            " takes_it_in_irq+0x1/0x2",
            " asm_sysvec_apic_timer_interrupt+0x1/0x2",
            " </IRQ>",
            "RIP: 0010:innocent+0x1/0x2",
            " its_caller+0x1/0x2",
        ),
        "lockdep:takes_it_in_irq/its_caller",
    ),
    "foreign-lines-in-a-trace": (
        stamp(
            "WARNING: CPU: 0 PID: 7 at fs/a.c:3 warns+0x1/0x2",
            "Call Trace:",
            " first+0x1/0x2",
            "usb 1-1: new device",
            "audit: type=1400",
            "EXT4-fs (vda): mounted",
            "loop0: detected capacity change",
            " second+0x1/0x2",
        ),
        "warning:warns/first/second",
    ),
    "split-frame": (
        "[    5.000000][   T7] WARNING: CPU: 0 PID: 7 at fs/a.c:3 warns+0x1/0x2\n"
        "[    5.000000][   T7] Call Trace:\n"
        "[    5.000000][   T7]  the_first_ca[    5.000001][    C1] usb 1-1: new device\n"
        "[    5.000000][   T7] ller+0x10/0x20\n[    5.000000][   T7]  second+0x1/0x2\n"
        "[    5.000000][   T7]  thi[    5.000001][    C1] usb 1-2: new device\n"
        "[    5.000002][    C1] usb 1-3: new device\n[    5.000000][   T7] lost\n"
        "[    5.000000][   T7] d+0x10/0x20\n",
        "warning:warns/the_first_caller/second",
    ),
    "fault-injection": (stamp("FAULT_INJECTION: forcing a failure.", *TRACE.splitlines()), None),
    "no-memory": (stamp("percpu: allocation failed, size=8 align=8", *TRACE.splitlines()), None),
    "no-memory-in-other-words": (stamp("cma: cma_alloc: alloc failed, ret: -12", *TRACE.splitlines()), None),
    "nothing-but-registers": (
        stamp(
            "BUG: kernel NULL pointer dereference, address: 8",
            "Oops: 0002 [#1] SMP",
            "RIP: 0010:memset+0x1/0x2",
        ),
        "oops:memset",
    ),
    "clock-jump": (
        stamp("WARNING: suspicious RCU usage", "Call Trace:", " a_func+0x1/0x2", at="18446744073.123456"),
        "lockdep:a_func",
    ),
    "name-with-newline": (
        stamp("INFO: task a", "b c:77 blocked for more than 9 seconds.", "Call Trace:", " waits+0x1/0x2"),
        "hung-task:waits",
    ),
}


@pytest.mark.parametrize("name", STACKS)
@pytest.mark.parametrize("has_callers", [False, True])
def test_fingerprint_names_the_functions_of_the_fault(name: str, has_callers: bool) -> None:
    text, fingerprint = STACKS[name]
    if has_callers:
        text = re.sub(r"(?m)^(\[ *[0-9.]+\])(?!\[)", r"\1[   T7]", text)
    log = parse_console(f"[    0.000000] Linux version 6.1.0\n{text}")
    assert [splat.fingerprint for splat in log.faults] == ([fingerprint] if fingerprint else [])
    if fingerprint is None:
        assert len(log.splats) == 1


def test_a_stack_has_the_line_before_it_as_title() -> None:
    lines = ("dup: the name is taken", "CPU: 0 PID: 7 Comm: a Tainted: G W 6.1.0 #1", *TRACE.splitlines()[1:])
    splat = only(parse_console(stamp("something else", *lines)))
    assert (splat.kind, splat.title) == (SplatKind.TRACE, "a stack without a report: dup: the name is taken")
    assert splat.excerpt.startswith("[    5.000000] dup: ")
    assert (splat.task, splat.taint) == ("a", "GW")


def test_the_title_of_a_warning_has_its_condition_but_no_cpu() -> None:
    splat = only(parse_console("WARNING: [a > b] fs/a.c:3 at free_it+0x1/0x2, CPU#3: kworker/1:2/77"))
    assert (splat.title, splat.task) == ("WARNING at [a > b] fs/a.c:3 free_it", "kworker/1:2")


WARNS = ("WARNING: CPU: 0 PID: 7 at mm/gup.c:93 warns+0x1/0x2", "Call Trace:", "  first+0x1/0x2", "done")
FORMATS = {
    "console": "[    5.000000] ",
    "caller": "[    5.000000][  T100] ",
    "raw": "<4>[    5.000000] ",
    "dmesg 2.41": "[    5.000000] [    T100] ",
    "dmesg -d": "[    5.000000 <    0.000012>] ",
    "dmesg -e": "[Nov24 10:11] ",
    "dmesg --time-format=reltime": "[  +0.000012] ",
    "dmesg -T": "[Mon Nov 24 10:11:12 2025] ",
    "dmesg -T 2.41": "[Mon Nov  4 10:11:12 2025] [    T100] ",
    "dmesg -T in German": "[Mo Nov 24 10:11:12 2025] ",
    "dmesg -T in Japanese": "[月 11月 24 10:11:12 2025] ",
    "dmesg -x": "kern  :warn  : [    5.000000] ",
    "dmesg -x -T": "kern  :warn  : [Mon Nov 24 10:11:12 2025] ",
    "dmesg --time-format=iso": "2025-11-24T10:11:12,123456+00:00 ",
    "journalctl": "Nov 24 10:11:12 host kernel: ",
    "journalctl with an id": "<4>nov. 24 10:11:12 host kernel[0]: ",
    "journalctl -o short-precise": "Nov 24 10:11:12.123456 host kernel: ",
    "journalctl -o short-iso": "2025-11-24T10:11:12+0100 host.example.org kernel: ",
    "journalctl -o short-iso-precise": "2025-11-24T10:11:12.123456+01:00 host kernel: ",
    "journalctl -o short-full": "Mon 2025-11-24 10:11:12 CET host kernel: ",
    "journalctl -o short-unix": "1763979072.123456 host kernel: ",
    "journalctl -o short-monotonic": "[    5.000000] host kernel: ",
    "journalctl -o cat": "",
    "syslog": "Nov  4 10:11:12 host kernel: [    5.000000] ",
    "syslog -o iso": "2025-11-24T10:11:12.123456+01:00 host kernel: [    5.000000] ",
    "netconsole": "4,416,5000000,-;",
    "netconsole with caller": "4,416,5000000,-,caller=T100;",
    "netconsole with release": "6.12.0,4,416,5000000,-,caller=T100;",
    "netconsole by syslog": "Nov 24 10:11:12 10.0.0.1 [    5.000000] ",
    "quoted in a mail": "> [    5.000000] ",
}


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    "banner", ["", "[    0.000000] Linux version 6.1.0\n"], ids=["plain", "after-banner"]
)
def test_formats_that_people_paste(name: str, banner: str, end: str) -> None:
    prefix = FORMATS[name]
    if banner and not prefix:
        pytest.skip("user space, in a log with time stamps")
    log = parse_console(banner + "".join(f"{prefix}{line}{end}" for line in WARNS))
    assert only(log).fingerprint == "warning:warns/first"
    assert only(log).title == "WARNING at mm/gup.c:93 warns"
    if "5.000000" in prefix or "5000000" in prefix:
        assert log.last_uptime_s == 5.0


def test_other_programs_of_a_journal_are_user_space() -> None:
    text = "Nov 24 10:11:12 host kernel: fine\nNov 24 10:11:12 host app[7]: BUG: of the app\n"
    assert parse_console(f"{text}BUG: of a program\n").splats == ()


def test_user_space_is_not_taken_for_the_kernel() -> None:
    log = parse_console("[    0.000000] Linux version 5.15.1\nBUG: test.py has one\n[    1.0] nothing\n")
    assert log.splats == ()


def test_user_space_that_leaves_its_line_open() -> None:
    text = (
        "[    0.000000] Linux version 5.15.1\n"
        + "working... [    1.000000] BUG: Bad page state in process a  pfn:1\n"
    )
    splat = only(parse_console(text))
    assert (splat.kind, splat.task, splat.uptime_s) == (SplatKind.BAD_PAGE, "a", 1.0)


@pytest.mark.parametrize("name", ["kasan", "oops-panic", "lockdep", "arm64-oops", "rcu-stall"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r\r\n"),
        lambda text: re.sub(r"(?m)^(\[)", r"<6>\1", text),
        lambda text: re.sub(r"(?m)^(.*)$", "\x1b[1;31m\\1\x1b[0m", text),
        lambda text: re.sub(r"(?m)^\[ *[0-9.]+\](?=\[)", "", text),
        lambda text: re.sub(
            r"(?m)^\[ *[0-9.]+\]\[ *[TC][0-9]+\]", lambda found: found[0].split("][")[0] + "]", text
        ),
        lambda text: re.sub(r"(?m)^\[ *[0-9.]+\](?:\[ *[TC][0-9]+\])? ", "", text),
    ],
    ids=["crlf", "crcrlf", "syslog", "ansi", "no-time", "no-caller", "bare"],
)
def test_the_same_splats_however_the_log_is_written(name: str, change: "object") -> None:
    text = read_log(name)
    assert callable(change)
    plain, changed = parse_console(text), parse_console(change(text))
    assert [(splat.fingerprint, splat.line_number, splat.test) for splat in changed.splats] == [
        (splat.fingerprint, splat.line_number, splat.test) for splat in plain.splats
    ]
    assert (changed.panicked, changed.boots) == (plain.panicked, plain.boots)


def test_panic_after_a_splat_is_the_same_fault() -> None:
    for name in ("kasan-panic", "oops-panic", "arm64-oops"):
        log = parse_console(read_log(name))
        assert log.panicked
        assert SplatKind.PANIC not in {splat.kind for splat in log.splats}


def test_panic_of_another_cause_is_its_own_fault() -> None:
    log = parse_console(
        read_log("warning") + "[   99.0] x\n[   99.000000] Kernel panic - not syncing: VFS: no root\n"
    )
    assert [splat.kind for splat in log.splats] == [SplatKind.WARNING, SplatKind.PANIC]


def test_init_killed_by_an_oops_is_the_same_fault_but_not_after_a_reboot() -> None:
    oops = "BUG: kernel NULL pointer dereference, address: 0\n" + TRACE + "---[ end trace 1 ]---\n"
    panic = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000009\n"
    assert only(parse_console(oops + panic)).kind is SplatKind.OOPS
    rebooted = parse_console(oops + "Linux version 5.15.1\n" + panic)
    assert [splat.kind for splat in rebooted.splats] == [SplatKind.OOPS, SplatKind.PANIC]


def test_a_report_ends_where_the_next_begins() -> None:
    text = "BUG: Bad page state in process a  pfn:1\n" + TRACE
    text += "BUG: Bad page state in process b  pfn:2\n" + TRACE.replace("do_wp_page", "zap_pte_range")
    assert [splat.fingerprint for splat in parse_console(text).splats] == [
        "bad-page:do_wp_page/handle_mm_fault",
        "bad-page:zap_pte_range/handle_mm_fault",
    ]


def test_a_message_belongs_to_its_warning() -> None:
    text = "------------[ cut here ]------------\npage still pinned\n"
    text += "WARNING: CPU: 0 PID: 1 at mm/gup.c:93 try_grab_page+0x1/0x2\n" + TRACE
    splat = only(parse_console(text))
    assert splat.title == "WARNING at mm/gup.c:93 try_grab_page: page still pinned"
    assert splat.excerpt.startswith("------------[ cut here")


def test_cut_here_and_nothing_more_is_a_splat() -> None:
    splat = only(parse_console("------------[ cut here ]------------\nlist went wro"))
    assert (splat.kind, splat.title) == (SplatKind.WARNING, "report cut off: list went wro")


def test_kfence_has_no_call_trace_line() -> None:
    text = (
        "BUG: KFENCE: use-after-free read in ksm_do_scan+0x1/0x2\n\n"
        "Use-after-free read at 0x1 (in kfence-#24):\n ksm_do_scan+0x1/0x2\n ksm_scan_thread+0x1/0x2\n\n"
        "allocated by task 7 on cpu 0 at 1.5s:\n alloc_it+0x1/0x2\n"
    )
    assert only(parse_console(text)).frames == ("ksm_do_scan", "ksm_scan_thread")


@pytest.mark.parametrize(
    ("header", "fingerprint"),
    [
        ("BUG: KASAN: use-after-free in do_wp_page+0x1/0x2", "kasan:do_wp_page"),
        ("WARNING: CPU: 1 PID: 7 at mm/gup.c:93 try_grab_page+0x1/0x2", "warning:try_grab_page"),
        ("kernel BUG at mm/memory.c:12!", "bug:mm/memory.c"),
        (
            "Kernel panic - not syncing: VFS: Unable to mount root fs on x(0,0)",
            "panic:VFS_Unable_to_mount_root",
        ),
        ("BUG: Bad rss-counter state mm:0a1 val:1", "bad-page:Bad_rss-counter_state_mm_val"),
    ],
)
def test_fingerprint_without_a_trace(header: str, fingerprint: str) -> None:
    assert only(parse_console(header)).fingerprint == fingerprint


def test_splats_belong_to_the_test_they_came_in() -> None:
    lines = ["cowbell: begin a/b", "BUG: bad", "cowbell: end a/b", "BUG: late", "cowbell: begin c", "BUG: c"]
    log = parse_console("\n".join(f"[    1.000000] {line}" for line in lines))
    assert [splat.test for splat in log.splats] == ["a/b", None, "c"]
    assert [(marker.action, marker.test, marker.line_number) for marker in log.markers] == [
        ("begin", "a/b", 1),
        ("end", "a/b", 3),
        ("begin", "c", 5),
    ]


def test_mute_guest() -> None:
    log = parse_console("")
    assert (log.lines, log.boots, log.last_uptime_s, log.panicked) == (0, 0, None, False)


def test_memory_is_bounded_and_drops_are_counted() -> None:
    parser = ConsoleParser()
    for index in range(MAX_SPLATS_PER_KIND + 5):
        parser.feed(f"[    1.000000][  T{index}] python3 invoked oom-killer: gfp_mask=0x0")
    parser.feed("[    2.000000] BUG: KASAN: use-after-free in a+0x1/0x2")
    for _ in range(MAX_EXCERPT_LINES + 30):
        parser.feed("[    2.000000] CPU: 0 " + "x" * 100_000)
    for index in range(MAX_MARKERS + 3):
        parser.feed(f"[    3.000000] cowbell: begin {index}")
    log = parser.end()
    assert log.dropped == ((SplatKind.OOM, 5),)
    (fault,) = log.faults
    assert fault.dropped_lines == 31
    assert len(fault.excerpt) < 200_000
    assert log.dropped_markers == 3


TEXT = st.one_of(
    st.text(max_size=40),
    st.sampled_from([header for header, _ in HEADERS]),
    st.sampled_from(TRACE.splitlines()),
    st.sampled_from(
        [
            "------------[ cut here ]------------",
            "---[ end trace 1 ]---",
            "==================================================================",
            "NMI backtrace for cpu 1",
            "RIP: 0010:do_fault+0x1/0x2",
            "pc : do_fault+0x1/0x2",
            "Linux version 5.15.1",
            "cowbell: begin a",
            "cowbell: end a",
            "Kernel panic - not syncing: Fatal exception",
        ]
    ),
)
PREFIX = st.sampled_from(
    ["", "[    1.000000] ", "[    2.000000][    T1] ", "[    2.000000][    C1] ", "user [    3.000000] "]
)
LINES = st.lists(st.builds(lambda prefix, text: prefix + text, PREFIX, TEXT), max_size=40)


@FAST
@given(LINES, st.data())
def test_arbitrary_text(lines: list[str], data: st.DataObject) -> None:
    text = "\n".join(lines)
    whole = parse_console(text)
    cut = data.draw(st.integers(0, text.count("\n") + 1))
    parser = ConsoleParser()
    pieces = text.split("\n")
    for line in pieces[:cut]:
        parser.feed(f"{line}\r\n")
    for line in pieces[cut:]:
        parser.feed(line)
    assert parser.end() == whole
    assert all(splat.fingerprint.startswith(f"{splat.kind}:") for splat in whole.splats)


@FAST
@given(st.sampled_from([path.name.split(".")[0] for path in RECORDED]), st.data())
def test_a_log_cut_anywhere_keeps_what_was_said(name: str, data: st.DataObject) -> None:
    text = read_log(name)
    whole = parse_console(text)
    cut = data.draw(st.integers(0, len(text)))
    part = parse_console(text[:cut])
    lines_done = text[:cut].count("\n")
    said = [splat for splat in whole.splats if splat.line_number <= lines_done]
    assert len(part.splats) >= len(said)
    assert part.boots <= whole.boots
    assert not part.panicked or whole.panicked
