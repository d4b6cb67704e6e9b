# SPDX-License-Identifier: GPL-2.0-or-later
"""Fingerprints: the kind of a splat and the functions that are about the fault, on every version.

A fingerprint identifies a bug across boots and builds. It is made of the stack that is about the fault,
without the functions that report faults or that faults of any kind run through.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from orchestrator.parse.splat import SplatKind

MAX_FRAMES = 64

_TITLE_PLACE = re.compile(
    r"\bat \S{1,200}:\d{1,7} ([A-Za-z_]\w{0,200})"
    r"|\bin:? ([a-z_]\w{0,100}_\w{1,100})|\bat (\S{1,200}\.[chS]):\d"
)
_TITLE_START = re.compile(
    r"^\W{0,80}(?:[\w -]{1,40}: ){0,3}?(?:BUG|WARNING|INFO|kmemleak|Kernel panic - not syncing): "
)
_WORD = re.compile(r"[A-Za-z_][A-Za-z_-]{0,60}(?![\w.])")
_NUMBERS = re.compile(r"0x[0-9a-f]{1,16}|\(.{0,1000}|\[.{0,1000}")


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
    names = (
        _name_functions(kind, trace)
        or find_relevant(frames)
        or ([strip_suffix(locked_at)] if locked_at else [])
    )
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
