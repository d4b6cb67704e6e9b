# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs tests in guests and collects their results; verdicts are made elsewhere.

The compiled tests are copied to the guest once per boot. Around each test, markers are written to the kernel
log and the taint is read. A guest that crashed, hung, became unusable, or ran a test after which
``may_share_guest`` is false is replaced for the remaining tests. Messages of a kernel while its guest is shut
down are attributed to the last test.
"""

import contextlib
import datetime
import io
import json
import platform
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.guest.boot import boot_guest, unpack_archive
from orchestrator.guest.connection import CommandResult, GoneReason, Guest, GuestGone
from orchestrator.guest.qemu import Machine
from orchestrator.guest.snapshot import Snapshot, save_snapshot
from orchestrator.guest.tracing import explain_lost, keep_trace, start_trace
from orchestrator.kernel.guestmodules import PROGRAMS
from orchestrator.kernel.symbols import find_source_lines
from orchestrator.process.progress import Progress
from orchestrator.project.guesttest import PROGRAM, SELFTEST, GuestTest, find_imports
from orchestrator.project.selftest import RUNNER
from orchestrator.result.record import Ended, ProgramEnd, TrialResult, parse_program_end
from orchestrator.result.stored import keep_result, name_trace
from orchestrator.run.compile import START, Program
from orchestrator.run.postmortem import Ending, end_guest, find_ending
from orchestrator.store.store import own_folder, try_unowned

# extra time for a test to end by itself after its limit, native seconds
_GRACE_S = 2.0
# the same for a program: all that it has started has to be killed
_PROGRAM_GRACE_S = 10.0
_CONSOLE_LIMIT = 1 << 18
# the languages of tests that the supervisor runs
_SUPERVISED = (PROGRAM, SELFTEST)
# where the supervisor says how the program ended
_PROGRAM_END = "/work/program-end"
# what every test needs of its guest, as far as it is quick to find out
_IS_USABLE = "python3 -V > /dev/null && ls /work > /dev/null && : > /work/usable"


def may_share_guest(done: GuestTest, following: GuestTest) -> bool:
    """Whether a test may run in the guest in which another one, or an earlier trial of it, has run.

    A test that may crash has each guest to itself. One that is not built in may have replaced what the next
    test consists of, such as python3, and so can decide its result.
    """
    if done.may_crash or following.may_crash:
        return False
    return done.is_built_in or done.id == following.id


def _once(result: TrialResult) -> bool:
    return False


def run_tests(
    machine: Machine,
    programs: Sequence[Program],
    lib_dir: Path,
    folder: Path,
    progress: Progress,
    is_wanted_again: Callable[[TrialResult], bool] = _once,
) -> Iterator[TrialResult]:
    """Run all programs, in a new guest where needed, and yield each result when it is complete.

    A result is saved in ``folder`` before anything else is done. A test is repeated as long as
    ``is_wanted_again`` is true for its last result. Raises ``StageFailure`` if a guest does not boot and
    ``InfraError`` if QEMU is killed; saved results remain valid.
    """
    remove_stale_images(folder)
    pending = list(programs)
    saved: Snapshot | None = None
    with contextlib.ExitStack() as stack:
        while pending:
            boot_dir = make_boot_dir(folder)
            progress.stage("boot", f"{machine.kernel.request.source.version} on {machine.accel}")
            starting = (
                boot_guest(machine, boot_dir, saved)
                if saved
                else boot_with_tests(machine, boot_dir, pending, lib_dir)
            )
            with starting as guest:
                if guest.trouble:
                    progress.note(guest.trouble)
                progress.stage("run", f"{len(pending)} test(s)")
                # the next guest starts from this snapshot
                if not saved and (len(pending) > 1 or is_wanted_again is not _once):
                    compile_imports(guest, pending)
                    place = Path(
                        stack.enter_context(tempfile.TemporaryDirectory(prefix="saved-", dir=folder))
                    )
                    stack.enter_context(own_folder(place))
                    saved = save_snapshot(guest, place)
                yield from _run_in_guest(guest, pending, folder, progress, is_wanted_again)


def _run_in_guest(
    guest: Guest,
    pending: list[Program],
    folder: Path,
    progress: Progress,
    is_wanted_again: Callable[[TrialResult], bool],
) -> Iterator[TrialResult]:
    """Run the tests that can share one guest, and remove them from ``pending``."""
    read_to, count = guest.ready_at, len(pending)
    while pending:
        progress.count(max(0, count - len(pending)), count, "tests")
        program = pending.pop(0)
        result, read_to = run_test(guest, program, read_to)
        result = _add_source_lines(result, guest)
        keep_result(folder, result)
        if result.trace:
            progress.note(f"trace of {program.test.id}: {result.trace}")
        if result.unusable:
            progress.note(f"{program.test.id} left its guest unusable: {result.unusable}; it is replaced")
        if is_wanted_again(result):
            pending.insert(0, replace(program, trial=program.trial + 1))
        if result.is_guest_usable and pending and may_share_guest(program.test, pending[0].test):
            yield result
            continue
        if result.ended is Ended.EXIT:
            end_guest(guest)
            console, lost = _read_console(guest, read_to, guest.console.stat().st_size)
            result = replace(
                result, console=result.console + console, console_lost=result.console_lost + lost
            )
            result = _add_source_lines(result, guest)
            keep_result(folder, result)
        yield result
        return


def _add_source_lines(result: TrialResult, guest: Guest) -> TrialResult:
    """While the kernel is there, so that reports can be made again without it."""
    log = f"{result.console}\n{result.said}"
    return replace(result, source_lines=find_source_lines(guest.machine.kernel, log))


def remove_stale_images(folder: Path) -> None:
    """Remove the images and keys of killed runs, but not those that another process uses."""
    large = [path for name in ("*.qcow2", "keys.tar") for path in folder.glob(f"boot-*/{name}")]
    for path in [*large, *folder.glob("saved-*")]:
        with try_unowned(path.parent if path in large else path) as is_free:
            if is_free and path in large:
                path.unlink(missing_ok=True)
            elif is_free:
                shutil.rmtree(path, ignore_errors=True)


def make_boot_dir(folder: Path) -> Path:
    """A new folder for the files of one boot."""
    folder.mkdir(parents=True, exist_ok=True)
    while True:
        numbers = [int(path.name.removeprefix("boot-")) for path in folder.glob("boot-*")]
        place = folder / f"boot-{max(numbers, default=0) + 1}"
        with contextlib.suppress(FileExistsError):
            place.mkdir()
            return place


def make_test_line(test: GuestTest, scale: float, wrap: Callable[[str], str] = str) -> str:
    """The shell command that runs a test in the guest, with scaled time limits.

    ``wrap`` changes the part that starts the program itself.
    """
    if test.language in _SUPERVISED:
        start = _make_program_line(test, scale)
        if test.language == SELFTEST:
            # some need a file system with fallocate
            start = f"mount -t tmpfs tmpfs /tmp && {start}"
        return f"rm -rf /work/tmp {_PROGRAM_END}; mkdir -p /work/tmp && cd /work/tmp && {wrap(start)}"
    how = f"python3 -B ../tests/{test.id}" if test.language == "python" else f"../tests/{test.id}"
    libs = "/work/own-lib:/work/lib" if test.own_lib else "/work/lib"
    start = f"PYTHONPATH={libs} GT_ID={test.id} GT_TIMEOUT_MUL={scale:.0f} exec {how}"
    return f"rm -rf /work/tmp; mkdir -p /work/tmp && cd /work/tmp && {wrap(start)}"


def _make_program_line(test: GuestTest, scale: float) -> str:
    """The command of the supervisor, the module ``guest-tests/lib/program.py``."""
    place = f"/work/tests/{test.id}"
    if test.libraries:
        libs = f"/work/libs/{test.id}"
        starts = [f"{libs}/{test.libraries[0].name}", "--library-path", libs, place]
    elif test.language == SELFTEST:
        starts = ["sh", f"/work/lib/{RUNNER}", test.id]
    elif test.parts:
        starts = ["sh", f"./{START}"]
    else:
        starts = [*{"": [], "sh": ["sh"], "python3": ["python3", "-B"]}[test.interpreter], place]
    asked = {
        "argv": [*starts, *test.arguments],
        "folder": place if test.parts else "",
        "limit_s": (test.forever_s or test.timeout_s) * scale,
        "user": test.user,
        "needs_kconfig": test.needs_kconfig,
        "cpus": test.cpus,
        "memory_mib": test.memory_mib,
    }
    return f"PYTHONPATH=/work/lib exec python3 -B -m program {shlex.quote(json.dumps(asked))}"


def _read_program_end(guest: Guest, test: GuestTest) -> ProgramEnd | None:
    """How a program ended; None if its supervisor was lost, or for other tests. Raises ``GuestGone``."""
    if test.language not in _SUPERVISED:
        return None
    end = parse_program_end(guest.run(f"cat {_PROGRAM_END}", guest.deadline(5)).stdout)
    return replace(end, forever_s=float(test.forever_s)) if end else None


@contextlib.contextmanager
def boot_with_tests(
    machine: Machine, folder: Path, programs: Sequence[Program], lib_dir: Path
) -> Iterator[Guest]:
    """Boot a guest that has the tests, with a command for each in /work/bin for interactive use."""
    with boot_guest(machine, folder, archive=_pack_tests(machine, programs, lib_dir)) as guest:
        unpack_archive(guest, "/work")
        yield guest


def _pack_tests(machine: Machine, programs: Sequence[Program], lib_dir: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        # directories of selftests, each once
        selftests = [one for one in programs if one.test.language == SELFTEST and one.path.is_dir()]
        for path in sorted({path for program in selftests for path in program.path.iterdir()}):
            archive.add(path, f"kselftest/{path.name}", filter=_as_root)
        for program in programs:
            if program not in selftests:
                archive.add(program.path, f"tests/{program.test.id}", filter=_as_root)
            for path in (machine.kernel.folder / PROGRAMS / program.test.id).glob("*"):
                archive.add(path, f"tests/{program.test.id}/{path.name}", filter=_as_root)
            for path in program.test.libraries:
                archive.add(path.resolve(), f"libs/{program.test.id}/{path.name}", filter=_as_root)
            line = make_test_line(program.test, machine.time_scale)
            command_file = tarfile.TarInfo(f"bin/{program.test.id}")
            script = f'#!/bin/sh\n{line} "$@"\n'.encode()
            command_file.size = len(script)
            archive.addfile(_as_root(command_file), io.BytesIO(script))
        own_libs = {program.test.own_lib for program in programs if program.test.own_lib}
        for name, lib in (("lib", lib_dir), *(("own-lib", lib) for lib in own_libs)):
            for path in sorted((*lib.glob("*.py"), *lib.glob("*.sh"))):
                archive.add(path, f"{name}/{path.name}", filter=_as_root)
        for path in sorted((machine.kernel.folder / "guest-modules").glob("*")):
            archive.add(path, f"modules/{path.name}", filter=_as_root)
    return packed.getvalue()


def compile_imports(guest: Guest, programs: Sequence[Program]) -> None:
    """Compile the modules that the tests import to bytecode in the guest; saves 0.5 s or more per test.

    If the guest is lost, the next command in it reports that.
    """
    names = sorted(set().union(*(find_imports(program.test) for program in programs)))
    if names:
        with contextlib.suppress(GuestGone):
            line = f"PYTHONPATH=/work/lib python3 -c 'import {', '.join(names)}'"
            guest.run(line, guest.deadline(30))


def _as_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.mode = 0o755
    return member


def run_test(
    guest: Guest, program: Program, begin: int, wrap: Callable[[str], str] = str, limit_s: float = 0.0
) -> tuple[TrialResult, int]:
    """Run one test. Its console part begins at offset ``begin``; returns the result and the end offset.

    Kernel messages between two tests belong to the later one. ``wrap`` changes how the
    program is started, ``limit_s`` (native seconds) replaces the test's own limit.
    """
    test, scale = program.test, guest.machine.time_scale
    guest.channels.serial.allow()
    line = make_test_line(test, scale, wrap)
    if test.language in _SUPERVISED:
        limit_s = (test.forever_s or test.timeout_s) + _PROGRAM_GRACE_S
    limit_s = limit_s or test.timeout_s + _GRACE_S
    answer, before, after, unusable = CommandResult(-1, "", ""), None, None, ""
    program_end, trace = None, ""
    trace_path = guest.folder / name_trace(test.id, program.trial)
    ending = Ending(Ended.EXIT, "")
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    began, waited_s = time.monotonic(), guest.read_wait_s()
    try:
        start_trace(guest)
        before, _ = _mark(guest, f"begin {test.id}")
        began = time.monotonic()
        answer = guest.run(line, guest.deadline(limit_s))
        duration_s = time.monotonic() - began
        trace = keep_trace(guest, trace_path)
        program_end = _read_program_end(guest, test)
        after, unusable = _mark(guest, f"end {test.id}", _IS_USABLE)
        if guest.has_panicked():
            raise GuestGone(GoneReason.PANIC, GoneReason.PANIC)
        end = guest.console.stat().st_size
    except GuestGone as gone:
        duration_s = time.monotonic() - began
        # the output so far is the test's, not that of a marker
        answer = replace(answer, stdout=answer.stdout or gone.stdout)
        ending = find_ending(guest, gone.reason)
        end = guest.console.stat().st_size if ending.requested_at is None else ending.requested_at
        if ending.answers and not trace:
            with contextlib.suppress(GuestGone):
                trace = keep_trace(guest, trace_path)
        trace = trace or explain_lost(guest.machine)
    console, lost = _read_console(guest, begin, end)
    result = TrialResult(
        test=test.id,
        content_id=program.program_id,
        ended=ending.ended,
        exit_status=answer.status if ending.ended is Ended.EXIT else None,
        stdout=answer.stdout,
        stderr=answer.stderr,
        console=console,
        console_lost=lost + guest.channels.serial.dropped,
        taint_before=before,
        taint_after=after,
        duration_s=round(duration_s, 3),
        accel=guest.machine.accel,
        boot=guest.folder.name,
        how=ending.how,
        said=ending.output[-_CONSOLE_LIMIT:],
        core=ending.core,
        boot_trouble=guest.trouble,
        trial=program.trial,
        started=started,
        console_at=begin,
        host=platform.node(),
        waited_s=round(max(0.0, guest.read_wait_s() - waited_s), 3),
        unusable=unusable,
        program_end=program_end,
        trace=trace,
    )
    return result, end


def _mark(guest: Guest, text: str, check: str = "true") -> tuple[int | None, str]:
    """Write a marker to the kernel log, and wait until the console shows it.

    Returns the taint, if known, and the reason why the guest is unusable, if it is: it cannot do this or
    ``check``. Raises ``GuestGone``.
    """
    begin = guest.console.stat().st_size
    line = f"echo 'cowbell: {text}' > /dev/kmsg && cat /proc/sys/kernel/tainted && {check}"
    deadline = guest.deadline(5)
    answer = guest.run(line, deadline)
    taint = int(answer.stdout) if answer.stdout.strip().isdigit() else None
    if answer.status:
        return taint, (answer.stderr.strip() or f"its shell ended with status {answer.status}").splitlines()[
            -1
        ]
    while not deadline.is_over:
        guest.channels.watch.check()
        shown, _ = _read_console(guest, begin, guest.console.stat().st_size)
        if f"cowbell: {text}" in shown:
            return taint, ""
        time.sleep(0.01)
    return taint, "its kernel log does not reach the console"


def _read_console(guest: Guest, begin: int, end: int) -> tuple[str, int]:
    """A part of the console, and the number of bytes left out in the middle if it is too long."""
    half = _CONSOLE_LIMIT // 2
    lost = max(0, end - begin - _CONSOLE_LIMIT)
    with guest.console.open("rb") as file:
        file.seek(begin)
        if not lost:
            return file.read(end - begin).decode(errors="replace"), 0
        head = file.read(half)
        file.seek(end - half)
        kept = head + f"\n[{lost} bytes left out]\n".encode() + file.read(half)
    return kept.decode(errors="replace"), lost
