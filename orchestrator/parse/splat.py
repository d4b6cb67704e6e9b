# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables and pure functions for splats: kinds, first and last lines, and fingerprints.

A fingerprint identifies a bug across boots and builds. ``console`` does the parsing. The time per line is
limited: every repeat in a regular expression has an upper bound, and lines are cut before they are matched.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

MAX_LINE = 1000
MAX_FRAMES = 64


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


@dataclass(slots=True)
class Trace:
    """A stack of a report, with the function of the registers that belong to it (RIP, pc)."""

    pointer: str = ""
    frames: list[str] = field(default_factory=list)
    is_indented: bool | None = None

    def add(self, function: str, *, is_indented: bool) -> None:
        """Add a frame, unless it is the rest of one whose line was split: that has no indentation."""
        if is_indented and self.is_indented is False and len(self.frames) == 1:
            self.frames.clear()
        self.is_indented = is_indented if not self.frames else self.is_indented
        if len(self.frames) < MAX_FRAMES and is_indented == self.is_indented:
            self.frames.append(function)

    def on_registers(self, function: str, *, is_stall: bool) -> None:
        """Registers within the trace: the frames before them are of the interrupt or exception that printed
        it, unless those are about the fault."""
        is_interrupted = is_stall and any(_INTERRUPT.fullmatch(frame) for frame in self.frames)
        if not self.pointer and (is_interrupted or not find_relevant(self.frames)):
            self.frames, self.pointer = [function], function

    def list_frames(self) -> tuple[str, ...]:
        """The frames, with the function of the registers if the trace does not begin with it."""
        first = [strip_suffix(name) for name in (*self.frames[:1], *find_relevant(self.frames)[:1])]
        if self.pointer and strip_suffix(self.pointer) not in first:
            return (self.pointer, *self.frames)
        return tuple(self.frames)


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
MESSAGE_FIRST = re.compile(r"refcount_t: |list_\w{1,20} corruption|VFS: ")

# its indentation or address, "? " if it is a guess, and the function
FRAME = re.compile(rf"(\s{{0,48}}{_ADDRESS}?)(\? )?{_ADDRESS}?{_SYMBOL}(?:\s.{{0,300}})?")
POINTER = re.compile(
    rf"(?:RIP: [0-9a-f]{{4}}:|RIP: |IP: |E?IP is at |PC is at |e?pc : ){_ADDRESS}{{0,2}}{_SYMBOL}"
)
_LOCKED_AT = re.compile(rf".{{0,300}}, at: {_ADDRESS}?{_SYMBOL}")
_TITLE_POINTER = re.compile(
    rf"WARNING: .{{0,400}}? at {_SYMBOL}|WARNING: .{{0,400}}:\d{{1,7}} {_SYMBOL}|CFI failure at {_SYMBOL}"
)
_TITLE_PLACE = re.compile(
    r"\bat \S{1,200}:\d{1,7} ([A-Za-z_]\w{0,200})"
    r"|\bin:? ([a-z_]\w{0,100}_\w{1,100})|\bat (\S{1,200}\.[chS]):\d"
)
_TITLE_START = re.compile(
    r"^\W{0,80}(?:[\w -]{1,40}: ){0,3}?(?:BUG|WARNING|INFO|kmemleak|Kernel panic - not syncing): "
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,60}(?![\w.])")
_NUMBERS = re.compile(r"0x[0-9a-f]{1,16}|\(.{0,1000}|\[.{0,1000}")
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
    r"|Tainted: |[A-Z]{1,3}[0-9]{0,2}: |-\[ cut here"
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


def _compile_globs(text: str) -> re.Pattern[str]:
    """A pattern for function names; ``*`` stands for any end, beginning or middle."""
    return re.compile("|".join(word.replace("*", r"\w{0,80}") for word in text.split()))


# functions that report a fault: never about it
_REPORTING = _compile_globs(
    """
    dump_stack dump_stack_lvl show_stack show_regs show_trace* _show_* __show_* dump_backtrace* panic vpanic
    nmi_panic check_panic_on_warn __warn* warn_* report_bug handle_bug fixup_bug die* __die* oops_* print_*
    sched_show_task dump_cpu_task panic_bad_stack handle_bad_stack __bad_stack spin_dump spin_bug rwlock_bug
    fortify_panic __fortify_* usercopy_abort __check_object_size __check_heap_object check_heap_object
    check_stack_object unwind_backtrace walk_stackframe __stack_chk_fail __sanitizer_cov_*

    no_context page_fault_oops bad_area* __bad_area* kernelmode_fixup_or_oops do_user_addr_fault
    do_kern_addr_fault do_page_fault __do_page_fault page_fault async_page_fault exc_* asm_exc_* do_error_trap
    do_trap* do_invalid_op invalid_op error_entry general_protection do_general_protection do_divide_error
    divide_error do_kernel_fault __do_kernel_fault do_translation_fault do_mem_abort do_mem_fault bug_handler
    brk_handler call_break_hook do_debug_exception do_el1_* el1_* el1h_* do_undefinstr arm64_notify_die
    handle_exception nmi_cpu_backtrace* nmi_trigger_* nmi_handle nmi_backtrace* *trigger_*backtrace*
    default_do_nmi do_nmi

    kasan_* _kasan_* __kasan_* __asan_* __hwasan_* check_memory_region kfence_* __kfence_* kcsan_* __tsan_*
    __msan_* kmsan_* ubsan_* __ubsan_* lockdep_* validate_chain check_noncircular check_prev_add
    check_prevs_add check_deadlock check_usage* check_irq_usage check_wait_context check_preemption_disabled
    mark_lock* valid_state mark_held_locks mark_usage lock_acquire __lock_acquire lock_release __lock_release
    might_* __might_* ___might_* debug_check_* debug_print_object debug_object_* debug_smp_processor_id
    __this_cpu_preempt_check

    rcu_sched_clock_irq rcu_pending rcu_stall* rcu_check_callbacks rcu_dump_cpu_stacks* check_cpu_stall
    update_process_times tick_* watchdog_* hrtimer_* __hrtimer_* schedule __schedule __schedule_bug
    schedule_timeout* schedule_preempt_disabled __switch_to preempt_schedule* io_schedule*
    """
)
# functions that faults of any kind run through: about it only if there are no others
_LIBRARY = _compile_globs(
    """
    _raw_spin_* _raw_read_* _raw_write_* __raw_spin_* __raw_read_* __raw_write_* do_raw_* spin_lock*
    spin_unlock* *queued_*_slowpath mutex_lock* mutex_trylock* mutex_unlock* __mutex_lock* __mutex_unlock*
    __ww_mutex_* ww_mutex_* rt_mutex_lock* mutex_optimistic_* mutex_spin_* down_read* down_write*
    down_trylock __down_* rwsem_* osq_lock osq_unlock
    wait_for_completion* wait_for_common __wait_for_common do_wait_for_common __local_bh_*
    local_bh_* refcount_* __refcount_* kref_* __list_add_valid* __list_del_entry_valid* __seqprop_*

    bad_page* dump_page free_pages_check* free_page_is_bad* free_pages_prepare free_pcp_prepare
    check_free_page* free_unref_* __free_one_page free_one_page free_large_kmalloc free_frozen_pages
    __free_frozen_pages free_pages __free_pages* dump_header oom_kill_process out_of_memory alloc_page*
    alloc_frozen_pages* __alloc_page* __alloc_frozen_pages* __get_free_pages get_page_from_freelist
    get_zeroed_page kmalloc* __kmalloc* ___kmalloc* kzalloc* kcalloc* kvmalloc* kvzalloc* __kvmalloc*
    krealloc* kmem_cache_* __kmem_cache_* slab_* __slab_* ___slab_* new_slab allocate_slab cache_grow_begin
    cache_alloc_refill ____cache_alloc* fallback_alloc vmalloc* __vmalloc* kmemdup* kfree kvfree object_err
    slab_err check_bytes_and_report should_fail* __should_fail* fail_dump memcpy* __memcpy* memset* __memset*
    memmove* __memmove* memcmp* strlen strnlen strcmp strncmp strcpy strncpy strscpy strchr strstr strnstr
    string string_nocheck hex_string kstrdup* vsnprintf snprintf kasprintf kvasprintf* _printk printk vprintk*
    console_unlock console_flush*


    ret_from_fork* ret_from_exception kthread worker_thread process_one_work process_scheduled_works entry_*
    do_syscall_* do_int80_* el0_* el0t_* invoke_syscall* do_el0_svc ret_fast_syscall handle_syscall
    do_trap_ecall_u
    """
)
_INTERRUPT = _compile_globs(
    """
    asm_sysvec_* sysvec_* common_interrupt asm_common_interrupt *apic_timer_interrupt* smp_*_interrupt do_irq
    ret_from_intr el1_irq el1h_64_irq* el1_interrupt gic_handle_irq asm_call_irq_on_stack asm_exc_nmi
    end_repeat_nmi nmi riscv_intc_irq handle_riscv_irq
    """
)
# with rcu_gp_kthread, the stacks that a stall prints besides that of the code that stalls
_IDLE = _compile_globs(
    """
    do_idle cpu_startup_entry cpu_idle* default_idle* arch_cpu_idle cpu_do_idle cpuidle_* acpi_idle_*
    acpi_safe_halt native_safe_halt pv_native_safe_halt intel_idle* mwait_idle* *_idle_enter*
    """
)
_SUFFIX = re.compile(r"(?:_noprof|\.(?:constprop|isra|part|cold|llvm|lto_priv)(?:\.\d{1,20}){0,4}){1,6}$")


def find_kind(text: str) -> SplatKind | None:
    """The kind of report that starts with this line; the first matching pattern wins."""
    if not _GATE.search(text):
        return None
    return next((kind for kind, pattern in _REPORT if pattern.match(text)), None)


def find_relevant(frames: Sequence[str], *, with_library: bool = False) -> list[str]:
    """The functions, without suffixes, that may be about the fault."""
    names = [strip_suffix(frame) for frame in frames]
    return [
        name
        for name in names
        if not (_REPORTING.fullmatch(name) or _INTERRUPT.fullmatch(name))
        and (with_library or not _LIBRARY.fullmatch(name))
    ]


def choose_trace(kind: SplatKind, traces: Sequence[Trace]) -> Trace:
    """The first trace that is about the fault; the first one if none is."""

    def is_about_fault(trace: Trace) -> bool:
        names = _name_functions(kind, trace)
        if kind.is_stall and names and ("rcu_gp_kthread" in names or _IDLE.fullmatch(names[0])):
            return False
        return bool(names)

    return next(filter(is_about_fault, traces), traces[0] if traces else Trace())


def _name_functions(kind: SplatKind, trace: Trace) -> list[str]:
    frames = trace.list_frames()
    if kind.is_stall and not trace.pointer:
        inside = [index for index, name in enumerate(frames) if _INTERRUPT.fullmatch(strip_suffix(name))]
        frames = frames[inside[-1] + 1 :] if inside else frames
    return find_relevant(frames)


def make_fingerprint(kind: SplatKind, trace: Trace, title: str, locked_at: str = "") -> str:
    """``kind:func1/func2/func3`` from the innermost relevant functions; without any, from the function or the
    words of the title, without numbers."""
    frames = trace.list_frames()
    names = _name_functions(kind, trace) or find_relevant(frames) or ([locked_at] if locked_at else [])
    names = names or find_relevant(frames, with_library=True)
    if not names and trace.pointer:
        names = [strip_suffix(trace.pointer)]
    if not names and (found := _TITLE_PLACE.search(title)):
        names = [next(group for group in found.groups() if group)]
    if not names:
        text = _TITLE_START.sub("", title)
        words = _WORD.findall(_NUMBERS.sub("", text))
        names = ["_".join(words[:5]) or "unknown"]
    return f"{kind}:{'/'.join(names[:3])}"


def strip_suffix(function: str) -> str:
    """The function name without suffixes of the compiler."""
    return _SUFFIX.sub("", function)


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
        return strip_suffix(found[1])
    return strip_suffix(found[3]) if (found := FRAME.fullmatch(text)) else ""


def find_task(text: str) -> str | None:
    found = _TITLE_TASK.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def is_of_stack(text: str) -> bool:
    """Whether a line is one of those around a stack, and says nothing about its reason."""
    return bool(OF_REPORT.match(text) or FRAME.fullmatch(text))
