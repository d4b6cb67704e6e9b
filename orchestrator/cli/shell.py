# SPDX-License-Identifier: GPL-2.0-or-later
"""Connects the user's terminal, or stdin, to a shell in a guest.

On a terminal the shell is interactive; otherwise it runs the commands on stdin.
"""

import contextlib
import os
import select
import shlex
import signal
import termios
import tty
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import paramiko

from orchestrator.errors import StageFailure, UsageError
from orchestrator.guest.connection import GoneReason, Guest
from orchestrator.guest.qemu import Machine
from orchestrator.kernel.symbols import show_source_lines
from orchestrator.parse.console import parse_console
from orchestrator.plan.plan import Job
from orchestrator.run.postmortem import find_ending

_IN, _OUT, _ERR = 0, 1, 2
_BLOCK = 1 << 15
_POLL_S = 0.2
_ROOM_S = 0.01
# of a shell that a signal ended; SSH does not say which
_KILLED = 255
_OPEN_S = 10.0


@dataclass(frozen=True, slots=True)
class Session:
    """The exit status of a shell, and the kernel's splats meanwhile."""

    status: int
    complaints: tuple[str, ...]


def choose_job(jobs: Sequence[Job], series: Sequence[str], target: str = "shell") -> Job:
    """The only job, or the one with the series of the request.

    Raises ``UsageError`` with the command for each of several jobs.
    """
    named = [job for job in jobs if job.series.name in series]
    found = named if named else jobs
    if len(found) == 1:
        return found[0]
    lines = [
        f"{job.name}: cowbell {target} ROW={job.row.name} SERIES={job.series.name or 'none'}" for job in found
    ]
    raise UsageError(
        f"takes one kernel, and {len(found)} match",
        where=target,
        hint="select one:\n  " + "\n  ".join(lines),
    )


def make_greeting(guest: Guest, job: Job) -> str:
    """How the guest was booted, how to run tests, and how to leave, in several lines."""
    machine = guest.machine
    tests = [test.id for test in job.tests]
    return (
        f"{job.row.name}/{job.variant.name}: {machine.kernel.request.source.version} on {machine.accel}, "
        f"booted by {machine.boot}, ready after {guest.ready_s:.1f} s\n"
        f"run a test by its name: {', '.join(tests[:3])}{' ...; ls /work/bin' if tests[3:] else ''}\n"
        f"the kernel log is written to {guest.console}\n"
        "exit or Ctrl-D ends the guest and discards its changes\n"
    )


def make_gdb_line(machine: Machine) -> str:
    """The command that attaches gdb to a guest, with the symbols and the scripts of its kernel."""
    folder = machine.kernel.folder
    gdb = "gdb" if machine.arch.is_native else "gdb-multiarch"
    trust = f"add-auto-load-safe-path {folder}"
    return shlex.join([gdb, "-iex", trust, str(folder / "vmlinux"), "-ex", f"target remote {machine.gdb}"])


def run_shell(guest: Guest) -> Session:
    """Run a shell in the guest on our own stdin, stdout and stderr, until either ends.

    Raises ``StageFailure`` when the guest ends before its shell, ``InfraError`` when that is QEMU's doing.
    """
    is_terminal = os.isatty(_IN) and os.isatty(_OUT)
    line = (
        "cd /work && export HOME=/root PATH=/work/bin:$PATH PYTHONPATH=/work/lib "
        f"GT_TIMEOUT_MUL={guest.machine.time_scale:.0f}"
    )
    transport = guest.ssh.get_transport()
    status: int | None = None
    try:
        if transport is None:
            raise EOFError
        with contextlib.closing(transport.open_session(timeout=_OPEN_S)) as channel:
            if is_terminal:
                columns, lines = os.get_terminal_size(_IN)
                channel.get_pty(os.environ.get("TERM", "vt100"), columns, lines)
                # the shell that can edit its line
                channel.exec_command(f"{line} PS1='guest:\\w # ' && exec busybox sh")
            else:
                channel.exec_command(f"{line} && exec sh")
            with _raw_terminal(channel) if is_terminal else contextlib.nullcontext():
                status = _relay(guest, channel)
    except BrokenPipeError:
        # whoever read our stdout has left
        raise
    except (OSError, EOFError, paramiko.SSHException):
        pass
    # once it is known how the guest ended, its last words are in the log
    ended = find_ending(guest, GoneReason.CONNECTION).how if status is None else ""
    faults = parse_console(guest.console.read_bytes()[guest.ready_at :].decode(errors="replace")).faults
    titles = tuple(dict.fromkeys(splat.title for splat in faults))
    if status is None:
        excerpt = faults[-1].excerpt if faults else ""
        what = "; ".join(titles) or f"the guest ended before its shell did: {ended}"
        hint = show_source_lines(guest.machine.kernel, excerpt)
        raise StageFailure("shell", what, hint=hint, log=guest.console)
    return Session(status, titles)


def _relay(guest: Guest, channel: paramiko.Channel) -> int | None:
    """Pass bytes on in both directions; the shell's status, None when the guest was gone before it."""
    pending = b""
    is_open = True
    while True:
        # the kernel may say as much as it likes while somebody watches
        guest.channels.serial.allow()
        sources = [channel.fileno(), *([_IN] if is_open and not pending else [])]
        # nobody tells when there is room again to send
        ready, _, _ = select.select(sources, [], [], _ROOM_S if pending else _POLL_S)
        while channel.recv_ready():
            _write(_OUT, channel.recv(_BLOCK))
        while channel.recv_stderr_ready():
            _write(_ERR, channel.recv_stderr(_BLOCK))
        if _IN in ready:
            pending = os.read(_IN, _BLOCK)
            if not pending:
                is_open = False
                channel.shutdown_write()
        if pending and channel.send_ready():
            pending = pending[channel.send(pending) :]
        if channel.exit_status_ready() and channel.eof_received and not channel.recv_ready():
            status = channel.recv_exit_status()
            return _KILLED if status < 0 else status
        if channel.closed or guest.process.poll() is not None or guest.has_panicked():
            return None


def _write(target: int, block: bytes) -> None:
    while block:
        block = block[os.write(target, block) :]


@contextlib.contextmanager
def _raw_terminal(channel: paramiko.Channel) -> Iterator[None]:
    """Our terminal without line editing and signals of its own: every key is the guest's."""
    saved = termios.tcgetattr(_IN)

    def resize(*_: object) -> None:
        columns, lines = os.get_terminal_size(_IN)
        with contextlib.suppress(OSError, paramiko.SSHException):
            channel.resize_pty(columns, lines)

    before = signal.signal(signal.SIGWINCH, resize)
    try:
        tty.setraw(_IN)
        yield
    finally:
        signal.signal(signal.SIGWINCH, before)
        termios.tcsetattr(_IN, termios.TCSADRAIN, saved)
