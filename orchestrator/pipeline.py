# SPDX-License-Identifier: GPL-2.0-or-later
"""The whole way from jobs to results, in the order in which it is walked.

Every step asks the store first, so what is done is not done again, and a run that was killed goes on where
it was. A kernel's failure ends its job and becomes a verdict; the host's ends the run.
"""

import contextlib
import dataclasses
import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from orchestrator.accel import choose_accel, find_accel
from orchestrator.arch import ARCHES, Arch
from orchestrator.boot import boot_guest
from orchestrator.build import BuildRequest, Kernel, Toolchain, build_kernel, find_kernel, find_toolchain
from orchestrator.document import suggest
from orchestrator.errors import InfraError, StageFailure, UsageError, raise_all
from orchestrator.fetch import check_local, fetch_tree, find_fetched
from orchestrator.fixup import load_fixups
from orchestrator.guest import Guest
from orchestrator.guesttest import GuestCase, is_match, load_cases
from orchestrator.kconfig import Config, load_fragments, make_config
from orchestrator.laboratory import load_readings, make_laboratory_id
from orchestrator.matrix import load_matrix
from orchestrator.plan import Declarations, Job, check_machine
from orchestrator.progress import Progress
from orchestrator.qemu import Machine
from orchestrator.record import (
    CaseResult,
    Expected,
    Failure,
    JobRecord,
    RunRecord,
    load_result,
    save_result,
    save_run,
)
from orchestrator.remote import fetch_range
from orchestrator.repository import Source, open_repository
from orchestrator.rootfs import make_rootfs, make_rootfs_id
from orchestrator.run import (
    Program,
    compile_case,
    make_boot_dir,
    make_program_id,
    push_cases,
    run_cases,
)
from orchestrator.series import Series, export_range, find_local_range, find_series, load_series, make_range
from orchestrator.source import apply_series, find_source
from orchestrator.store import Store, make_id
from orchestrator.tree import GitTree, LocalTree, find_tree, load_trees
from orchestrator.verdict import is_conclusive
from orchestrator.vng import FRAGMENT, find_reason_not

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where everything is: the project's files, the store, and who is told of progress.

    ``keep_going`` is make's ``-k``; ``cc`` and ``use_llvm`` choose the compiler; ``keep_core`` keeps the
    memory of guests that crash or hang.
    """

    root: Path
    store: Store
    progress: Progress
    keep_going: bool = False
    cc: str = ""
    use_llvm: bool = False
    keep_core: bool = False

    def find_toolchain(self, arch: Arch) -> Toolchain:
        return find_toolchain(arch, self.cc, use_llvm=self.use_llvm)

    def make_request(self, src: Source, config: Config, arch: Arch) -> BuildRequest:
        modules = tuple(sorted(path for path in self.module_dir.glob("*") if path.is_file()))
        return BuildRequest(src, config, arch, self.find_toolchain(arch), modules)

    def list_program_ids(self, cases: Sequence[GuestCase]) -> dict[tuple[str, str], str]:
        """What each case is as a program, by (case, architecture), where there is a compiler for it."""
        ids: dict[tuple[str, str], str] = {}
        for arch in ARCHES.values():
            with contextlib.suppress(InfraError):
                toolchain = self.find_toolchain(arch)
                ids |= {(case.id, arch.name): make_program_id(case, toolchain) for case in cases}
        return ids

    @property
    def module_dir(self) -> Path:
        return self.root / "guest-tests" / "module"

    @property
    def lib_dir(self) -> Path:
        return self.root / "guest-tests" / "lib"


@dataclass(frozen=True, slots=True)
class Step:
    """What a target would do about one stage of one job (``-n``). An empty ``why`` means up to date."""

    stage: str
    subject: str
    why: str


def load_declarations(root: Path) -> Declarations:
    """Read all that is declared below ``root``; raises every ``UsageError`` of every file at once."""
    errors: list[Exception] = []

    def load(read: Callable[[Path], T], path: Path, otherwise: T) -> T:
        try:
            return read(path)
        except* UsageError as group:
            errors.extend(group.exceptions)
        return otherwise

    folders = sorted({path.parent for path in (root / "patches").glob("*/series*")})
    declared = Declarations(
        rows=load(load_matrix, root / "ci" / "matrix.yaml", {}),
        trees=load(load_trees, root / "patches" / "trees.yaml", {}),
        series={folder.name: load(load_series, folder, Series(folder.name)) for folder in folders},
        fragments=load(load_fragments, root / "kconfigs", {}),
        cases=load(load_cases, root / "guest-tests", ()),
        fixups=load(load_fixups, root / "patches" / "fixups.yaml", ()),
    )
    raise_all([error for error in errors if isinstance(error, UsageError)])
    machines = (check_machine(row, declared.fragments) for row in declared.rows.values())
    raise_all([*_check_flips(declared), *_check_expectations(declared), *itertools.chain(*machines)])
    return declared


def _check_flips(declared: Declarations) -> Iterator[UsageError]:
    known = {case.id for case in declared.cases}
    for name, series in declared.series.items():
        for patch in series.patches:
            for case in sorted(patch.flips.keys() - known):
                yield UsageError(
                    f"{patch.name} flips {case}, and there is no such case{suggest(case, known)}",
                    where=f"patches/{name}/series.yaml",
                )


def _check_expectations(declared: Declarations) -> Iterator[UsageError]:
    """One that speaks of no case is a misspelt one, and the failure that it excuses would come as news."""
    known = [name for case in declared.cases for name in (case.id, *case.subtests)]
    for row in declared.rows.values():
        for cell in row.cells:
            for word in (expected.case for expected in cell.expect):
                if not any(is_match(word, name) for name in known):
                    yield UsageError(
                        f"{row.name}/{cell.name} expects something of {word}, and there is no such case"
                        f"{suggest(word, known)}",
                        where="ci/matrix.yaml",
                    )


def add_inputs(
    declared: Declarations,
    kernel: str,
    series: Sequence[str],
    place: Workspace,
    *,
    is_dirty: bool = False,
    redo: bool = False,
) -> Declarations:
    """The declarations with what the command line brings along: trees and series that are not ours.

    Each is known by the word that names it. Raises ``UsageError`` for all that are wrong, at once.
    """
    trees, known = dict(declared.trees), dict(declared.series)
    errors: list[UsageError] = []
    try:
        # a plain name that is unknown is told with the other wrong words of the request
        if kernel in trees or ":" in kernel or "/" in kernel:
            trees[kernel] = find_tree(kernel, trees, is_dirty=is_dirty)
        chosen = trees.get(kernel)
        if isinstance(chosen, LocalTree):
            check_local(chosen)
        if is_dirty and not (isinstance(chosen, LocalTree) and chosen.is_dirty):
            errors.append(UsageError("is for KERNEL=/path/to/checkout, at what lies there", where="DIRTY"))
    except UsageError as error:
        errors.append(error)
    for word in series:
        try:
            if parts := make_range(word):
                known[word] = _load_range(word, *parts, declared, place, redo=redo)
            elif word not in known and ("/" in word or Path(word).is_file()):
                known[word] = find_series(Path(word).expanduser(), place.store)
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
    raise_all(errors)
    return replace(declared, trees=trees, series=known)


def _load_range(
    word: str, name: str, base: str, tip: str, declared: Declarations, place: Workspace, *, redo: bool
) -> Series:
    """``TREE:BASE..TIP``, fetched where need be."""
    tree = find_tree(name, declared.trees)
    if isinstance(tree, LocalTree) and tree.is_checkout:
        return find_local_range(word, tree, base, tip, place.store)
    if not isinstance(tree, GitTree):
        raise UsageError(f"{name} is not of git, so it has no range of commits", where=word)
    start, end = (
        fetch_tree(find_tree(f"{name}:{ref}", declared.trees), place.store, place.progress, redo=redo)
        for ref in (base, tip)
    )
    fetch_range(start, end, place.store, place.progress)
    return export_range(word, start.commit, end.commit, open_repository(place.store), place.store)


def fetch_sources(
    jobs: Sequence[Job], declared: Declarations, place: Workspace, *, redo: bool
) -> list[Source]:
    """The target ``source``: every tree fetched (``redo``: looked up anew) and every series applied."""
    bases = {
        tree.name: fetch_tree(tree, place.store, place.progress, redo=redo)
        for tree in {job.tree.name: job.tree for job in jobs}.values()
    }
    return [
        apply_job(job, bases[job.tree.name], declared, place)
        for job in jobs
        if not find_reason_left_out(job, bases[job.tree.name])
    ]


def apply_job(job: Job, base: Source, declared: Declarations, place: Workspace) -> Source:
    """The job's series on its tree; raises as ``apply_series``."""
    return apply_series(
        base, job.series, declared.fixups, place.store, place.progress, keep_going=place.keep_going
    )


def build_jobs(
    jobs: Sequence[Job], declared: Declarations, place: Workspace, *, redo: bool
) -> Iterator[Kernel]:
    """The target ``build``: the kernel of every job whose series is for its tree."""
    for job in jobs:
        base = fetch_tree(job.tree, place.store, place.progress)
        if reason := find_reason_left_out(job, base):
            place.progress.note(f"left out: {job.row.name}/{job.cell.name}: {reason}")
        else:
            yield build_job(job, declared, place, redo=redo)


def build_job(job: Job, declared: Declarations, place: Workspace, *, redo: bool = False) -> Kernel:
    """Source, config, kernel."""
    arch = ARCHES[job.row.arch]
    base = fetch_tree(job.tree, place.store, place.progress)
    src = apply_job(job, base, declared, place)
    config = make_config(job.row.kconfig, declared.fragments, arch, src.version)
    request = place.make_request(src, config, arch)
    return build_kernel(request, place.store, place.progress, limit_s=job.row.limits.build_s, redo=redo)


def run_jobs(
    jobs: Sequence[Job],
    declared: Declarations,
    place: Workspace,
    accel: str,
    command: str,
    *,
    redo: bool = False,
) -> tuple[str, bool]:
    """The target ``test``. Returns the run's id, and whether anything was new.

    A run is named by its results, so one that changes nothing is the run that is there already. What was
    earned before an ``InfraError`` or an interrupt stays in the store.
    """
    outcomes = [_run_job(job, declared, place, accel, redo=redo) for job in jobs]
    records = tuple(record for record, _ in outcomes)
    identity = make_id([dataclasses.asdict(record) for record in records])
    folder = place.store.path("runs", f"{records[0].row if records else 'empty'}-{identity}")
    is_new = any(has_run for _, has_run in outcomes) or not (folder / "record.json").exists()
    if is_new:
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        save_run(RunRecord(folder.name, command, started, records), folder)
    return folder.name, is_new


def _run_job(
    job: Job, declared: Declarations, place: Workspace, accel: str, *, redo: bool
) -> tuple[JobRecord, bool]:
    record = JobRecord(
        row=job.row.name,
        cell=job.cell.name,
        arch=job.row.arch,
        tree=job.tree.name,
        series=job.series.name,
        cases={case.id: case.subtests for case in job.cases},
    )
    results: dict[str, CaseResult] = {}
    has_run = False
    try:
        base = fetch_tree(job.tree, place.store, place.progress)
        record = replace(
            record,
            version=str(base.version),
            origin=base.origin,
            base=base.commit,
            expect=_list_expected(job, base),
        )
        if reason := find_reason_left_out(job, base):
            return replace(record, left_out=reason), False
        kernel = build_job(job, declared, place)
        record = replace(
            record,
            fixups=kernel.request.source.fixups,
            commit=kernel.request.source.commit,
            tree_id=kernel.request.source.tree_id,
            source_id=kernel.request.source.source_id,
            config_id=kernel.request.config.config_id,
            build_id=kernel.request.build_id,
        )
        machine = choose_machine(job, kernel, place, accel)
        record = replace(record, rootfs_id=machine.rootfs.rootfs_id, accel=machine.accel, boot=machine.boot)
        programs = _compile_cases(job, kernel, place)
        folder = _cell_dir(machine, place.store)
        # who comes second to the same cell takes what the first one earns
        with place.store.lock(f"results-{folder.name}"):
            for program in programs:
                known = None if redo else _find_result(folder, program.case, program.program_id)
                if known:
                    results[program.case.id] = known
            missing = [program for program in programs if program.case.id not in results]
            for result in run_cases(machine, missing, place.lib_dir, folder, place.progress):
                has_run = True
                save_result(result, _result_path(folder, result.case, result.content_id))
                results[result.case] = result
    except StageFailure as error:
        failure = Failure(error.stage, error.what, error.where, error.hint, str(error.log or ""))
        record, has_run = replace(record, failure=failure), True
    ordered = tuple(results[case.id] for case in job.cases if case.id in results)
    if ordered:
        record = replace(record, readings=load_readings(folder / ordered[-1].boot))
    return replace(record, results=ordered), has_run


@contextlib.contextmanager
def open_guest(job: Job, declared: Declarations, place: Workspace, accel: str) -> Iterator[Guest]:
    """The target ``shell``: a job's guest with its cases in it, gone when the block is left.

    Raises ``StageFailure`` when there is no such kernel or it does not boot.
    """
    if reason := find_reason_left_out(job, fetch_tree(job.tree, place.store, place.progress)):
        raise StageFailure("source", f"left out: {reason}", where=f"{job.row.name}/{job.cell.name}")
    kernel = build_job(job, declared, place)
    machine = choose_machine(job, kernel, place, accel)
    programs = _compile_cases(job, kernel, place)
    place.progress.stage("boot", f"{kernel.request.source.version} on {machine.accel}")
    with boot_guest(machine, make_boot_dir(_cell_dir(machine, place.store))) as guest:
        push_cases(guest, programs, place.lib_dir)
        yield guest


def explain_jobs(jobs: Sequence[Job], declared: Declarations, place: Workspace, accel: str) -> Iterator[Step]:
    """What the target ``test`` would do and why, without doing any of it."""
    for job in jobs:
        yield from _explain_job(job, declared, place, accel)


def _explain_job(job: Job, declared: Declarations, place: Workspace, accel: str) -> Iterator[Step]:
    store, arch = place.store, ARCHES[job.row.arch]
    name = f"{job.row.name}/{job.cell.name}"
    base = find_fetched(job.tree, store)
    if not base:
        yield Step("source", f"{name}: {job.tree.name}", f"fetch {job.tree}, it has not been fetched yet")
    elif reason := find_reason_left_out(job, base):
        yield Step("plan", f"{name}: left out, {reason}", "")
        return
    src = base and find_source(base, job.series, declared.fixups, store)
    if not src and job.series.patches:
        yield Step("source", f"{name}: series {job.series.name}", "apply it, it is new on this tree")
    if not src:
        yield Step("build", name, "configure and build, the source is new")
        yield Step("run", name, f"run {len(job.cases)} case(s), the kernel is new")
        return
    yield Step("source", f"{name}: {src.tree} {src.version} {src.source_id}", "")
    config = make_config(job.row.kconfig, declared.fragments, arch, src.version)
    request = place.make_request(src, config, arch)
    subject = f"{name}: {request.build_id}{f', with {FRAGMENT} for BOOT=vng' if job.boot == 'vng' else ''}"
    kernel = find_kernel(request, store)
    if not kernel:
        yield Step("build", subject, "build it, nothing was built from this source, config and compiler")
        yield Step("run", name, f"run {len(job.cases)} case(s), the kernel is new")
        return
    yield Step("build", subject, "")
    chosen = find_accel(accel, arch, store)
    if not store.path("rootfs", make_rootfs_id(arch)).is_dir() or not chosen:
        yield Step(
            "rootfs", f"{arch.name}: {make_rootfs_id(arch)}", "make it, and see which accelerator works"
        )
        yield Step("run", name, f"run {len(job.cases)} case(s), the guest is new")
        return
    yield Step("rootfs", f"{arch.name}: {make_rootfs_id(arch)}", "")
    folder = _cell_dir(replace(_make_machine(job, kernel, place), accel=chosen.split()[0]), store)
    missing = [
        case.id
        for case in job.cases
        if not _find_result(folder, case, make_program_id(case, request.toolchain))
    ]
    why = f"run {', '.join(missing)}: not run yet, or changed" if missing else ""
    yield Step("run", f"{name}: {len(job.cases)} case(s)", why)


def _make_machine(job: Job, kernel: Kernel, place: Workspace) -> Machine:
    """The row's machine, on the accelerator that always works."""
    image = make_rootfs(kernel.request.arch, place.store, place.progress)
    return Machine(
        kernel, image, job.row.guest, "tcg", job.row.limits.boot_s, boot=job.boot, keep_core=place.keep_core
    )


def choose_machine(job: Job, kernel: Kernel, place: Workspace, accel: str) -> Machine:
    """The row's machine, on the accelerator that was asked for and works."""
    machine = _make_machine(job, kernel, place)
    return replace(machine, accel=choose_accel(accel, machine, place.store, place.progress))


def _compile_cases(job: Job, kernel: Kernel, place: Workspace) -> list[Program]:
    toolchain = kernel.request.toolchain
    return [compile_case(case, toolchain, place.lib_dir, place.store) for case in job.cases]


def _cell_dir(machine: Machine, store: Store) -> Path:
    """Where results of one kernel on one machine live."""
    shape = dataclasses.asdict(machine.shape)
    return store.path(
        "results",
        make_id(
            machine.kernel.request.build_id,
            machine.rootfs.rootfs_id,
            shape,
            machine.accel,
            machine.append,
            make_laboratory_id(machine.shape),
            machine.boot,
        ),
    )


def _result_path(folder: Path, case: str, content_id: str) -> Path:
    return folder / f"{case}.{content_id[:12]}.json"


def _find_result(folder: Path, case: GuestCase, program_id: str) -> CaseResult | None:
    """What the case came to before, if that was an answer."""
    known = load_result(_result_path(folder, case.id, program_id))
    return known if known and is_conclusive(known, case.subtests) else None


def _list_expected(job: Job, base: Source) -> tuple[Expected, ...]:
    return tuple(
        Expected(e.case, e.status, e.why) for e in job.cell.expect if e.when.holds(job.row.arch, base.version)
    )


def find_reason_left_out(job: Job, base: Source) -> str:
    """Why a job is not for its tree, or not for who boots it; empty when it is for both."""
    if job.boot == "vng" and (reason := find_reason_not(ARCHES[job.row.arch])):
        return reason
    if job.series.when.holds(job.row.arch, base.version):
        return ""
    return f"series {job.series.name} is for {job.series.when.text}, {base.tree} is {base.version}"
