# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes what the steps of a job produce: source, kernel, guest, programs, and what is expected."""

import contextlib
import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.guest.accel import choose_accel
from orchestrator.guest.modules import make_modules
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import make_rootfs, make_rootfs_id
from orchestrator.guest.vng import find_reason_not
from orchestrator.kernel.build import (
    BuildRequest,
    Kernel,
    Toolchain,
    build_kernel,
    find_config,
    find_gcc,
    make_absent_toolchain,
)
from orchestrator.kernel.configcheck import open_kconfig_tree
from orchestrator.kernel.fragment import Fragment
from orchestrator.kernel.kconfig import (
    SymbolOutcome,
    compare_config,
    make_config,
    make_image_config,
    report_config,
)
from orchestrator.kernel.prebuilt import Prebuilt, export_kernel, export_programs
from orchestrator.kernel.toolbox import make_toolbox
from orchestrator.kernel.uapi import make_headers
from orchestrator.plan.plan import Declarations, Job, add_expectations, list_fragments
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.guest import list_needs
from orchestrator.project.guesttest import LOCAL, PROGRAM, SELFTEST, GuestTest, uses_kernel_headers
from orchestrator.project.selftest import (
    FOLDER,
    choose_programs,
    find_nearest,
    list_directories,
    make_test,
    split_id,
)
from orchestrator.result.record import Expected, JobRecord, Known, LocalFile
from orchestrator.run.compile import Program, compile_test, make_program_id
from orchestrator.run.selftests import compile_selftests, find_listing, list_programs, read_fragments
from orchestrator.source.apply import apply_series
from orchestrator.source.image import KIND, read_facts, read_values
from orchestrator.source.repository import Source
from orchestrator.source.tree import IMAGES
from orchestrator.store.pack import pack

# bytes of a file of a folder that records contain
_MOST_TEXT = 65536


def apply_job(
    job: Job, base: Source, declared: Declarations, place: Workspace, *, redo: bool = False
) -> Source:
    """The job's series on its tree; raises as ``apply_series``."""
    return apply_series(
        base, job.series, declared.fixups, place.store, place.progress, keep_going=place.keep_going, redo=redo
    )


def _drop_modules(job: Job, declared: Declarations, own: Mapping[str, Fragment]) -> dict[str, Fragment]:
    """All fragments, without the modules in those of selftests that the row has built in."""
    fragments = declared.fragments
    names = [name for name in list_fragments(job.row.kconfig, job.row.arch) if name in fragments]
    built_in = {r.symbol for name in names for r in fragments[name].requests if r.value == "y"}
    kept = {
        name: replace(
            fragment,
            requests=tuple(r for r in fragment.requests if r.value != "m" or r.symbol not in built_in),
        )
        for name, fragment in own.items()
    }
    return {**fragments, **kept}


def has_selftests(job: Job) -> bool:
    return any(test.language == SELFTEST for test in job.tests)


def find_selftests(job: Job, source: Source, declared: Declarations, place: Workspace) -> Job | None:
    """The job with the selftests that its words select, if the tree's programs are listed already."""
    toolchain = place.find_toolchain(ARCHES[job.row.arch])
    directories = list_directories(job.tests)
    listings = {name: find_listing(name, source, toolchain, place.store) for name in directories}
    tests: dict[str, GuestTest] = {}
    errors: list[UsageError] = []
    for test in job.tests:
        if test.language != SELFTEST:
            tests[test.id] = test
            continue
        directory, _ = split_id(test.id)
        listing = listings[directory]
        if not listing:
            return None
        try:
            for chosen in choose_programs(test.id, listing.programs):
                tests[chosen] = make_test(chosen, listing.timeout_s, place.lib_dir)
        except UsageError as error:
            errors.append(error)
    raise_all(errors)
    selftests = [test for test in tests.values() if test.language == SELFTEST]
    variant = add_expectations(job.variant, selftests, declared)
    return replace(job, tests=tuple(tests.values()), variant=variant)


def list_selftests(job: Job, source: Source, declared: Declarations, place: Workspace) -> Job:
    """The job with the selftests that its words select; raises ``UsageError`` for globs that select none."""
    toolchain = place.find_toolchain(ARCHES[job.row.arch])
    for test in job.tests:
        if test.language == SELFTEST:
            directory, name = split_id(test.id)
            listing = list_programs(directory, source, toolchain, place.store, place.progress)
            if not set(name) & set("*?") and name not in listing.programs:
                where = listing.folder or f"this tree, which has no {directory} selftests"
                near = find_nearest(name, listing.programs)
                place.progress.note(f"{test.id} is not listed in {where}{near}")
    found = find_selftests(job, source, declared, place)
    assert found
    return found


def note_dropped(request: BuildRequest, place: Workspace) -> None:
    """Tell which symbols of the selftests' fragments the checked config does not have."""
    path = find_config(request, place.store) / "config"
    outcomes = compare_config(request.config, path.read_text()) if path.is_file() else ()
    if dropped := list_dropped(outcomes):
        place.progress.note(
            f"this config cannot have what the selftests' fragments ask for: {', '.join(dropped)}"
        )


def list_dropped(outcomes: Iterable[SymbolOutcome]) -> list[str]:
    """The symbols of selftests' fragments that have another value than requested, as ``SYMBOL=value``."""
    return [
        f"{outcome.request.symbol}={outcome.request.value}"
        for outcome in outcomes
        if outcome.request.where.startswith(f"{FOLDER}/") and outcome.is_lost
    ]


def report_symbols(request: BuildRequest, place: Workspace) -> tuple[SymbolOutcome, ...]:
    """The outcome of each symbol, dropped ones too; raises ``StageFailure`` where Kconfig itself fails."""
    words = request.toolchain.make_words
    with open_kconfig_tree(request.source, place.store) as tree, place.store.scratch("config") as folder:
        return report_config(request.config, tree, folder, words)


def make_build_request(job: Job, src: Source, declared: Declarations, place: Workspace) -> BuildRequest:
    arch = ARCHES[job.row.arch]
    if src.image:
        config = make_image_config(job.row.kconfig, declared.fragments, arch)
    else:
        own = read_fragments(list_directories(job.tests), src, place.store)
        config = make_config((*job.row.kconfig, *own), _drop_modules(job, declared, own), arch, src.version)
    if job.built:
        toolchain = make_absent_toolchain(job.built.toolchain)
    elif src.image:
        toolchain = find_gcc(arch, place.store)
    else:
        toolchain = place.find_toolchain(arch)
    programs = tuple(test for test in job.tests if test.has_module)
    return BuildRequest(src, config, arch, toolchain, place.list_modules(), programs)


def make_kernel(job: Job, request: BuildRequest, place: Workspace, *, redo: bool) -> Kernel:
    if job.built:
        return job.built.take_kernel(request, place.store)
    limit_s = job.row.limits.build_s
    return build_kernel(request, place.store, place.progress, place.budget, limit_s=limit_s, redo=redo)


def choose_machine(job: Job, kernel: Kernel, place: Workspace, accel: str) -> Machine:
    """The row's machine, on the accelerator that was asked for and works."""
    packed = job.built.packed_rootfs if job.built else None
    image = make_rootfs(kernel.request.arch, place.store, place.progress, packed)
    machine = Machine(
        kernel,
        image,
        job.row.guest,
        "tcg",
        job.row.limits.boot_s,
        boot=job.boot,
        keep_core=place.keep_core,
        trace=place.trace,
        modules=make_modules(kernel, image, place.store),
    )
    return replace(machine, accel=choose_accel(accel, machine, place.store, place.progress))


def find_test_toolchain(job: Job, test: GuestTest, kernel: Kernel, place: Workspace) -> Toolchain:
    """The toolchain of a test: the kernel's, unless that was built elsewhere, without this test."""
    toolchain = kernel.request.toolchain
    if not job.built or not test.is_compiled or make_program_id(test, toolchain) in job.built.programs:
        return toolchain
    return find_gcc(kernel.request.arch, place.store)


def check_programs(jobs: Sequence[Job], sources: Mapping[str, Source], place: Workspace) -> None:
    """Compile the programs of the command line, before anything is built: raises all their errors at once.

    ``sources`` are those of jobs, as far as they are known. The source of a job that is built here may have
    headers that the host lacks.
    """
    errors: list[UsageError] = []
    for job in jobs:
        arch = ARCHES[job.row.arch]
        is_built_here = not job.built and not isinstance(job.tree, IMAGES)
        for test in (test for test in job.tests if test.language == PROGRAM and test.is_compiled):
            toolchain = place.find_toolchain(arch) if is_built_here else find_gcc(arch, place.store)
            try:
                _compile_test(test, toolchain, arch, place, sources.get(job.name))
            except UsageError as error:
                is_final = job.name in sources or not is_built_here or not uses_kernel_headers(test)
                errors += [error] if is_final else []
    raise_all(list({str(error): error for error in errors}.values()))


def _compile_test(
    test: GuestTest, toolchain: Toolchain, arch: Arch, place: Workspace, source: Source | None
) -> Program:
    if toolchain.suite and test.is_compiled:
        make_toolbox(toolchain.suite, arch, place.store, place.progress)
    find_headers = None
    if test.language == PROGRAM and source and toolchain.make_words and not source.image:
        find_headers = partial(make_headers, source, arch, toolchain, place.store, place.progress)
    return compile_test(test, toolchain, place.lib_dir, place.store, find_headers)


def compile_tests(job: Job, kernel: Kernel, place: Workspace) -> list[Program]:
    """The job's tests as programs for its kernel's guest; our own first."""
    if job.built:
        job.built.take_programs(place.store)
    programs = []
    for test in (test for test in job.tests if test.language != SELFTEST):
        toolchain = find_test_toolchain(job, test, kernel, place)
        source = None if job.built else kernel.request.source
        programs.append(_compile_test(test, toolchain, kernel.request.arch, place, source))
    selftests = [test for test in job.tests if test.language == SELFTEST]
    source, toolchain = kernel.request.source, kernel.request.toolchain
    return [*programs, *compile_selftests(selftests, source, toolchain, place.store, place.progress)]


def export_job(job: Job, kernel: Kernel, built: Prebuilt, folder: Path, place: Workspace) -> None:
    """Write all that a run of a job needs to a folder of prebuilt kernels."""
    own = replace(job, tests=tuple(test for test in job.tests if test.language == "c"))
    programs = {one.program_id: one.path for one in compile_tests(own, kernel, place)}
    arch = kernel.request.arch
    built = replace(
        built,
        rootfs_id=make_rootfs_id(arch),
        programs=export_programs(programs, folder),
        folder=str(folder),
    )
    if not built.packed_rootfs.exists():
        pack(make_rootfs(arch, place.store, place.progress).image, built.packed_rootfs)
    export_kernel(built, kernel, folder, place.store)


# --- the record


def make_record(job: Job) -> JobRecord:
    """The record of a job before any step is done."""
    return JobRecord(
        row=job.row.name,
        variant=job.variant.name,
        arch=job.row.arch,
        tree=job.tree.name,
        series=job.series.name,
        tests={test.id: test.subtests for test in job.tests},
        summaries={test.id: test.summary for test in job.tests},
        races=tuple(test.id for test in job.tests if test.kind == "race"),
        named=tuple(test.id for test in job.tests if test.id in job.row.tests),
        files={test.id: _make_file(test) for test in job.tests if test.family == LOCAL and test.sha256},
    )


def _make_file(test: GuestTest) -> LocalFile:
    """The file or folder of a program for the record: the text of what is text."""
    parts = []
    for name in test.parts:
        data, text = (test.path / name).read_bytes(), ""
        with contextlib.suppress(UnicodeDecodeError):
            text = data.decode() if len(data) <= _MOST_TEXT else ""
        parts.append(LocalFile(name, hashlib.sha256(data).hexdigest(), text))
    return LocalFile(str(test.path), test.sha256, test.text, test.arguments, tuple(parts))


def list_expected(job: Job, base: Source, place: Workspace) -> tuple[Expected, ...]:
    """The expectations for this kernel; those that are over stay, marked as such."""
    return tuple(
        Expected(
            e.test, e.status, e.why, e.until.isoformat() if e.until else "",
            _is_over(e.until, f"{e.test} to {e.status}", e.where, place), e.fingerprint,
        )
        for e in job.variant.expect
        if e.when.holds(job.row.arch, base.version)
    )  # fmt: skip


def list_known_splats(job: Job, base: Source, declared: Declarations, place: Workspace) -> tuple[Known, ...]:
    """The known issues of this kernel that are not over."""
    return tuple(
        Known(known.fingerprint, known.why)
        for known in declared.known_splats
        if known.when.holds(job.row.arch, base.version)
        and not _is_over(known.until, known.fingerprint, known.where, place)
    )


def _is_over(until: datetime.date | None, what: str, where: str, place: Workspace) -> bool:
    """Whether a day has passed, in UTC; told if it has."""
    if until is None or datetime.datetime.now(datetime.UTC).date() <= until:
        return False
    place.progress.note(f"{where}: {what} was expected until {until}, and is not any more")
    return True


def _find_misfit(job: Job, base: Source, place: Workspace) -> str:
    """What the row's guest needs and the image lacks; empty where that is unknown."""
    arch = read_facts(place.store, base.image).arch
    if arch != job.row.arch:
        what = f"is an image for {arch}, and row {job.row.name} is for {job.row.arch}"
        raise UsageError(what, where=base.tree, hint=f"add ARCH={arch}")
    config = place.store.path(KIND, base.image) / "config"
    values = read_values(config.read_text()) if config.exists() else None
    lacking = [
        f"{need.symbol} ({need.key})"
        for need in list_needs(job.row.guest)
        if values is not None and need.symbol not in values
    ]
    return f"the image was built without {', '.join(lacking)}" if lacking else ""


def find_reason_left_out(job: Job, base: Source, place: Workspace) -> str:
    """Why a job is not for its tree, or cannot be booted as asked for; empty where neither holds.

    Raises ``UsageError`` for an image of another architecture.
    """
    if job.boot == "vng" and (reason := find_reason_not(ARCHES[job.row.arch])):
        return reason
    if job.built:
        return job.built.left_out
    if base.image:
        return _find_misfit(job, base, place)
    if job.series.when.holds(job.row.arch, base.version):
        return ""
    return f"series {job.series.name} is for {job.series.when.text}, {base.tree} is {base.version}"
