# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures which lines and branches of the kernel the tests of a job reach.

gcov counts in the kernel, in the files that have functions of ``ci/mutants.yaml``. The counters of each guest
are read before it ends. Of one that is lost, all tests but the last run again.
"""

import base64
import binascii
import gzip
import io
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

from pydantic import TypeAdapter

from orchestrator.coverage.gcov import CodeCoverage, Counts, FunctionCoverage, Unreached, add_counts, cover
from orchestrator.errors import StageFailure, UsageError
from orchestrator.guest.connection import Guest, GuestGone
from orchestrator.guest.qemu import Machine
from orchestrator.kernel.build import Kernel
from orchestrator.parse.csource import read_functions
from orchestrator.plan.generated import add_patch, export_files_as_patch
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import choose_machine, compile_tests
from orchestrator.plan.steps import build_job, find_source_of
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.project.mutants import MutantSpec
from orchestrator.result.stored import find_results_dir
from orchestrator.run.compile import Program
from orchestrator.run.runner import boot_with_tests, make_boot_dir, remove_stale_images, run_test
from orchestrator.source.repository import Source, export_files, git, list_files, open_repository
from orchestrator.source.series import Patch
from orchestrator.store.store import make_id, write_json

_SUBJECT = "mm: coverage: count with gcov"
# the counters of each file, below the folder in which it was compiled
_COUNTERS = "/sys/kernel/debug/gcov"
_READ = (
    f"mount -t debugfs none /sys/kernel/debug 2>/dev/null; cd {_COUNTERS} && rm -rf /work/gcov && "
    "find . -name '*.gcda' | while read -r name; do "
    'mkdir -p "/work/gcov/$(dirname "$name")" && cat "$name" > "/work/gcov/$name"; done; '
    "cd /work/gcov && tar cz . | base64 -w0"
)
_READ_S = 30.0


def _explain(function: FunctionCoverage, spec: MutantSpec) -> FunctionCoverage:
    """The function with the declared reasons."""

    def find_reason(one: Unreached) -> str:
        named = f"{one.place}: {one.code}"
        return next((why for pattern, why in spec.unreached.items() if fnmatchcase(named, pattern)), "")

    return replace(
        function, unreached=tuple(replace(one, reason=find_reason(one)) for one in function.unreached)
    )


_FUNCTIONS = TypeAdapter(tuple[FunctionCoverage, ...])


def plan_coverage(job: Job, spec: MutantSpec, declared: Declarations, place: Workspace) -> CodeCoverage:
    """The functions of the job's source that are counted; nothing is run."""
    source, files = _prepare(job, spec, declared, place)
    functions = tuple(
        FunctionCoverage(file, function.name, 0, 0, 0, 0, ())
        for file, text in files.items()
        for function in read_functions(text, spec.functions[file])
    )
    tests = tuple(test.id for test in job.tests)
    return CodeCoverage(f"{source.tree} {source.version}", source.commit, functions, tests)


def _prepare(
    job: Job, spec: MutantSpec, declared: Declarations, place: Workspace
) -> tuple[Source, dict[str, bytes]]:
    """The job's source, and its files with functions of the spec."""
    source = find_source_of(job, declared, place)
    return source, _find_files(source, spec, place)


def measure(job: Job, spec: MutantSpec, declared: Declarations, place: Workspace, accel: str) -> CodeCoverage:
    """Build the kernel with counters, run all tests of the job once, and read what was counted.

    Raises ``UsageError`` for a config without gcov.
    """
    source, files = _prepare(job, spec, declared, place)
    if place.llvm or "gcc" not in (place.cc or "gcc"):
        raise UsageError("counters are read by gcov, which needs gcc", where="coverage")
    if "gcov" not in job.row.kconfig:
        raise UsageError(
            "the row has no fragment gcov", where=job.row.name, hint="cowbell coverage ROW=coverage"
        )
    counting = add_patch(job, "coverage", Patch(_make_patch(source, files, place), _SUBJECT))
    kernel = build_job(counting, declared, place)
    machine = choose_machine(counting, kernel, place, accel)
    programs = compile_tests(counting, kernel, place)
    folder = place.store.path("coverage", find_results_dir(machine, place.store).name)
    path = folder / f"{make_id(dict(spec.functions), [program.program_id for program in programs])}.json"
    if not path.exists():
        with (
            place.store.lock(f"coverage-{folder.name}"),
            place.budget.guest(machine.shape.cpus, machine.shape.memory_mib),
        ):
            counts: dict[str, Counts] = {file: {} for file in files}
            for counters in _run(machine, programs, folder, place):
                _add(counters, kernel, counts, place)
            if not any(counts.values()):
                raise StageFailure("run", "no test ended in a guest whose counters could be read")
            covered = [
                function
                for file, text in files.items()
                for function in cover(file, read_functions(text, spec.functions[file]), counts[file])
                if function.lines
            ]
            write_json(path, _FUNCTIONS.dump_python(tuple(covered), mode="json"))
    functions = _FUNCTIONS.validate_json(path.read_bytes())
    return CodeCoverage(
        kernel.request.subject,
        source.commit,
        tuple(_explain(function, spec) for function in functions),
        tuple(program.test.id for program in programs),
    )


def _find_files(source: Source, spec: MutantSpec, place: Workspace) -> dict[str, bytes]:
    """The text of each file of the spec that the source has."""
    repository = open_repository(place.store)
    there = {line.split("\t")[1] for line in list_files(place.store, source.commit).splitlines()}
    return {
        file: git(repository, "show", f"{source.commit}:{file}").output.encode()
        for file in spec.functions
        if file in there
    }


def _make_patch(source: Source, files: Iterable[str], place: Workspace) -> Path:
    """The patch that lets Kbuild compile these files with counters."""
    lines: dict[str, list[str]] = {}
    for file in sorted(files):
        path = Path(file)
        lines.setdefault(f"{path.parent}/Makefile", []).append(f"GCOV_PROFILE_{path.stem}.o := y\n")

    def fill(draft: Path) -> None:
        with place.store.scratch("coverage") as tree:
            listing = list_files(place.store, source.commit).splitlines()
            wanted = [line for line in listing if line.split("\t")[1] in lines]
            export_files(place.store, "\n".join(wanted), tree)
            for name, added in lines.items():
                with (tree / name).open("a") as makefile:
                    makefile.writelines(added)
            export_files_as_patch(source, tree, _SUBJECT, draft, place.store)

    return next(place.store.publish("coverage-patches", make_id(source.tree_id, lines), fill).glob("0001-*"))


def _run(
    machine: Machine, programs: Sequence[Program], folder: Path, place: Workspace
) -> Iterator[dict[str, bytes]]:
    """Run each test once; the counters of each guest, by the path at which its file was compiled."""
    remove_stale_images(folder)
    pending = list(programs)
    while pending:
        place.progress.stage("boot", f"{machine.kernel.request.source.version} on {machine.accel}")
        with boot_with_tests(machine, make_boot_dir(folder), pending, place.lib_dir) as guest:
            place.progress.stage("run", f"{len(pending)} test(s)")
            at, counted = guest.ready_at, list[Program]()
            while pending:
                place.progress.count(len(programs) - len(pending), len(programs), "tests")
                program = pending.pop(0)
                result, at = run_test(guest, program, at)
                place.progress.detail(f"{program.test.id}: {result.ended} after {result.duration_s:.1f} s")
                if not result.is_guest_usable:
                    place.progress.note(f"{program.test.id}: {result.ended}, and is not counted")
                    pending = [*counted, *pending]
                    break
                counted.append(program)
            else:
                yield _read_counters(guest)


def _read_counters(guest: Guest) -> dict[str, bytes]:
    try:
        answer = guest.run(_READ, guest.deadline(_READ_S))
    except GuestGone as gone:
        raise StageFailure("run", f"the counters cannot be read: {gone}", log=guest.console) from None
    try:
        with tarfile.open(fileobj=io.BytesIO(base64.b64decode(answer.stdout, validate=True))) as packed:
            found = {one.name: packed.extractfile(one) for one in packed if one.isfile()}
            counters = {name: file.read() for name, file in found.items() if file}
    except (binascii.Error, tarfile.TarError, EOFError) as error:
        raise StageFailure(
            "run", f"the counters cannot be read: {error} {answer.stderr}", log=guest.console
        ) from None
    if not counters:
        raise StageFailure("run", "the kernel has no counters", log=guest.console)
    return counters


def _add(
    counters: Mapping[str, bytes], kernel: Kernel, counts: Mapping[str, Counts], place: Workspace
) -> None:
    """Add what one guest counted, by gcov of the compiler's version."""
    gcov = command.find_tool(
        re.sub(r"gcc(-[\d.]+)?$", r"gcov\1", place.cc or kernel.request.toolchain.compiler), "gcc"
    )
    for file, known in counts.items():
        stem = str(Path(file).with_suffix(""))
        data = next((data for name, data in counters.items() if name.endswith(f"/{stem}.gcda")), None)
        if not data:
            continue
        with place.store.scratch("gcov") as folder:
            (folder / "counted.gcda").write_bytes(data)
            shutil.copyfile(kernel.folder / "gcno" / f"{stem}.gcno", folder / "counted.gcno")
            options = ["--branch-counts", "--branch-probabilities", "--json-format"]
            command.run([gcov, *options, "counted.gcda"], cwd=folder)
            add_counts(gzip.decompress(next(folder.glob("*.json.gz")).read_bytes()), file, known)
