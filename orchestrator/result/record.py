# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of runs as plain data, written after every stage and every test.

A record contains everything that a verdict needs, so verdicts and reports can be made again without a kernel.
"""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, FiniteFloat, TypeAdapter, ValidationError

from orchestrator.errors import UsageError
from orchestrator.status import Status
from orchestrator.store.store import write_json

SCHEMA = 5
# older ones that are read as they are: what they do not say is not known
_READABLE = (4, SCHEMA)
# what SQLite can keep
_Count = Annotated[int, Field(ge=0, lt=1 << 63)]


class Ended(StrEnum):
    """How a test's life in the guest ended: by itself, cut off, or with the guest.

    ``HANG`` means that nothing in the guest answers, ``SSH_LOST`` that its kernel does, ``RESET`` that it
    started again (after a panic, a triple fault, or as it was told), ``FLOOD`` that it said too much to keep.
    """

    EXIT = "exit"
    TIMEOUT = "timeout"
    HANG = "hang"
    RESET = "reset"
    POWER_OFF = "power-off"
    SSH_LOST = "ssh-lost"
    FLOOD = "flood"


@dataclass(frozen=True, slots=True)
class TrialResult:
    """One test as it ran. ``console`` is the kernel's log from the end of the test before to its own end.

    Of a guest's last test it goes on until the guest has ended. ``console_lost`` is how many bytes of it
    were too many to keep. ``exit_status`` is None when the guest was gone before the end was marked, -1 for a
    signal. ``taint`` is ``/proc/sys/kernel/tainted`` before and after, None when it could not be read.
    ``how`` is what showed that the guest was lost, ``said`` what its kernel then said when it was asked,
    ``core`` the file with its memory. ``boot_trouble`` is why the guest had to be booted twice.
    ``trial`` counts from 1 where a test is run again. ``started`` is UTC in ISO 8601, ``console_at`` the byte
    of the boot's console log where ``console`` begins, ``host`` the machine's name; older records do not say.
    """

    test: str
    content_id: str
    ended: Ended
    exit_status: int | None
    stdout: str
    stderr: str
    console: str
    console_lost: int
    taint_before: int | None
    taint_after: int | None
    duration_s: FiniteFloat
    accel: str
    boot: str
    how: str = ""
    said: str = ""
    core: str = ""
    boot_trouble: str = ""
    trial: _Count = 1
    started: str = ""
    console_at: _Count | None = None
    host: str = ""

    @property
    def is_guest_usable(self) -> bool:
        """Whether the next test may run in the same guest."""
        return self.ended is Ended.EXIT


@dataclass(frozen=True, slots=True)
class Expected:
    """What the matrix expects of a test here: an id or glob, a status, and why.

    ``until`` is the last day (ISO 8601) that it holds, ``is_over`` whether that had passed when it was run;
    ``fingerprint`` (or a glob) is that of the crash.
    """

    test: str
    status: Status
    why: str
    until: str = ""
    is_over: bool = False
    fingerprint: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """A complaint of the kernel that is no fault here: its fingerprint, or a glob, and why."""

    fingerprint: str
    why: str


@dataclass(frozen=True, slots=True)
class Sought:
    """The rate (0 to 1) at which a race would fail on a bad kernel, and how that is known.

    ``risk`` (0 to 1) is how probable it may be that a kernel which does so is taken for a good one.
    """

    rate: float
    origin: str
    risk: float = 0.05


@dataclass(frozen=True, slots=True)
class Failure:
    """The stage that ended a job early, and what there is to say about it.

    ``unfinished`` are the tests that were run, and were to be run once more.
    """

    stage: str
    what: str
    where: str
    hint: str
    log: str
    unfinished: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One variant of a row. Fields fill up as stages are done; ``left_out`` says why nothing ran.

    ``origin`` is where ``base``, the tree's own commit, came from. ``commit`` and ``tree_id`` are what was
    built, with ``fixups`` and series.
    ``boot`` is who booted the guests, ``qemu`` for us or ``vng``.
    ``tests`` are the planned ones, each with the names of its subtests, ``races`` those of them that are
    races, ``sought`` what those were repeated for, by subtest. ``known`` are complaints that are no fault.
    ``results`` has the trials of a test in their order. ``readings`` are what the guest was found to be, from
    inside, when its row asks for more than CPUs and memory.
    """

    row: str
    variant: str
    arch: str
    tree: str
    series: str
    tests: Mapping[str, tuple[str, ...]]
    expect: tuple[Expected, ...] = ()
    known: tuple[Known, ...] = ()
    races: tuple[str, ...] = ()
    sought: Mapping[str, Sought] = field(default_factory=dict)
    version: str = ""
    origin: str = ""
    base: str = ""
    fixups: tuple[str, ...] = ()
    commit: str = ""
    tree_id: str = ""
    source_id: str = ""
    config_id: str = ""
    build_id: str = ""
    rootfs_id: str = ""
    accel: str = ""
    boot: str = "qemu"
    readings: Mapping[str, Any] = field(default_factory=dict)
    left_out: str = ""
    failure: Failure | None = None
    results: tuple[TrialResult, ...] = ()


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One call of ``cowbell test``: the command as it can be repeated, and its jobs."""

    run_id: str
    command: str
    started: str
    jobs: tuple[JobRecord, ...]
    schema: int = SCHEMA


# another machine's records come in, too: the type of each value is checked
_RUN = TypeAdapter(RunRecord)
_JOB = TypeAdapter(JobRecord)
_RESULT = TypeAdapter(TrialResult)


def save_run(run: RunRecord, folder: Path) -> Path:
    path = folder / "record.json"
    write_json(path, dataclasses.asdict(run))
    return path


def load_run(path: Path) -> RunRecord:
    """Raises ``UsageError`` when the file is no record of this schema."""
    try:
        fields = json.loads(path.read_bytes())
        if fields.get("schema") not in _READABLE:
            raise UsageError(
                f"has schema {fields.get('schema')}, this cowbell reads {' and '.join(map(str, _READABLE))}",
                where=str(path),
            )
        return _RUN.validate_python(fields, extra="forbid")
    except OSError as error:
        raise UsageError(f"can not be read: {error.strerror}", where=str(path)) from None
    except ValidationError as error:
        wrong = (f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:3])
        raise UsageError(f"is not a run's record: {'; '.join(wrong)}", where=str(path)) from None
    except (ValueError, AttributeError, RecursionError) as error:
        raise UsageError(f"is not a run's record: {error}", where=str(path)) from None


def load_result(path: Path) -> TrialResult | None:
    """A test result of the store; None when there is none, or it is not whole."""
    try:
        return _RESULT.validate_python(json.loads(path.read_bytes()), extra="forbid")
    except (OSError, ValueError, RecursionError):
        return None


def save_result(result: TrialResult, path: Path) -> None:
    write_json(path, dataclasses.asdict(result))


def save_job(job: JobRecord, path: Path) -> None:
    """Whose the results beside it are, for when their run is killed before it has a record."""
    write_json(path, dataclasses.asdict(dataclasses.replace(job, results=())))


def load_job(path: Path) -> JobRecord | None:
    """None when there is none, or it is not whole."""
    try:
        return _JOB.validate_python(json.loads(path.read_bytes()), extra="forbid")
    except (OSError, ValueError, RecursionError):
        return None
