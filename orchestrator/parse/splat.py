# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and pure functions for splats: kinds, first and last lines, and fingerprints.

A fingerprint identifies a bug across boots and builds. ``console`` does the parsing.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_LINE = 1000


class SplatKind(StrEnum):
    """The kind of a kernel report."""

    PANIC = "panic"
    OOPS = "oops"
    BUG = "bug"
    WARNING = "warning"
    KASAN = "kasan"
    KFENCE = "kfence"
    KCSAN = "kcsan"
    KMSAN = "kmsan"
    UBSAN = "ubsan"
    LOCKDEP = "lockdep"
    RCU_STALL = "rcu-stall"
    SOFT_LOCKUP = "soft-lockup"
    HARD_LOCKUP = "hard-lockup"
    HUNG_TASK = "hung-task"
    STUCK_CPU = "stuck-cpu"
    BAD_PAGE = "bad-page"
    REFCOUNT = "refcount"
    LIST = "list-corruption"
    SLAB = "slab"
    ATOMIC = "scheduling-while-atomic"
    SLEEP = "sleep-in-atomic"
    KMEMLEAK = "kmemleak"
    PAGE_ALLOC = "page-alloc"
    OOM = "oom"
    TRACE = "trace"

    @property
    def is_fault(self) -> bool:
        """Whether the report is evidence against the kernel; running out of memory is not."""
        return self not in (SplatKind.OOM, SplatKind.PAGE_ALLOC)

    @property
    def is_stall(self) -> bool:
        """Whether the report interrupts the code that stalls."""
        return self in (
            SplatKind.RCU_STALL,
            SplatKind.SOFT_LOCKUP,
            SplatKind.HARD_LOCKUP,
            SplatKind.STUCK_CPU,
        )


@dataclass(frozen=True, slots=True)
class Splat:
    """One report. ``frames`` are the functions of its first trace, innermost first; ``fingerprint`` is the
    same for the same fault; ``taint`` has the taint letters, empty if not tainted, None if unknown.
    """

    kind: SplatKind
    title: str
    frames: tuple[str, ...]
    fingerprint: str
    line_number: int
    excerpt: str
    dropped_lines: int = 0
    uptime_s: float | None = None
    test: str | None = None
    task: str | None = None
    taint: str | None = None

    @property
    def is_fault(self) -> bool:
        return self.kind.is_fault


_TRAP = (
    r"general protection fault|divide error|invalid opcode|stack segment|double fault|int3|bounds|overflow"
    r"|alignment check|segment not present|invalid TSS|control protection|Bad pagetable|kernel stack overflow"
)
_LOCKDEP = (
    r"possible |inconsistent |suspicious RCU|bad unlock|bad contention|held lock freed|lock held when"
    r"|[Nn]ested lock|circular locking|HARDIRQ|SOFTIRQ|RECLAIM|[\w-]+-safe -> |locks? still held"
)
_REPORTS: tuple[tuple[SplatKind, str], ...] = (
    (SplatKind.PANIC, r"(?:[\w./]+: )?Kernel panic - not syncing"),
    (SplatKind.KASAN, r"BUG: KASAN: "),
    (SplatKind.KFENCE, r"BUG: KFENCE: "),
    (SplatKind.KCSAN, r"BUG: KCSAN: "),
    (SplatKind.KMSAN, r"BUG: KMSAN: "),
    (SplatKind.UBSAN, r"UBSAN: "),
    (SplatKind.SOFT_LOCKUP, r"(?:NMI )?(?:watchdog: )?BUG: soft lockup"),
    (SplatKind.HARD_LOCKUP, r"(?:NMI )?watchdog: (?:CPU ?\d+: )?Watchdog detected hard LOCKUP"),
    (SplatKind.RCU_STALL, r"(?:rcu: )?INFO: \w+ (?:self-)?detected (?:expedited )?stalls?"),
    (SplatKind.HUNG_TASK, r"INFO: task .+ blocked (?:in \S+ \S+ )?for more than \d+ seconds"),
    (SplatKind.STUCK_CPU, r"BUG: workqueue lockup|(?:smp: )?csd: Detected non-responsive CSD lock"),
    (SplatKind.BAD_PAGE, r"BUG: Bad (?:page|rss-counter)|BUG: non-zero pgtables_bytes"),
    (SplatKind.ATOMIC, r"BUG: scheduling while atomic"),
    (SplatKind.SLEEP, r"BUG: sleeping function called from invalid context"),
    (SplatKind.LOCKDEP, rf"WARNING: (?:{_LOCKDEP})|INFO: (?:{_LOCKDEP}|trying to register non-static key)"),
    (SplatKind.LOCKDEP, rf"=*\[ (?:BUG|INFO): (?:[Ii]nvalid wait context|{_LOCKDEP}).*\]=*"),
    (SplatKind.OOPS, r"BUG: (?:unable to handle|kernel NULL pointer|(?:\S+ )?stack guard page|TASK stack)"),
    (
        SplatKind.OOPS,
        r"Unable to handle kernel |Internal error: |Oops(?: - [^:]+)?: |(?:traps: )?PANIC: double",
    ),
    (SplatKind.OOPS, rf"(?:traps: )?(?:{_TRAP})\b.*: [0-9a-f]{{4,}} \[#\d+\]"),
    (SplatKind.BUG, r"kernel BUG at |BUG: (?:using |spinlock|rwlock|Dentry|corrupt)"),
    (SplatKind.SLAB, r"BUG [\w.:-]+ \([^)]*\): |slab error in "),
    (SplatKind.REFCOUNT, r"refcount_t: "),
    (SplatKind.LIST, r"list_(?:add|del)\w* corruption"),
    (SplatKind.KMEMLEAK, r"kmemleak: [1-9]\d* new suspected memory leaks"),
    (SplatKind.PAGE_ALLOC, r".+: page allocation (?:failure|stalls)"),
    (SplatKind.OOM, r".+ invoked oom-killer: |(?:Memory cgroup )?[Oo]ut of memory: Kill"),
    (SplatKind.WARNING, r"WARNING: CPU: \d+ PID: |WARNING: \S+:\d+ (?:at|in) .+"),
)
_REPORT = [(kind, re.compile(pattern)) for kind, pattern in _REPORTS]
# a fast check that excludes nearly all lines
_GATE = re.compile(
    "BUG|WARNING|INFO:|UBSAN|LOCKUP|panic|PANIC|rror|Oops|fault|opcode|segment|overflow|bounds|check|int3|TSS"
    "|Unable|refcount_t|corruption|kmemleak|oom-killer|f memory|allocation|pagetable|CSD"
)

_SYMBOL = r"([A-Za-z_$][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+"
FRAME = re.compile(rf"\s*(?:\[<[0-9a-fx]+>\]\s*)?(\? )?{_SYMBOL}(?:\s.*)?")
POINTER = re.compile(rf"(?:RIP: [0-9a-f]+:|RIP: |IP: |E?IP is at |pc : )(?:\[<[0-9a-f]+>\] )?{_SYMBOL}")
_TITLE_PLACE = re.compile(r"\bat \S+:\d+ ([A-Za-z_]\w*)|\bin ([a-z_]\w*_\w*)|\bat (\S+\.[chS]):\d+")
CALL_TRACE = re.compile(r"\s*Call [Tt]race:\s*$")
# requested stack traces follow
SYSRQ = re.compile(r"sysrq: (?:Show|HELP)|NMI backtrace for cpu")
TRACE_BEGIN = re.compile(r"\s*(?:Call [Tt]race:|backtrace)")
PLAIN_TRACE_KINDS = (SplatKind.KFENCE, SplatKind.KCSAN, SplatKind.KMSAN)
IN_TRACE = re.compile(
    r"\s*(?:</?[A-Z_#0-9]+>\s*$|\? |R[A-Z0-9]{2}: |FS: |CS: |CR\d: |Code: |EFLAGS|ORIG_RAX|\s*$)"
)
OF_REPORT = re.compile(
    r"\s*$|\s*\? |</?[A-Z]+>|CPU: \d|Modules linked in|Hardware name|Workqueue: |Code: "
    r"|[A-Z]{1,3}[0-9]{0,2}: "
    r"|(?:pc|lr|sp|x\d+) ?: |pstate: |RAX|INFO: lockdep|rcu: |=+$|-+$|[0-9a-f>]{8,}: "
    r"|(?:Allocated|Freed|Read|Write|Last|The buggy|Memory state|Mem abort|Data abort|page:|raw:|flags:)"
)
END = re.compile(r"---\[ end |={20,}$")
CUT_HERE = re.compile(r"-+\[ cut here \]-+")
TASK = re.compile(r"(?:\bComm: (.+?) (?:Kdump: loaded )?|^\s+)(?:Not tainted|Tainted: ([A-Z ]+?)(?= +\S*\d))")
_TITLE_TASK = re.compile(
    r"INFO: task (.+?):\d+ (?:blocked|<)|stuck for \d+s! \[(.+):\d+\]|in process (\S+)  pfn"
    r"|while atomic: (.+?)/\d+/|Killed? process \d+ \((.+?)\)|^(.+?) invoked oom-killer|by task (.+)/\d+"
)

# a panic that is only the consequence of an earlier report
CONSEQUENCE = re.compile(
    r"Fatal exception|panic_on_warn|panic_on_stackoverflow|hung_task: blocked|softlockup: hung|RCU [Ss]tall"
    r"|[Hh]ard LOCKUP|Oops|scheduling while atomic|stack overflow|kasan\.fault|BUG!|NMI"
)
KILLS_ITS_TASK = (SplatKind.OOPS, SplatKind.BUG, SplatKind.LIST, SplatKind.REFCOUNT)
DIE = re.compile(rf"Oops|Internal error: |(?:traps: )?(?:{_TRAP})")

_NOISE = re.compile(
    r"dump_stack(?:_lvl)?|show_stack|show_regs|__?show_\w+|dump_backtrace\w*|v?panic|nmi_panic|check_panic_on_warn"
    r"|__warn\w*|warn_\w+|report_bug|handle_bug|fixup_bug|__die\w*|die\w*|oops_\w+|no_context|page_fault_oops"
    r"|_*bad_area\w*|kernelmode_fixup_or_oops|do_(?:user|kern)_addr_fault|_*do_page_fault|page_fault|async_page_fault"
    r"|exc_\w+|asm_exc_\w+|do_error_trap|do_trap\w*|do_invalid_op|invalid_op|general_protection|do_general_protection"
    r"|_*kasan_\w+|__asan_\w+|check_memory_region|print_(?:report|address_description|\w*bug\w*|stall\w*)"
    r"|__kfence_\w+|kfence_\w+|kcsan_\w+|__tsan_\w+|__msan_\w+|kmsan_\w+|ubsan_\w+|__ubsan_\w+"
    r"|lockdep_\w+|check_(?:noncircular|prevs?_add|deadlock|usage\w*|irq_usage)|validate_chain|mark_lock\w*"
    r"|valid_state|mark_held_locks|mark_usage|__lock_acquire|lock_(?:acquire|release)|__lock_release"
    r"|_*might_(?:sleep|resched)|__schedule_bug|__schedule|schedule(?:_timeout|_preempt_disabled)?|__switch_to"
    r"|preempt_schedule\w*|io_schedule\w*|bad_page\w*|dump_page|free_pages_check\w*|print_bad_pte|check_free_page\w*"
    r"|__list_(?:add|del_entry)_valid\w*|refcount_warn_saturate|refcount_\w+_checked"
    r"|dump_header|oom_kill_process|out_of_memory|__alloc_pages(?:_slowpath|_may_oom|_nodemask)?|warn_alloc"
    r"|do_?_*kernel_fault|__do_kernel_fault|do_(?:translation|mem)_(?:fault|abort)|do_mem_abort|bug_handler"
    r"|brk_handler|call_break_hook|do_debug_exception|do_el1_\w+|el1h?_\w+|do_undefinstr|arm64_notify_die"
    r"|nmi_(?:cpu_backtrace\w*|trigger_\w+|handle|backtrace\w*)|\w*trigger_\w*backtrace\w*|rcu_dump_cpu_stacks"
    r"|rcu_(?:sched_clock_irq|pending|stall\w*)|check_cpu_stall|update_process_times|tick_\w+|watchdog_\w+"
    r"|_*hrtimer_\w+|object_err|slab_err|check_bytes_and_report|ret_from_fork\w*|entry_SYSCALL_64\w*"
    r"|do_syscall_64|el0t?_\w+|invoke_syscall|do_el0_svc|el0_svc\w*|ret_fast_syscall|unwind_backtrace"
)
_INTERRUPT = re.compile(
    r"asm_sysvec_\w+|sysvec_\w+|asm_common_interrupt|apic_timer_interrupt|ret_from_intr|el1_irq|el1h_64_irq\w*"
    r"|el1_interrupt|gic_handle_irq|asm_call_irq_on_stack|asm_exc_nmi|end_repeat_nmi|nmi"
)
_SUFFIX = re.compile(r"(?:\.(?:constprop|isra|part|cold|llvm|lto_priv)(?:\.\d+)*)+$")


def find_kind(text: str) -> SplatKind | None:
    """The kind of report that starts with this line; the first matching pattern wins."""
    if not _GATE.search(text):
        return None
    return next((kind for kind, pattern in _REPORT if pattern.match(text)), None)


def make_fingerprint(kind: SplatKind, frames: tuple[str, ...], title: str) -> str:
    """``kind:func1/func2/func3`` from the innermost relevant functions; without any, from the function or the
    words of the title, without numbers."""
    names = [strip_suffix(frame) for frame in frames]
    if kind.is_stall:
        interrupts = [index for index, name in enumerate(names) if _INTERRUPT.fullmatch(name)]
        after = names[interrupts[-1] + 1 :] if interrupts else []
        names = after or names
    names = [name for name in names if not _NOISE.fullmatch(name) and not _INTERRUPT.fullmatch(name)]
    if not names and (found := _TITLE_PLACE.search(title)):
        names = [next(group for group in found.groups() if group)]
    if not names:
        text = re.sub(
            r"^(?:[\w -]+: )*?(?:BUG|WARNING|INFO|kmemleak|Kernel panic - not syncing): ", "", title
        )
        words = re.findall(r"[A-Za-z_][A-Za-z_-]*(?![\w.])", re.sub(r"0x[0-9a-f]+|\(.*|\[.*", "", text))
        names = ["_".join(words[:5]) or "unknown"]
    return f"{kind}:{'/'.join(names[:3])}"


def strip_suffix(function: str) -> str:
    """The function name without suffixes of the compiler."""
    return _SUFFIX.sub("", function)


def clean_title(text: str) -> str:
    """The report's first line without offsets, CPU and PID."""
    text = re.sub(r"WARNING: CPU: \d+ PID: \d+ at", "WARNING at", text.strip())
    text = re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+", "", text)
    return text[:MAX_LINE]


def find_task(text: str) -> str | None:
    found = _TITLE_TASK.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def ends_trace(text: str) -> bool:
    return bool(END.match(text) or re.match(r"Modules linked in|Allocated by|Freed by|\S+: |=+$", text))
