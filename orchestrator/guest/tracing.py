# SPDX-License-Identifier: GPL-2.0-or-later
"""Records a trace in a guest while one test runs (``TRACE=``), with the ftrace of its kernel.

Everything is set up before each test and switched off after it. The buffer of the kernel keeps the newest
events. They are not printed to the console when the kernel crashes: this takes longer than a guest has after
a panic, and floods the kernel log.
"""

import base64
import binascii
import re
import shlex
import zlib
from pathlib import Path

from orchestrator.errors import StageFailure
from orchestrator.guest.connection import CommandResult, GoneReason, Guest, GuestGone
from orchestrator.guest.qemu import Machine
from orchestrator.parse.printk import make_printable
from orchestrator.project.trace import TraceRequest
from orchestrator.store.store import write_atomic

# the buffers of all CPUs together, and the text that is kept of them
_BUFFER_KIB = 2048
TEXT_LIMIT = 2 << 20
# native seconds to set up and to read; function_graph makes the kernel patch all of its functions
_SET_UP_S, _READ_S = 10.0, 20.0
# beside the trace, how much of it the kernel has lost
_STATS = re.compile(r"^(overrun|dropped events): (\d+)$", re.M)
_FOLDER = "/sys/kernel/tracing"
_FILE = "/run/cowbell-trace"
# true, as a shell ends where : cannot redirect
_OFF = """echo 0 > tracing_on
echo nop > current_tracer
for file in set_event set_ftrace_filter set_graph_function; do [ ! -e $file ] || true > $file; done
[ ! -e events/cowbell ] || echo 0 > events/cowbell/enable
[ ! -e kprobe_events ] || true > kprobe_events
"""


def make_start(trace: TraceRequest, cpus: int) -> str:
    """The shell script that starts to record; if the kernel cannot, it says why on stderr."""
    filter_file = "set_graph_function" if trace.tracer == "function_graph" else "set_ftrace_filter"
    named = [(name, filter_file, f"does not trace the function {name}") for name in trace.functions]
    events = [(name, "set_event", f"has no event {name}") for name in trace.events]
    kprobes = [(line, "kprobe_events", f"does not take the kprobe {line}") for line in trace.kprobes]
    tracers = [trace.tracer] if trace.tracer else []
    lines = [
        'fail() { echo "$1" >&2; exit 1; }',
        'put() { { echo "$1" >> "$2"; } 2> /dev/null || fail "$3"; }',
        f"[ -e {_FOLDER}/tracing_on ] || mount -t tracefs tracefs {_FOLDER} 2> /dev/null",
        _need(f"cd {_FOLDER} 2> /dev/null && [ -e tracing_on ]", "CONFIG_FTRACE"),
        _OFF,
        f"echo {max(64, _BUFFER_KIB // cpus)} > buffer_size_kb",
        *(
            _need(f"grep -qw {tracer} available_tracers", f"CONFIG_{tracer.upper()}_TRACER")
            for tracer in tracers
        ),
        *(f"put {shlex.join(step)}" for step in (*named, *events)),
        *(f"put {tracer} current_tracer 'cannot start its {tracer} tracer'" for tracer in tracers),
        *([_need("[ -e kprobe_events ]", "CONFIG_KPROBE_EVENTS")] if kprobes else []),
        *(f"put {shlex.join(step)}" for step in kprobes),
        *(["put 1 events/cowbell/enable 'cannot enable the kprobes'"] if kprobes else []),
        # time stamps as in the kernel log
        "{ echo funcgraph-abstime; echo funcgraph-proc; } > trace_options 2> /dev/null",
        "true > trace",
        "echo 1 > tracing_on",
    ]
    return "\n".join(lines)


def _need(check: str, symbol: str) -> str:
    return f"{check} || fail 'lacks {symbol}'"


def make_stop() -> str:
    """The shell script that stops, and prints the size of the trace, its losses, and its end, packed."""
    return "\n".join(
        [
            f"cd {_FOLDER} && echo 0 > tracing_on && cat trace > {_FILE} || exit 1",
            f"wc -c < {_FILE}",
            "cat per_cpu/cpu*/stats",
            "echo",
            f"tail -c {TEXT_LIMIT} {_FILE} | gzip | base64",
            f"rm {_FILE}",
            _OFF,
            "true",
        ]
    )


def start_trace(guest: Guest) -> None:
    """Start to record what the machine's ``trace`` names, if anything.

    Raises ``StageFailure`` if the kernel cannot, which is no failure of the kernel, and ``GuestGone``.
    """
    machine = guest.machine
    if not machine.trace.is_on:
        return
    deadline = guest.deadline(_SET_UP_S)
    try:
        answer = guest.run(make_start(machine.trace, machine.shape.cpus), deadline)
    except GuestGone as gone:
        if gone.reason is not GoneReason.TIMEOUT:
            raise
        answer = CommandResult(1, "", f"does not start it within {deadline.allowed_s:.0f} s")
    if answer.status:
        lines = make_printable(answer.stderr.strip() or f"ended the shell with {answer.status}").splitlines()
        version = machine.kernel.request.source.version
        raise StageFailure(
            "setup",
            f"cannot record the trace: kernel {version} {lines[-1]}",
            where="TRACE",
            hint="available_filter_functions and available_events in /sys/kernel/tracing of a guest list the "
            "names: cowbell shell CONFIG+=trace\n  an image that was built elsewhere has what its config has",
        )


def keep_trace(guest: Guest, path: Path) -> str:
    """Stop, and write the trace to a file; returns its path, or ``none:`` with the reason.

    Raises ``GuestGone`` if the guest is lost.
    """
    if not guest.machine.trace.is_on:
        return ""
    try:
        answer = guest.run(make_stop(), guest.deadline(_READ_S))
        if answer.status:
            raise ValueError(answer.stderr.strip() or f"the shell ended with status {answer.status}")
        text = unpack_trace(answer.stdout)
    except GuestGone as gone:
        if gone.reason is not GoneReason.TIMEOUT:
            raise
        return f"none: {gone} while it was read"
    except (ValueError, binascii.Error, zlib.error) as error:
        return make_printable(f"none: it could not be read: {error}")
    write_atomic(path, text)
    return str(path)


def unpack_trace(output: str) -> str:
    """The text of a trace from the output of ``make_stop``, after a line that says what is lost.

    Raises ``ValueError``, or those of its decoders.
    """
    head, _, packed = output.partition("\n\n")
    size_text, _, stats = head.partition("\n")
    unpacker = zlib.decompressobj(wbits=31)
    text = unpacker.decompress(base64.b64decode(packed), TEXT_LIMIT)
    if not unpacker.eof:
        raise ValueError("it is incomplete")
    lost = sum(int(number) for _, number in _STATS.findall(stats))
    cut = max(0, int(size_text) - len(text))
    if cut:
        # not from the middle of a line
        text = text.partition(b"\n")[2]
    losses = [f"{lost} older events"] if lost else []
    losses += [f"{cut} bytes of the older text"] if cut else []
    first = f"# cowbell: lost: {' and '.join(losses) or 'nothing'}\n"
    return first + text.decode(errors="replace")


def explain_lost(machine: Machine) -> str:
    """Why there is no trace of a guest that was lost; empty if none was recorded."""
    return "none: it was lost with the guest; VMCORE=1 keeps its memory" if machine.trace.is_on else ""
