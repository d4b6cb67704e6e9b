# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and pure functions for the lines of splats: kinds, first and last lines, frames.

``console`` does the parsing, ``fingerprint`` names a splat. The time per line is
limited: every repeat in a regular expression has an upper bound, and lines are cut before they are matched.
"""

import re
from dataclasses import dataclass
from enum import StrEnum

MAX_LINE = 1000


class SplatKind(StrEnum):
    """The kind of a kernel report. ``notice``: a stack that the kernel prints without a fault."""

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
    NOTICE = "notice"
    TRACE = "trace"

    @property
    def is_fault(self) -> bool:
        """Whether the report is evidence against the kernel; running out of memory is not."""
        return self not in (SplatKind.OOM, SplatKind.PAGE_ALLOC, SplatKind.NOTICE)

    @property
    def may_be_host(self) -> bool:
        """Whether a busy host may be the reason: something came too late, or the kernel gave up for that."""
        return self.is_stall or self in (SplatKind.PANIC, SplatKind.HUNG_TASK)

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
    """One report. ``frames`` are the functions of the trace that is about the fault, innermost first;
    ``fingerprint`` is the same for the same fault; ``taint`` has the taint letters, empty if not tainted,
    None if unknown.
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


_SYMBOL = r"([A-Za-z_$][\w.$]{0,200})\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"
_ADDRESS = r"(?:\[<[0-9a-fx]{1,18}>\] {0,2})"
_TRAP = (
    r"general protection fault|divide[ _]error|invalid opcode|stack segment|double fault|int3|bounds|overflow"
    r"|alignment check|segment not present|invalid TSS|control protection|Bad pagetable|kernel stack overflow"
)
# die() ends its first line with a counter, on every architecture
_DIED = r"\[#\d{1,5}\]"
DIE = re.compile(
    rf"(?:traps: )?(?:Oops\b|Internal error: |Kernel BUG|{_TRAP}).{{0,150}}{_DIED}"
    rf"|[^:]{{1,60}}: [0-9a-f]{{4,16}} {_DIED}|Oops: [0-9a-f]{{4,16}}\b|Internal error: Oops"
)
_LOCKDEP = (
    r"possible |inconsistent |suspicious RCU|bad unlock|bad contention|held lock freed|lock held (?:when|at)"
    r"|[Nn]ested lock|circular locking|HARDIRQ|SOFTIRQ|RECLAIM|[\w-]{1,40}-safe -> |[Ii]nvalid wait context"
    r"|locks? still held|trying to register non-static key|(?:.{0,40}/\d{1,10} )?still has locks? held"
)
# the first lines of reports; the first pattern that matches wins
_REPORTS: tuple[tuple[SplatKind, str], ...] = (
    (SplatKind.PANIC, r"(?:[\w./]{1,40}: )?Kernel panic - not syncing"),
    (SplatKind.KASAN, r"BUG: KASAN: "),
    (SplatKind.KFENCE, r"BUG: KFENCE: "),
    (SplatKind.KCSAN, r"BUG: KCSAN: "),
    (SplatKind.KMSAN, r"BUG: KMSAN: "),
    (SplatKind.UBSAN, r"UBSAN: "),
    (SplatKind.SOFT_LOCKUP, r"(?:NMI )?(?:watchdog: )?BUG: soft lockup"),
    (SplatKind.HARD_LOCKUP, r"(?:NMI )?watchdog: (?:CPU ?\d{1,5}: )?Watchdog detected hard LOCKUP"),
    (SplatKind.RCU_STALL, r"(?:rcu: )?INFO: \w{1,40} (?:self-)?detected (?:expedited )?stalls?"),
    # a task's name may contain a newline: then the rest of it starts the second line
    (
        SplatKind.HUNG_TASK,
        r"(?:INFO: task )?.{0,60}:\d{1,10} (?:blocked|can't die) (?:in \S{1,20} \S{1,20} )?for more than \d",
    ),
    (SplatKind.STUCK_CPU, r"BUG: workqueue lockup|(?:smp: )?csd: Detected non-responsive CSD lock"),
    (SplatKind.BAD_PAGE, r"BUG: Bad (?:page|rss-counter)|BUG: non-zero pgtables_bytes"),
    (SplatKind.ATOMIC, r"BUG: scheduling while atomic"),
    (SplatKind.SLEEP, r"BUG: sleeping function called from invalid context"),
    (
        SplatKind.LOCKDEP,
        rf"(?:={{0,40}}\[ )?(?:BUG|WARNING|INFO): (?:{_LOCKDEP})|.{{0,40}}/\d{{1,10}} still has locks? held",
    ),
    (
        SplatKind.OOPS,
        r"BUG: (?:unable to handle|kernel NULL pointer|(?:\S{1,40} )?stack guard page|TASK stack)",
    ),
    (
        SplatKind.OOPS,
        r"Unable to handle kernel (?:NULL|paging|access|read|write|exec|unknown|instr|data)"
        r"|Insufficient stack space to handle exception|CFI failure at ",
    ),
    (SplatKind.OOPS, rf"(?:traps: )?PANIC: double fault|{DIE.pattern}"),
    (SplatKind.BUG, r"kernel BUG at |BUG: (?:using |spinlock|rwlock|Dentry|corrupt)"),
    (SplatKind.BUG, r"VFS: (?:Busy inodes after unmount|Close: file count is (?:0|zero))"),
    (SplatKind.SLAB, r"BUG [\w.:-]{1,80} \([^)]{0,80}\): |slab error in "),
    (SplatKind.REFCOUNT, r"refcount_t: "),
    (SplatKind.LIST, r"list_(?:add|del)\w{0,20} corruption"),
    (SplatKind.KMEMLEAK, r"kmemleak: [1-9]\d{0,9} new suspected memory leaks"),
    (
        SplatKind.PAGE_ALLOC,
        r".{1,60}: (?:page allocation (?:failure|stalls)|vmalloc error|vmalloc: allocation)",
    ),
    # any warn_alloc()
    (SplatKind.PAGE_ALLOC, r".{1,200}, mode:0x[0-9a-f]{1,8}\(.{0,200}nodemask="),
    (SplatKind.PAGE_ALLOC, r"(?:vmalloc|percpu|PERCPU|SL[AU]B): (?:allocation fail|Unable to allocate)"),
    (SplatKind.OOM, r".{1,60} invoked oom-killer: |(?:Memory cgroup )?[Oo]ut of memory: Kill"),
    (SplatKind.NOTICE, r"FAULT_INJECTION: |FAULT_FLAG_ALLOW_RETRY missing|unchecked MSR access error: "),
    (
        SplatKind.WARNING,
        r"WARNING: (?:CPU: \d{1,5} PID: |at \S{1,200}:\d|(?:\[.{1,300}\] )?\S{1,200}:\d{1,7} (?:at|in) \S)",
    ),
)
_REPORT = [(kind, re.compile(pattern)) for kind, pattern in _REPORTS]
# a fast check that excludes nearly all lines
_GATE = re.compile(
    r"BUG|WARNING|INFO:|UBSAN|LOCKUP|panic|PANIC|\[#\d|Oops|Internal|Unable|Insuff|CFI|refcount_t|corruption|kmemleak"
    r"|oom-killer|f memory|alloc|mode:0x|FAULT_|MSR|CSD|VFS: |locks? held|for more than"
)
# reports whose message comes before the header of a WARNING or BUG, with "cut here" before either
MESSAGE_FIRST = re.compile(r"refcount_t: |CFI failure at |list_\w{1,20} corruption|VFS: ")

# its indentation or address, "? " if it is a guess, and the function
FRAME = re.compile(rf"(\s{{0,48}}{_ADDRESS}?)(\? )?{_ADDRESS}?{_SYMBOL}(?:\s.{{0,300}})?")
POINTER = re.compile(
    rf"(?:RIP: [0-9a-f]{{4}}:|RIP: |IP: |E?IP is at |PC is at |e?pc : ){_ADDRESS}{{0,2}}{_SYMBOL}"
)
_LOCKED_AT = re.compile(rf".{{0,300}}, at: {_ADDRESS}?{_SYMBOL}")
_TITLE_POINTER = re.compile(
    rf"WARNING: .{{0,400}}? at {_SYMBOL}|WARNING: .{{0,400}}:\d{{1,7}} {_SYMBOL}|CFI failure at {_SYMBOL}"
)
_TITLE_CLEANING = (
    (re.compile(r"WARNING: CPU: \d{1,5} PID: \d{1,10} at"), "WARNING at"),
    (
        re.compile(r"^WARNING: ((?:\[.{1,300}\] )?\S{1,200}:\d{1,7}) at (\S{1,200}), CPU#\d{1,5}: .{0,80}"),
        r"WARNING at \1 \2",
    ),
    (re.compile(r"\+0x[0-9a-f]{1,8}/0x[0-9a-f]{1,8}"), ""),
)
# a stack after such a line is of an allocation
NO_MEMORY = re.compile(r"\balloc\w{0,8} (?:\w{1,12} ){0,4}fail|fail\w{0,4} to alloc|[Oo]ut of memory")
CALL_TRACE = re.compile(r"\s{0,16}Call [Tt]race:\s{0,16}$")
# requested stack traces follow
SYSRQ = re.compile(r"sysrq: (?:Show|HELP)|NMI backtrace for cpu")
TRACE_BEGIN = re.compile(r"\s{0,16}(?:Call [Tt]race:|backtrace)")
# their stacks have no "Call Trace:"; on riscv, neither has that of an oops
PLAIN_TRACE_KINDS = (SplatKind.KFENCE, SplatKind.KCSAN, SplatKind.KMSAN)
DYING_KINDS = (SplatKind.OOPS, SplatKind.BUG, SplatKind.WARNING, SplatKind.PANIC)
TRACE_END = re.compile(
    r"-{1,3}\[ end |={20,1000}$|Modules linked in|Allocated by|Freed by|CPU: \d|NMI backtrace|task:"
    r"|Showing all locks|Sending NMI|Kernel Offset|Rebooting in"
)
OF_REPORT = re.compile(
    r"\s{0,16}$|\s{0,16}\? |</?[A-Z]{1,9}>|CPU: \d|Modules linked in|Hardware name|Workqueue: |Code: "
    r"|Tainted: |[A-Z]{1,3}[0-9]{0,2}: |-{1,40}\[ cut here"
    r"|(?:e?pc|lr|ra|sp|x\d{1,2}) ?: |pstate: |RAX|INFO: lockdep|rcu: |[=-]{1,200}$|[0-9a-f>]{8,20}: "
    r"|\s{1,4}[0-9a-f]{16}(?: |$)|Stack:"
    r"|(?:Allocated|Freed|Read|Write|Last|The buggy|Memory state|Mem abort|Data abort|page:|raw:|flags:)"
)
END = re.compile(r"---\[ end |={20,1000}$")
CUT_HERE = re.compile(r"\s{0,16}-{1,40}\[ cut here \]-{1,40}")
TASK = re.compile(
    r"(?:\bComm: (.{1,64}?) (?:Kdump: loaded )?|^\s{1,16})(?:Not tainted|Tainted: ([A-Z ]{1,40}))"
)
_TITLE_TASK = re.compile(
    r"^INFO: task (.{1,64}?):\d{1,10} (?:blocked|can't|<)|stuck for \d{1,9}s! \[(.{1,64}?):\d{1,10}\]"
    r"|in process (\S{1,64})  pfn|while atomic: (.{1,64}?)/\d{1,10}/|Killed? process \d{1,10} \((.{1,64}?)\)"
    r"|^(.{1,64}?) invoked oom-killer|by task (.{1,64})/\d{1,10}|, CPU#\d{1,5}: (.{1,64})/\d{1,10}"
)

# a panic that is only the consequence of an earlier report
CONSEQUENCE = re.compile(
    r"Fatal exception|panic_on_warn|panic_on_stackoverflow|hung_task: blocked|softlockup: hung|RCU [Ss]tall"
    r"|[Hh]ard LOCKUP|Oops|scheduling while atomic|stack overflow|kasan\.fault|BUG!|NMI"
)
KILLS_ITS_TASK = (SplatKind.OOPS, SplatKind.BUG, SplatKind.LIST, SplatKind.REFCOUNT)


def find_kind(text: str) -> SplatKind | None:
    """The kind of report that starts with this line; the first matching pattern wins."""
    if not _GATE.search(text):
        return None
    return next((kind for kind, pattern in _REPORT if pattern.match(text)), None)


def clean_title(text: str) -> str:
    """The report's first line without offsets, CPU and PID."""
    text = text.strip()
    for pattern, replacement in _TITLE_CLEANING:
        text = pattern.sub(replacement, text)
    return text[:MAX_LINE]


def find_title_pointer(text: str) -> str:
    """The function that a WARNING names in its header, empty if none."""
    found = _TITLE_POINTER.match(text)
    return next((group for group in found.groups() if group), "") if found else ""


def find_locked_at(text: str) -> str:
    """The function that takes or releases a lock, in a lockdep report above its stack; empty if none."""
    if found := _LOCKED_AT.match(text):
        return found[1]
    return found[3] if (found := FRAME.fullmatch(text)) else ""


def find_task(text: str) -> str | None:
    found = _TITLE_TASK.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def is_of_stack(text: str) -> bool:
    """Whether a line is one of those around a stack, and says nothing about its reason."""
    return bool(OF_REPORT.match(text) or FRAME.fullmatch(text))
