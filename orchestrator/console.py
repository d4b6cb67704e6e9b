# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel log text comes in as it left the console, and what the kernel complained of comes out: splats with
a fingerprint, panic, boots, milestones and the cases' markers. Memory stays bounded however long the log is;
what was dropped is counted. Must not log, print, do I/O or raise on any text, and must not decide whether a
case passed.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

MAX_SPLATS_PER_KIND = 40
MAX_MARKERS = 20_000
MAX_MILESTONES = 64
MAX_EXCERPT_LINES = 120
MAX_LINE = 1000
MAX_FRAMES = 64
MAX_OPEN = 32

# lines without anything of a report in them after which it is over: before its trace, and after
_PATIENCE_BEFORE_TRACE = 80
_PATIENCE = 30
_CUT_PATIENCE = 20


class SplatKind(StrEnum):
    """What the kernel complained of."""

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

    @property
    def is_fault(self) -> bool:
        """Whether the kernel is at fault; running out of memory is not by itself."""
        return self not in (SplatKind.OOM, SplatKind.PAGE_ALLOC)

    @property
    def is_stall(self) -> bool:
        """Whether the report interrupts the code that it is about."""
        return self in (
            SplatKind.RCU_STALL,
            SplatKind.SOFT_LOCKUP,
            SplatKind.HARD_LOCKUP,
            SplatKind.STUCK_CPU,
        )


@dataclass(frozen=True, slots=True)
class Splat:
    """One report. ``frames`` are the functions of its first trace, innermost first; ``fingerprint`` is the
    same for the same fault; ``taint`` is its letters, empty when not tainted, None when not said.
    """

    kind: SplatKind
    title: str
    frames: tuple[str, ...]
    fingerprint: str
    line_number: int
    excerpt: str
    dropped_lines: int = 0
    uptime_s: float | None = None
    case: str | None = None
    task: str | None = None
    taint: str | None = None

    @property
    def is_fault(self) -> bool:
        return self.kind.is_fault


@dataclass(frozen=True, slots=True)
class Marker:
    """``cowbell: begin CASE`` or ``cowbell: end CASE``, written to the log around a case."""

    action: str
    case: str
    line_number: int
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class Milestone:
    """``banner``, ``root``, ``init``, ``power-down`` or ``restart``, at seconds of uptime."""

    name: str
    line_number: int
    uptime_s: float | None


@dataclass(frozen=True, slots=True)
class ConsoleLog:
    """What a log says. ``panic`` is the message of the first panic; ``dropped`` counts the splats beyond
    what is kept of each kind; ``lines`` is 0 for a mute guest.
    """

    lines: int
    splats: tuple[Splat, ...]
    panic: str | None
    boots: int
    milestones: tuple[Milestone, ...]
    markers: tuple[Marker, ...]
    last_uptime_s: float | None
    dropped: tuple[tuple[SplatKind, int], ...]
    dropped_markers: int

    @property
    def panicked(self) -> bool:
        return self.panic is not None

    @property
    def faults(self) -> tuple[Splat, ...]:
        return tuple(splat for splat in self.splats if splat.is_fault)


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One printk line, or a piece of one. ``caller`` is ``T123`` or ``C0`` with CONFIG_PRINTK_CALLER."""

    text: str
    raw: str
    uptime_s: float | None
    caller: str


_ANSI = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|[()][A-Z0-9]|[=>78cDEHM])")
_STAMP = re.compile(r"(?:<[0-9]{1,3}>)?\[ *([0-9]{1,9}\.[0-9]{6})\](?:\[ *([TC][0-9]+)\])? ?")
_UNSTAMPED = re.compile(r"(?:<[0-9]{1,3}>)?(?:\[ *([TC][0-9]+)\] ?)?")

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
# a first look that spares the table above for nearly every line
_GATE = re.compile(
    "BUG|WARNING|INFO:|UBSAN|LOCKUP|panic|PANIC|rror|Oops|fault|opcode|segment|overflow|bounds|check|int3|TSS"
    "|Unable|refcount_t|corruption|kmemleak|oom-killer|f memory|allocation|pagetable|CSD"
)

_SYMBOL = r"([A-Za-z_$][\w.$]*)\+0x[0-9a-f]+/0x[0-9a-f]+"
_FRAME = re.compile(rf"\s*(?:\[<[0-9a-fx]+>\]\s*)?(\? )?{_SYMBOL}(?:\s.*)?")
_POINTER = re.compile(rf"(?:RIP: [0-9a-f]+:|RIP: |IP: |E?IP is at |pc : )(?:\[<[0-9a-f]+>\] )?{_SYMBOL}")
_TITLE_PLACE = re.compile(r"\bat \S+:\d+ ([A-Za-z_]\w*)|\bin ([a-z_]\w*_\w*)|\bat (\S+\.[chS]):\d+")
_TRACE_BEGIN = re.compile(r"\s*(?:Call [Tt]race:|backtrace)")
_PLAIN_TRACE_KINDS = (SplatKind.KFENCE, SplatKind.KCSAN, SplatKind.KMSAN)
_IN_TRACE = re.compile(
    r"\s*(?:</?[A-Z_#0-9]+>\s*$|\? |R[A-Z0-9]{2}: |FS: |CS: |CR\d: |Code: |EFLAGS|ORIG_RAX|\s*$)"
)
_OF_REPORT = re.compile(
    r"\s*$|\s*\? |</?[A-Z]+>|CPU: \d|Modules linked in|Hardware name|Workqueue: |Code: "
    r"|[A-Z]{1,3}[0-9]{0,2}: "
    r"|(?:pc|lr|sp|x\d+) ?: |pstate: |RAX|INFO: lockdep|rcu: |=+$|-+$|[0-9a-f>]{8,}: "
    r"|(?:Allocated|Freed|Read|Write|Last|The buggy|Memory state|Mem abort|Data abort|page:|raw:|flags:)"
)
_END = re.compile(r"---\[ end |={20,}$")
_CUT_HERE = re.compile(r"-+\[ cut here \]-+")
_TASK = re.compile(
    r"(?:\bComm: (.+?) (?:Kdump: loaded )?|^\s+)(?:Not tainted|Tainted: ([A-Z ]+?)(?= +\S*\d))"
)
_TITLE_TASK = re.compile(
    r"INFO: task (.+?):\d+ (?:blocked|<)|stuck for \d+s! \[(.+):\d+\]|in process (\S+)  pfn"
    r"|while atomic: (.+?)/\d+/|Killed? process \d+ \((.+?)\)|^(.+?) invoked oom-killer|by task (.+)/\d+"
)

# a panic that only says that a report before it is fatal
_CONSEQUENCE = re.compile(
    r"Fatal exception|panic_on_warn|panic_on_stackoverflow|hung_task: blocked|softlockup: hung|RCU [Ss]tall"
    r"|[Hh]ard LOCKUP|Oops|scheduling while atomic|stack overflow|kasan\.fault|BUG!|NMI"
)
_KILLS_ITS_TASK = (SplatKind.OOPS, SplatKind.BUG, SplatKind.LIST, SplatKind.REFCOUNT)
_DIE = re.compile(rf"Oops|Internal error: |(?:traps: )?(?:{_TRAP})")

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

_BANNER = re.compile(r"Linux version \d+\.\d+")
_MARKER = re.compile(r"cowbell: (begin|end) (\S.*?)\s*$")
_MILESTONES = (
    ("root", re.compile(r"VFS: Mounted root ")),
    ("init", re.compile(r"Run \S+ as init process")),
    ("power-down", re.compile(r"reboot: (?:Power down|System halted)")),
    ("restart", re.compile(r"reboot: Restarting system|Rebooting in \d+ seconds")),
)
_MILESTONE_GATE = re.compile("Run |VFS: M|reboot: |Rebooting ")


def parse_console(text: str | Iterable[str]) -> ConsoleLog:
    """Parses a whole log, or its lines."""
    parser = ConsoleParser()
    for line in text.split("\n") if isinstance(text, str) else text:
        parser.feed(line)
    return parser.end()


def split_line(line: str) -> Iterator[KernelLine]:
    """The printk lines in one line of console: none starts in the middle unless user space left it open."""
    if "\x1b" in line:
        line = _ANSI.sub("", line)
    line = line.strip("\r\n")[: MAX_LINE * 4]
    stamps = list(_STAMP.finditer(line)) if "[" in line else []
    head = line[: stamps[0].start()] if stamps else line
    if head or not stamps:
        plain = _UNSTAMPED.match(head)
        offset, caller = (plain.end(), plain[1] or "") if plain else (0, "")
        yield KernelLine(head[offset:], head, None, caller)
    for stamp, end in zip(stamps, [*(stamp.start() for stamp in stamps[1:]), len(line)], strict=False):
        raw = line[stamp.start() : end]
        yield KernelLine(line[stamp.end() : end], raw, float(stamp[1]), stamp[2] or "")


@dataclass(slots=True)
class _Open:
    """A report that is being read."""

    kind: SplatKind
    title: str
    line_number: int
    uptime_s: float | None
    case: str | None
    excerpt: list[str]
    frames: list[str] = field(default_factory=list)
    pointer: str = ""
    task: str | None = None
    taint: str | None = None
    dropped_lines: int = 0
    kept: int = 1
    idle: int = 0
    has_died: bool = False
    has_header: bool = False
    is_tracing: bool = False
    is_traced: bool = False

    def close(self) -> Splat:
        frames = tuple(self.frames)
        if self.pointer and (not frames or strip_suffix(frames[0]) != strip_suffix(self.pointer)):
            frames = (self.pointer, *frames)
        return Splat(
            self.kind,
            self.title,
            frames,
            make_fingerprint(self.kind, frames, self.title),
            self.line_number,
            "\n".join(self.excerpt[: self.kept]),
            self.dropped_lines,
            self.uptime_s,
            self.case,
            self.task,
            self.taint,
        )


class ConsoleParser:
    """Feed lines as they come, then ask for the log with :meth:`end`."""

    def __init__(self) -> None:
        self._lines = 0
        self._has_text = False
        self._open: dict[str, _Open] = {}
        self._cut: dict[str, list[tuple[int, KernelLine]]] = {}
        self._splats: list[Splat] = []
        self._kept: dict[SplatKind, int] = {}
        self._dropped: dict[SplatKind, int] = {}
        self._last_fault: SplatKind | None = None
        self._panic: str | None = None
        self._boots = 0
        self._milestones: list[Milestone] = []
        self._markers: list[Marker] = []
        self._dropped_markers = 0
        self._uptime_s: float | None = None
        self._case: str | None = None

    def feed(self, line: str) -> None:
        """Takes one line, with or without its line end, decoded with ``errors="replace"``."""
        self._lines += 1
        self._has_text = self._has_text or bool(line.strip())
        for piece in split_line(line):
            self._on_line(piece)

    def end(self) -> ConsoleLog:
        """Ends the log; reports that are still open count as they are. Feed nothing afterwards."""
        self._close_all()
        return ConsoleLog(
            self._lines if self._has_text else 0,
            tuple(sorted(self._splats, key=lambda splat: splat.line_number)),
            self._panic,
            self._boots,
            tuple(self._milestones),
            tuple(self._markers),
            self._uptime_s,
            tuple(sorted(self._dropped.items())),
            self._dropped_markers,
        )

    def _on_line(self, line: KernelLine) -> None:
        if line.uptime_s is not None:
            self._uptime_s = line.uptime_s
        if self._on_landmark(line):
            return
        if _CUT_HERE.match(line.text):
            self._flush_cut(line.caller)
            if len(self._cut) < MAX_OPEN:
                self._cut[line.caller] = [(self._lines, line)]
            return
        kind = self._find_report(line)
        if kind and self._on_report(kind, line):
            return
        if line.caller in self._cut:
            held = self._cut[line.caller]
            held.append((self._lines, line))
            if len(held) > _CUT_PATIENCE:
                self._flush_cut(line.caller)
        elif report := self._find_open(line):
            self._on_continued(report, line)

    def _on_landmark(self, line: KernelLine) -> bool:
        if _BANNER.match(line.text):
            self._close_all()
            self._last_fault = None
            self._boots += 1
            self._case = None
            self._add_milestone("banner", line)
            return True
        if marker := _MARKER.match(line.text):
            self._case = marker[2] if marker[1] == "begin" else None
            if len(self._markers) < MAX_MARKERS:
                self._markers.append(Marker(marker[1], marker[2], self._lines, line.uptime_s))
            else:
                self._dropped_markers += 1
            return True
        if _MILESTONE_GATE.match(line.text):
            for name, pattern in _MILESTONES:
                if pattern.match(line.text):
                    self._add_milestone(name, line)
        return False

    def _add_milestone(self, name: str, line: KernelLine) -> None:
        if len(self._milestones) < MAX_MILESTONES:
            self._milestones.append(Milestone(name, self._lines, line.uptime_s))

    def _find_report(self, line: KernelLine) -> SplatKind | None:
        if not _GATE.search(line.text):
            return None
        for kind, pattern in _REPORT:
            if pattern.match(line.text):
                return kind
        # an unknown BUG is taken from the kernel only: user space prints such lines as well
        is_kernel = line.uptime_s is not None or self._uptime_s is None
        return SplatKind.BUG if is_kernel and line.text.startswith("BUG: ") else None

    def _on_report(self, kind: SplatKind, line: KernelLine) -> bool:
        """Open a report, unless the line only continues the one that is open; True when it is dealt with."""
        report = self._find_open(line)
        match kind:
            case SplatKind.PANIC:
                message = line.text[line.text.index("Kernel panic") :][:MAX_LINE]
                self._panic = self._panic or message
                if self._is_explained(message):
                    return False
            case SplatKind.OOM if report and report.kind is SplatKind.OOM and "process" in line.text:
                report.title = clean_title(line.text)
                report.task = _find_task(line.text) or report.task
                return False
            case SplatKind.OOPS if report and _DIE.match(line.text) and self._may_die(report):
                report.has_died = True
                return False
            case SplatKind.BUG | SplatKind.WARNING if report and self._may_have_header(report):
                report.has_header = True
                return False
        self._open_report(kind, line)
        return True

    def _is_explained(self, message: str) -> bool:
        if self._last_fault is None and not any(report.kind.is_fault for report in self._open.values()):
            return False
        if "Attempted to kill" in message:
            kinds = {self._last_fault, *(report.kind for report in self._open.values())}
            return bool(kinds & set(_KILLS_ITS_TASK))
        return bool(_CONSEQUENCE.search(message))

    @staticmethod
    def _may_die(report: _Open) -> bool:
        return not (report.has_died or report.is_traced) and report.kind in _KILLS_ITS_TASK

    @staticmethod
    def _may_have_header(report: _Open) -> bool:
        waits = report.kind in (SplatKind.LIST, SplatKind.REFCOUNT)
        return waits and not (report.has_header or report.is_traced)

    def _open_report(self, kind: SplatKind, line: KernelLine) -> None:
        previous = self._open.pop(line.caller, None)
        if previous:
            self._keep(previous)
        held = self._cut.pop(line.caller, [])
        title = clean_title(line.text)
        message = next((text.text.strip() for _, text in held[1:] if text.text.strip()), "")
        if kind is SplatKind.WARNING and message:
            title = f"{title}: {message[:MAX_LINE]}"
        excerpt = [text.raw[:MAX_LINE] for _, text in held] + [line.raw[:MAX_LINE]]
        if len(self._open) >= MAX_OPEN:
            self._keep(self._open.pop(next(iter(self._open))))
        report = _Open(kind, title, self._lines, line.uptime_s, self._case, excerpt, kept=len(excerpt))
        report.task = _find_task(line.text)
        report.has_died = bool(_DIE.match(line.text))
        self._open[line.caller] = report

    def _find_open(self, line: KernelLine) -> _Open | None:
        if line.text.startswith("NMI backtrace for cpu") and line.caller not in self._open:
            # a stalled CPU prints its own trace into the report of the CPU that noticed
            stalls = (report for report in self._open.values() if report.kind.is_stall)
            if report := next(stalls, None):
                self._open[line.caller] = report
        if not self._open:
            return None
        if line.uptime_s is None and not line.caller and self._uptime_s is not None:
            return None
        return self._open.get(line.caller)

    def _on_continued(self, report: _Open, line: KernelLine) -> None:
        is_part = self._read_trace(report, line.text)
        if found := _TASK.search(line.text):
            report.task = report.task or found[1]
            if report.taint is None:
                report.taint = (found[2] or "").replace(" ", "")
        elif report.task is None:
            report.task = _find_task(line.text)
        is_end = bool(_END.match(line.text))
        is_part = is_part or is_end or bool(_OF_REPORT.match(line.text))
        if len(report.excerpt) < MAX_EXCERPT_LINES:
            report.excerpt.append(line.raw[:MAX_LINE])
            if is_part:
                report.kept = len(report.excerpt)
        elif is_part:
            report.dropped_lines += 1
        report.idle = 0 if is_part else report.idle + 1
        patience = _PATIENCE if report.is_traced else _PATIENCE_BEFORE_TRACE
        if report.idle > patience or (is_end and (report.is_traced or not line.text.startswith("="))):
            self._close(report)

    @staticmethod
    def _read_trace(report: _Open, text: str) -> bool:
        """Take a frame, or notice where the first trace begins and ends; whether the line is of a trace."""
        if _TRACE_BEGIN.match(text):
            report.is_tracing, report.is_traced = not report.frames, True
            return True
        if found := _POINTER.match(text.lstrip()):
            if report.is_tracing and report.frames:
                if report.kind.is_stall:
                    report.frames.append(found[1])
            elif not report.pointer and not report.frames:
                report.pointer = found[1]
            return True
        if found := _FRAME.fullmatch(text):
            if report.kind in _PLAIN_TRACE_KINDS and not report.is_traced:
                report.is_tracing = report.is_traced = True
            if report.is_tracing and not found[1] and len(report.frames) < MAX_FRAMES:
                report.frames.append(found[2])
            return True
        if report.is_tracing and report.frames and not _IN_TRACE.match(text):
            report.is_tracing = report.idle < 3 and not _ends_trace(text)
        elif report.kind in _PLAIN_TRACE_KINDS and report.frames and not text.strip():
            report.is_tracing = False
        return False

    def _flush_cut(self, caller: str) -> None:
        """``cut here`` was printed and no known report came: it is one all the same."""
        held = self._cut.pop(caller, None)
        if not held:
            return
        number, first = held[0]
        message = next((text.text.strip() for _, text in held[1:] if text.text.strip()), "nothing followed")
        report = _Open(
            SplatKind.WARNING,
            f"report cut off: {clean_title(message)}",
            number,
            first.uptime_s,
            self._case,
            [text.raw[:MAX_LINE] for _, text in held],
            kept=len(held),
        )
        self._keep(report)

    def _close(self, report: _Open) -> None:
        for caller in [caller for caller, other in self._open.items() if other is report]:
            del self._open[caller]
        self._keep(report)

    def _close_all(self) -> None:
        for caller in list(self._cut):
            self._flush_cut(caller)
        while self._open:
            self._close(next(iter(self._open.values())))

    def _keep(self, report: _Open) -> None:
        for caller in [caller for caller, other in self._open.items() if other is report]:
            del self._open[caller]
        if report.kind.is_fault:
            self._last_fault = report.kind
        kept = self._kept.get(report.kind, 0)
        if kept == MAX_SPLATS_PER_KIND:
            self._dropped[report.kind] = self._dropped.get(report.kind, 0) + 1
            return
        self._kept[report.kind] = kept + 1
        self._splats.append(report.close())


def make_fingerprint(kind: SplatKind, frames: tuple[str, ...], title: str) -> str:
    """``kind:func1/func2/func3`` of the innermost functions that mean something; without any, the function
    in the title or its words, numbers left out."""
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
    """The function as written in the source: without what the compiler added."""
    return _SUFFIX.sub("", function)


def clean_title(text: str) -> str:
    """The report's first line without offsets, CPU and PID."""
    text = re.sub(r"WARNING: CPU: \d+ PID: \d+ at", "WARNING at", text.strip())
    text = re.sub(r"\+0x[0-9a-f]+/0x[0-9a-f]+", "", text)
    return text[:MAX_LINE]


def _find_task(text: str) -> str | None:
    found = _TITLE_TASK.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def _ends_trace(text: str) -> bool:
    return bool(_END.match(text) or re.match(r"Modules linked in|Allocated by|Freed by|\S+: |=+$", text))
