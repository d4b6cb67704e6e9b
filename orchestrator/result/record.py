# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of runs as plain data, written after every stage and every test.

A record contains everything that a verdict needs, so verdicts and reports can be made again without a kernel.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError
from pydantic_core import from_json

from orchestrator.errors import UsageError
from orchestrator.parse.console import ConsoleLog, parse_console
from orchestrator.parse.ktap import Ktap, parse_ktap
from orchestrator.parse.printk import make_printable
from orchestrator.status import Status
from orchestrator.store.name import check_name
from orchestrator.store.store import make_id, write_json

SCHEMA = 6
# the integers that SQLite can store
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


def _check_test(text: str) -> str:
    # the kernel's selftests are in folders
    for part in text.split("/"):
        check_name(part)
    return text


def _check_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("expected one line of text")
    return text


def _check_id(text: str) -> str:
    return text and check_name(text)


# records may come from other machines: names and ids become paths, and texts are printed
_Name = Annotated[str, AfterValidator(check_name)]
_TestId = Annotated[str, AfterValidator(_check_test)]
_Id = Annotated[str, AfterValidator(_check_id)]
_Line = Annotated[str, AfterValidator(_check_line)]
_Text = Annotated[str, AfterValidator(make_printable)]


class Ended(StrEnum):
    """How a test ended: by itself, by its time limit, or because the guest was lost.

    ``HANG``: nothing in the guest answers. ``SSH_LOST``: only its kernel answers. ``RESET``: it rebooted
    (after a panic, a triple fault, or on request). ``FLOOD``: its console output exceeded the limit.
    """

    EXIT = "exit"
    TIMEOUT = "timeout"
    HANG = "hang"
    RESET = "reset"
    POWER_OFF = "power-off"
    SSH_LOST = "ssh-lost"
    FLOOD = "flood"


@dataclass(frozen=True, slots=True)
class ProgramEnd:
    """How a program ended that does not use our library.

    ``status`` is its exit status, ``signal`` the signal that killed it, ``running_s`` the seconds after which
    it was killed because it still ran. With ``forever_s``, the native seconds that it has to run at least, it
    was expected to. ``lacks`` is the requirement because of which it was not started, ``problem`` why it
    could not be. All others are None, empty or 0.
    """

    status: Annotated[int, Field(ge=0, le=255)] | None = None
    signal: _Line = ""
    running_s: FiniteFloat = 0.0
    forever_s: FiniteFloat = 0.0
    lacks: _Line = ""
    problem: _Line = ""


@dataclass(frozen=True)
class TrialResult:
    """One trial of a test. ``console`` is the kernel log from the end of the previous test to its own end.

    For the last test of a guest it includes the shutdown. ``console_lost`` is the number of bytes beyond the
    limit. ``exit_status`` is None if the guest was lost before the end marker, -1 for a signal. ``taint`` is
    ``/proc/sys/kernel/tainted`` before and after, None if it could not be read. If the guest was lost,
    ``how`` is the evidence, ``said`` the output of the hang diagnostics, and ``core`` the file with its
    memory. ``boot_trouble`` is why the guest had to be booted twice. ``trial`` counts from 1. ``started`` is
    UTC in ISO 8601, ``console_at`` the offset of ``console`` in the console log of the boot, ``host`` the
    name of the machine, ``waited_s`` how long the host kept the guest waiting for a CPU, ``unusable`` why no
    other test could run in the guest afterwards, ``program_end`` how a program ended that does not use our
    library; older records lack these. ``source_lines`` has the FILE:LINE of places in ``console`` and
    ``said``, with ``DEBUG=1``. ``trace`` is the file of the trace, with ``TRACE=``, or the reason
    why there is none.
    """

    test: _TestId
    content_id: _Name
    ended: Ended
    exit_status: int | None
    stdout: str
    stderr: str
    console: str
    console_lost: int
    taint_before: int | None
    taint_after: int | None
    duration_s: FiniteFloat
    accel: _Id
    boot: _Name
    how: _Text = ""
    said: str = ""
    core: _Text = ""
    boot_trouble: _Text = ""
    trial: _Count = 1
    started: _Text = ""
    console_at: _Count | None = None
    host: _Text = ""
    waited_s: FiniteFloat = 0.0
    unusable: _Text = ""
    source_lines: Mapping[_Text, _Text] = field(default_factory=dict)
    program_end: ProgramEnd | None = None
    trace: _Text = ""

    @cached_property
    def log(self) -> ConsoleLog:
        """The ``console``, which is parsed once for all verdicts and reports."""
        return parse_console(self.console)

    @cached_property
    def ktap(self) -> Ktap:
        """The parsed ``stdout`` of a test that uses our library."""
        return parse_ktap(self.stdout)

    @cached_property
    def foreign_ktap(self) -> Ktap:
        """The parsed ``stdout`` of another program."""
        return parse_ktap(self.stdout, is_foreign=True)

    @property
    def is_guest_usable(self) -> bool:
        """Whether the guest can run another test."""
        return self.ended is Ended.EXIT and not self.unusable


@dataclass(frozen=True, slots=True)
class Expected:
    """An expectation for a test of this job: an id or glob, a status, and the reason.

    ``until`` is the last day (ISO 8601) on which it holds, ``is_over`` whether it had passed at the time of
    the run. ``fingerprint`` is that of the crash, or a glob.
    """

    test: _Text
    status: Status
    why: _Text
    until: _Text = ""
    is_over: bool = False
    fingerprint: _Text = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A known issue: the fingerprint of a splat, or a glob, and the reason."""

    fingerprint: _Text
    why: _Text


@dataclass(frozen=True, slots=True)
class TargetRate:
    """The rate (0 to 1) at which a race fails on a bad kernel, and the origin of that number.

    ``risk`` (0 to 1) is the accepted probability that such a kernel passes.
    """

    rate: float
    origin: _Text
    risk: float = 0.05


@dataclass(frozen=True, slots=True)
class Failure:
    """The stage that ended a job early, and the error.

    ``unfinished`` are the tests for which another trial was planned.
    """

    stage: _Text
    what: _Text
    where: _Text
    hint: _Text
    log: _Text
    unfinished: tuple[_Text, ...] = ()


@dataclass(frozen=True, slots=True)
class LocalFile:
    """The file of a test that the command line named by its path: its text, empty for a binary.

    ``arguments`` are those of the command line. A folder has ``parts``, whose paths are relative to it.
    """

    path: _Text
    sha256: _Id
    text: str = ""
    arguments: tuple[_Text, ...] = ()
    parts: tuple["LocalFile", ...] = ()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One variant of a row. Fields are filled as stages end; ``left_out`` says why nothing ran.

    ``base`` is the commit of the tree and ``origin`` where it came from; ``commit`` and ``tree_id`` are those
    of the built source, with ``fixups`` and series. ``boot`` is ``qemu`` or ``vng``.
    ``tests`` are the planned tests with the names of their subtests, ``summaries`` what each of them checks,
    ``named`` those that the row lists by name and not by a pattern, ``races`` the races among them, ``files``
    the files of those that the command line named by their path,
    ``target_rates`` the rates for which they were repeated, by subtest. ``known`` are the known issues.
    ``results`` has the trials of a test in order. ``guest_setup`` is the verified state of the guest, if its
    row requests more than CPUs and memory.
    """

    row: _Name
    variant: _Name
    arch: _Id
    tree: _Text
    series: _Text
    tests: Mapping[_TestId, tuple[_Line, ...]]
    summaries: Mapping[_TestId, _Text] = field(default_factory=dict)
    expect: tuple[Expected, ...] = ()
    known: tuple[Known, ...] = ()
    races: tuple[_Text, ...] = ()
    named: tuple[_Text, ...] = ()
    files: Mapping[_TestId, LocalFile] = field(default_factory=dict)
    target_rates: Mapping[_Text, TargetRate] = field(default_factory=dict)
    version: _Text = ""
    origin: _Text = ""
    base: _Id = ""
    fixups: tuple[_Text, ...] = ()
    commit: _Id = ""
    tree_id: _Id = ""
    source_id: _Id = ""
    config_id: _Id = ""
    build_id: _Id = ""
    rootfs_id: _Id = ""
    accel: _Text = ""
    boot: _Id = "qemu"
    guest_setup: Mapping[str, Any] = field(default_factory=dict)
    left_out: _Text = ""
    failure: Failure | None = None
    results: tuple[TrialResult, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One call of ``cowbell test``: the command as it can be repeated, and its jobs."""

    run_id: _Name
    command: _Text
    started: _Text
    jobs: tuple[JobRecord, ...]
    schema: int = SCHEMA


def make_run_id(jobs: Sequence[JobRecord]) -> str:
    """A run is named by its first row and by all that is in it."""
    return f"{jobs[0].row[:48] if jobs else 'empty'}-{make_id([dataclasses.asdict(job) for job in jobs])}"


# check the type of each value, as records of other machines are imported
_RUN = TypeAdapter(RunRecord)
_JOB = TypeAdapter(JobRecord)
_RESULT = TypeAdapter(TrialResult)
_PROGRAM_END = TypeAdapter(ProgramEnd)


def save_run(run: RunRecord, folder: Path) -> Path:
    path = folder / "record.json"
    write_json(path, dataclasses.asdict(run))
    return path


def load_run(path: Path) -> RunRecord:
    """Raises ``UsageError`` if the file is not a record of this schema."""
    try:
        fields = from_json(path.read_bytes())
        if fields.get("schema") != SCHEMA:
            raise UsageError(
                f"has schema {fields.get('schema')}, this version of cowbell reads schema {SCHEMA}",
                where=str(path),
                hint="run the tests again",
            )
        return _RUN.validate_python(fields, extra="forbid")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise UsageError(f"is not the record of a run: {'; '.join(wrong)}", where=str(path)) from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"is not the record of a run: {error}", where=str(path)) from None


def load_result(path: Path) -> TrialResult | None:
    """A test result of the store; None if there is none or it is incomplete."""
    try:
        return _RESULT.validate_python(from_json(path.read_bytes()), extra="forbid")
    except (OSError, ValueError, RecursionError):
        return None


def parse_program_end(text: str) -> ProgramEnd | None:
    """What the supervisor in the guest has written; None if it is incomplete."""
    try:
        return _PROGRAM_END.validate_python(from_json(text), extra="forbid")
    except (ValueError, RecursionError):
        return None


def save_result(result: TrialResult, path: Path) -> None:
    write_json(path, dataclasses.asdict(result))


def save_job(job: JobRecord, path: Path) -> None:
    """Save a job beside its results, in case the run is killed before it has a record."""
    write_json(path, dataclasses.asdict(dataclasses.replace(job, results=())))


def load_job(path: Path) -> JobRecord | None:
    """The job of a folder of results; None if there is none or it is incomplete."""
    try:
        return _JOB.validate_python(from_json(path.read_bytes()), extra="forbid")
    except (OSError, ValueError, RecursionError):
        return None
