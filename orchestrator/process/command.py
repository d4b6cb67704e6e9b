# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs external programs; no other module starts any.

A command is an argument list, run in a folder with a deadline; the result includes its CPU time. A child runs
in its own session without standard input, dies with this process (parent-death signal), and its process group
is killed when the caller leaves early. Nothing here interprets the output of a command.
"""

import contextlib
import os
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from orchestrator.errors import InfraError, MissingToolError
from orchestrator.process.packages import make_install_command

TAIL_LINES = 20
_LINE_LIMIT = 1 << 14
MORE_SPACE = "free some space, or set COWBELL_STORE to a folder on another disk"
GRACE_S = 2.0
_HOST_ERRORS = (
    ("No space left on device", "no space left on device", MORE_SPACE),
    ("Killed signal terminated program", "the compiler was killed", "is the host out of memory?"),
    ("Cannot allocate memory", "the host is out of memory", ""),
)
# the variables that a child inherits: ARCH or MAKEFLAGS of a caller must not affect the build
_INHERITED = re.compile(r"PATH|HOME|USER|TMPDIR|CCACHE_\w+|\w+_proxy|\w+_PROXY|SSL_CERT_\w+")

_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

Process = subprocess.Popen[bytes]


def _ignore(line: str) -> None:
    pass


# called with every command line
on_command: Callable[[str], None] = _ignore


def _never_waited() -> float:
    return 0.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time (``time.monotonic`` seconds) that is passed down instead of nested timeouts.

    It is put off by the growth of ``waited()``: seconds that somebody else is to blame for.
    """

    at: float
    allowed_s: float
    waited: Callable[[], float] = _never_waited

    @classmethod
    def after(cls, seconds: float, waited: Callable[[], float] = _never_waited) -> "Deadline":
        return cls(time.monotonic() + seconds - waited(), seconds, waited)

    def remaining_s(self) -> float:
        return max(0.0, self.at + self.waited() - time.monotonic())

    @property
    def is_over(self) -> bool:
        return self.remaining_s() == 0.0


def read_wait_s(pid: int) -> float:
    """How long a process was ready to run but had no CPU: of its threads, that which waited longest.

    Source: the kernel's Documentation/scheduler/sched-stats.rst, "/proc/<pid>/schedstat".
    """
    waits = [0.0]
    for path in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            waits.append(int(path.read_text().split()[1]) / 1e9)
    return max(waits)


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that has ended. ``output`` has only the last lines if there is a log."""

    argv: tuple[str, ...]
    returncode: int
    output: str
    wall_s: float
    cpu_s: float
    log: Path | None = None

    @property
    def line(self) -> str:
        """The command, quoted for a shell."""
        return shlex.join(self.argv)


def make_failure(done: Completed) -> InfraError:
    """The error of a command that failed, with its last lines."""
    tail = done.output.splitlines()[-TAIL_LINES:]
    return find_host_error(done, tail) or InfraError(
        f"{Path(done.argv[0]).name} ended with status {done.returncode}",
        hint=f"{done.line}\n" + _indent(tail),
        log=done.log,
    )


def find_host_error(done: Completed, lines: Sequence[str]) -> InfraError | None:
    """The infrastructure error that caused a failure, if any: a full disk, no memory, a signal."""
    name = Path(done.argv[0]).name
    for words, what, hint in _HOST_ERRORS:
        if any(words in line for line in lines):
            return InfraError(f"{what} ({name})", hint=hint, log=done.log)
    if done.returncode < 0:
        return InfraError(f"{name} was killed by signal {-done.returncode}", hint=done.line, log=done.log)
    return None


def find_path() -> str:
    """PATH, and where Debian has depmod and resize2fs, which are not in the PATH of its users."""
    there = os.environ.get("PATH", os.defpath).split(os.pathsep)
    return os.pathsep.join([*there, *(place for place in _SBIN if place not in there)])


def find_tool(name: str, package: str) -> str:
    """The absolute path of a program; raises ``MissingToolError`` if it is missing.

    ``package`` are the packages of Debian 12 that have it.
    """
    path = shutil.which(name, path=find_path())
    if path is None:
        packages = package.split()
        raise MissingToolError(f"{name} is not installed", packages, hint=make_install_command(packages))
    return path


def is_installed(name: str) -> bool:
    return shutil.which(name, path=find_path()) is not None


def run(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    deadline: Deadline | None = None,
    log: Path | None = None,
    stdin: bytes | None = None,
    on_line: Callable[[str], None] | None = None,
    check: bool = True,
    pass_fds: Sequence[int] = (),
) -> Completed:
    """Run a command to its end and return its output (stdout and stderr together, UTF-8 with replacement).

    ``env`` is added to the environment. With ``log``, all output goes to the log and only the tail is kept.
    Raises ``InfraError`` with the tail if the command cannot be started, exceeds ``deadline``, or (``check``)
    fails.
    """
    before = _children_cpu_s()
    began = time.monotonic()
    kept: list[str] = []
    with contextlib.ExitStack() as stack:
        # unbuffered, so that the log can be watched and is complete after a kill
        sink = stack.enter_context(log.open("ab", buffering=0)) if log else None
        process = stack.enter_context(start(argv, cwd=cwd, env=env, stdin=stdin, pass_fds=pass_fds))
        assert process.stdout
        for line in _read_lines(process.stdout, deadline, sink):
            kept.append(line)
            if sink and len(kept) > TAIL_LINES:
                del kept[0]
            if on_line:
                on_line(line)
        try:
            returncode = process.wait(deadline.remaining_s() if deadline else None)
        except subprocess.TimeoutExpired:
            raise InfraError(
                f"{Path(argv[0]).name} did not end within {deadline.allowed_s if deadline else 0:.0f} s",
                hint=f"{shlex.join(argv)}\n" + _indent(kept),
                log=log,
            ) from None
    done = Completed(
        tuple(argv),
        returncode,
        "\n".join(kept),
        time.monotonic() - began,
        _children_cpu_s() - before,
        log,
    )
    if check and returncode != 0:
        raise make_failure(done)
    return done


@contextlib.contextmanager
def start(
    argv: Sequence[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    output: Path | None = None,
    death_signal: str = "TERM",
    pass_fds: Sequence[int] = (),
) -> Iterator[Process]:
    """Start a command; at the end of the block, end its process group: SIGTERM, two seconds, SIGKILL.

    ``death_signal`` is sent to the command if this process dies: TERM lets make remove half-written targets,
    KILL also ends a QEMU that is stopped or stuck. ``output`` receives stdout and stderr instead of a pipe.
    ``pass_fds`` are file descriptors that it inherits under the same numbers.
    """
    with contextlib.ExitStack() as stack:
        on_command(shlex.join(argv))
        target = stack.enter_context(output.open("ab")) if output else subprocess.PIPE
        source = subprocess.DEVNULL if stdin is None else stack.enter_context(_file_of(stdin))
        try:
            process = subprocess.Popen(
                [find_tool("setpriv", "util-linux"), f"--pdeathsig={death_signal}", "--", *argv],
                cwd=cwd,
                env=make_env(env),
                stdin=source,
                stdout=target,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=pass_fds,
            )
        except OSError as error:
            raise InfraError(
                f"{argv[0]} cannot be started: {error.strerror}", where=str(cwd or "")
            ) from error
        try:
            yield process
        finally:
            end_group(process)
            if process.stdout:
                process.stdout.close()


def make_env(added: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of a child: a few inherited variables, the C locale, and ``added``."""
    kept = {name: value for name, value in os.environ.items() if _INHERITED.fullmatch(name)}
    return kept | {"PATH": find_path(), "LC_ALL": "C"} | dict(added or {})


def wait(process: Process, seconds: float) -> bool:
    """Wait for a process; returns whether it ended within ``seconds``."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def is_stopped(process: Process) -> bool:
    """Whether a process is stopped by a signal."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] in "Tt"
    return False


def end_group(process: Process) -> None:
    """End a process and its process group; returns when the process is reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    wait(process, GRACE_S)
    # even if the leader has ended: its children may ignore SIGTERM
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _read_lines(pipe: IO[bytes], deadline: Deadline | None, sink: IO[bytes] | None) -> Iterator[str]:
    """Yield lines until end of file or the deadline."""
    rest = b""
    while not (deadline and deadline.is_over):
        ready, _, _ = select.select([pipe], [], [], deadline.remaining_s() if deadline else None)
        if not ready:
            continue
        block = os.read(pipe.fileno(), 1 << 16)
        if sink:
            sink.write(block)
        if not block:
            break
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > _LINE_LIMIT:
            lines, rest = [*lines, rest], b""
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


@contextlib.contextmanager
def _file_of(data: bytes) -> Iterator[IO[bytes]]:
    descriptor = os.memfd_create("stdin")
    with os.fdopen(descriptor, "w+b") as file:
        file.write(data)
        file.seek(0)
        yield file


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def _indent(lines: Sequence[str]) -> str:
    return "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
