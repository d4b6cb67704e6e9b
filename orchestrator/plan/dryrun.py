# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists what a command would do for each job, and why, without doing it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.guest.accel import find_accel
from orchestrator.guest.rootfs import make_rootfs_id
from orchestrator.guest.vng import FRAGMENT
from orchestrator.kernel.build import BuildRequest, Kernel, find_kernel
from orchestrator.plan import manifest
from orchestrator.plan.manifest import load_manifest, take_as_changed
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.stages import (
    find_machine,
    find_reason_left_out,
    find_test_toolchain,
    list_known_splats,
    make_build_request,
)
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import GuestTest
from orchestrator.result.kept import find_results, find_results_dir
from orchestrator.result.record import Known
from orchestrator.run.runner import make_program_id
from orchestrator.source.apply import find_source
from orchestrator.source.fetch import find_fetched
from orchestrator.source.repository import Source


@dataclass(frozen=True, slots=True)
class Step:
    """What a target would do about one stage of one job (``-n``). An empty ``why`` means up to date."""

    stage: str
    subject: str
    why: str


def explain_jobs(jobs: Sequence[Job], declared: Declarations, place: Workspace, accel: str) -> Iterator[Step]:
    """What the target ``test`` would do and why; raises as ``check_what_if``."""
    known = _Known(declared, place)
    if place.what_if:
        _check_what_if(jobs, known, place)
    for job in jobs:
        yield from _explain_job(job, known, place, accel)


class _Known:
    """What jobs have in common, looked up once: trees, sources, kernels asked for, files of tests."""

    def __init__(self, declared: Declarations, place: Workspace) -> None:
        self._declared, self._place = declared, place
        self._bases: dict[str, Source | None] = {}
        self._sources: dict[tuple[str, str], Source | None] = {}
        self._requests: dict[tuple[str, str, tuple[str, ...]], BuildRequest] = {}
        self._test_files: dict[str, manifest.Files] = {}

    def find_base(self, job: Job) -> Source | None:
        if job.built:
            return job.built.base
        name = job.tree.name
        if name not in self._bases:
            self._bases[name] = find_fetched(job.tree, self._place.store)
        return self._bases[name]

    def find_source(self, job: Job, base: Source) -> Source | None:
        if job.built:
            return job.built.source
        key = base.source_id, job.series.name
        if key not in self._sources:
            fixups = self._declared.fixups
            self._sources[key] = find_source(base, job.series, fixups, self._place.store)
        return self._sources[key]

    def make_request(self, job: Job, src: Source) -> BuildRequest:
        key = src.source_id, job.row.arch, job.row.kconfig
        if key not in self._requests:
            self._requests[key] = make_build_request(job, src, self._declared, self._place)
        return self._requests[key]

    def list_kernel_files(self, job: Job, base: Source, request: BuildRequest) -> manifest.Files:
        files = manifest.list_kernel_files(job, base, request, self._declared)
        return take_as_changed(files, self._place.what_if)

    def list_splats(self, job: Job, base: Source) -> tuple[Known, ...]:
        return list_known_splats(job, base, self._declared, self._place)

    def list_test_files(self, test: GuestTest) -> manifest.Files:
        if test.id not in self._test_files:
            files = manifest.list_test_files(test)
            self._test_files[test.id] = take_as_changed(files, self._place.what_if)
        return self._test_files[test.id]


def _check_what_if(jobs: Sequence[Job], known: _Known, place: Workspace) -> None:
    files: set[str] = set()
    for job in jobs:
        files |= {name for test in job.tests for name in known.list_test_files(test)}
        base = known.find_base(job)
        src = base and known.find_source(job, base)
        if base and src:
            files |= set(known.list_kernel_files(job, base, known.make_request(job, src)))
    manifest.raise_unknown(place.what_if, files)


def check_what_if(jobs: Sequence[Job], declared: Declarations, place: Workspace) -> None:
    """Raise ``UsageError`` for each file of ``--what-if`` that no job is made of."""
    if place.what_if:
        _check_what_if(jobs, _Known(declared, place), place)


def _explain_job(job: Job, known: _Known, place: Workspace, accel: str) -> Iterator[Step]:
    store, arch, name = place.store, ARCHES[job.row.arch], job.name
    base = known.find_base(job)
    if not base:
        yield Step("source", f"{name}: {job.tree.name}", f"fetch {job.tree}, it has not been fetched yet")
    elif reason := find_reason_left_out(job, base):
        yield Step("plan", f"{name}: left out, {reason}", "")
        return
    src = base and known.find_source(job, base)
    if job.built and not src:
        yield Step("build", name, "it could not be built where that was tried")
        return
    if not src and job.series.patches:
        yield Step("source", f"{name}: series {job.series.name}", "apply it, it is new on this tree")
    if not base or not src:
        yield Step("build", name, "configure and build, the source is new")
        yield Step("run", name, f"run {len(job.tests)} test(s), the kernel is new")
        return
    yield Step("source", f"{name}: {src.tree} {src.version} {src.source_id}", "")
    request = known.make_request(job, src)
    kernel = job.built.find_kernel(request, store) if job.built else find_kernel(request, store)
    subject = f"{name}: {request.build_id}{f', with {FRAGMENT} for BOOT=vng' if job.boot == 'vng' else ''}"
    made_of = known.list_kernel_files(job, base, request) if place.what_if or not kernel else {}
    if not kernel or set(made_of) & set(place.what_if):
        difference = manifest.explain(made_of, load_manifest(job, store).kernel)
        new = "nothing was built from this source, config and compiler"
        yield Step("build", subject, f"build it: {difference or new}")
        yield Step("run", name, f"run {len(job.tests)} test(s), the kernel is new")
        return
    yield Step("build", subject, "")
    chosen = find_accel(accel, arch, store)
    if not store.path("rootfs", make_rootfs_id(arch)).is_dir() or not chosen:
        yield Step(
            "rootfs", f"{arch.name}: {make_rootfs_id(arch)}", "make it, and see which accelerator works"
        )
        yield Step("run", name, f"run {len(job.tests)} test(s), the guest is new")
        return
    yield Step("rootfs", f"{arch.name}: {make_rootfs_id(arch)}", "")
    whys = _explain_tests(job, kernel, base, known, place, chosen.split()[0])
    yield Step("run", f"{name}: {len(job.tests)} test(s)", "; ".join(whys))


def _explain_tests(
    job: Job, kernel: Kernel, base: Source, known: _Known, place: Workspace, accel: str
) -> Iterator[str]:
    """The tests that would run, by the reason for it."""
    machine = replace(find_machine(job, kernel, place), accel=accel)
    folder = find_results_dir(machine, place.store)
    toolchain = find_test_toolchain(job, kernel, place)
    splats = known.list_splats(job, base)
    missing = [
        test
        for test in job.tests
        if place.repeat.wants_more(
            test, find_results(folder, test, make_program_id(test, toolchain), splats), splats
        )
        or (place.what_if and set(known.list_test_files(test)) & set(place.what_if))
    ]
    if not missing:
        return
    before = load_manifest(job, place.store)
    # what is new about the kernel or the guest is new for all tests
    made_of = known.list_kernel_files(job, base, kernel.request)
    common = manifest.explain(made_of, before.kernel)
    common = common or manifest.explain(manifest.list_guest_files(machine), before.guest)
    tests: dict[str, list[str]] = {}
    for test in missing:
        own = manifest.explain(known.list_test_files(test), before.tests.get(test.id, {}))
        tests.setdefault(own or common or "not run yet, or without an answer", []).append(test.id)
    for why, chosen in tests.items():
        yield f"run {', '.join(chosen)}: {why}"
