# SPDX-License-Identifier: GPL-2.0-or-later
"""What the targets would do about jobs, and why, without doing any of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator import manifest
from orchestrator.accel import find_accel
from orchestrator.arch import ARCHES
from orchestrator.build import Kernel, find_kernel
from orchestrator.fetch import find_fetched
from orchestrator.guesttest import GuestCase
from orchestrator.manifest import Manifest, load_manifest, take_as_changed
from orchestrator.pipeline import (
    find_cell_dir,
    find_machine,
    find_reason_left_out,
    find_result,
    make_build_request,
)
from orchestrator.plan import Declarations, Job
from orchestrator.rootfs import make_rootfs_id
from orchestrator.run import make_program_id
from orchestrator.source import find_source
from orchestrator.vng import FRAGMENT
from orchestrator.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Step:
    """What a target would do about one stage of one job (``-n``). An empty ``why`` means up to date."""

    stage: str
    subject: str
    why: str


def explain_jobs(jobs: Sequence[Job], declared: Declarations, place: Workspace, accel: str) -> Iterator[Step]:
    """What the target ``test`` would do and why."""
    for job in jobs:
        yield from _explain_job(job, declared, place, accel)


def check_what_if(jobs: Sequence[Job], declared: Declarations, place: Workspace) -> None:
    """Raise ``UsageError`` for each file of ``--what-if`` that no job is made of."""
    known: set[str] = set()
    for job in jobs:
        for case in job.cases:
            known |= set(manifest.list_case_files(case))
        base = find_fetched(job.tree, place.store)
        src = base and find_source(base, job.series, declared.fixups, place.store)
        if base and src:
            request = make_build_request(job, src, declared, place)
            known |= set(manifest.list_kernel_files(job, base, request, declared))
    manifest.raise_unknown(place.what_if, known)


def _explain_job(job: Job, declared: Declarations, place: Workspace, accel: str) -> Iterator[Step]:
    store, arch, name = place.store, ARCHES[job.row.arch], job.name
    base = find_fetched(job.tree, store)
    if not base:
        yield Step("source", f"{name}: {job.tree.name}", f"fetch {job.tree}, it has not been fetched yet")
    elif reason := find_reason_left_out(job, base):
        yield Step("plan", f"{name}: left out, {reason}", "")
        return
    src = base and find_source(base, job.series, declared.fixups, store)
    if not src and job.series.patches:
        yield Step("source", f"{name}: series {job.series.name}", "apply it, it is new on this tree")
    if not base or not src:
        yield Step("build", name, "configure and build, the source is new")
        yield Step("run", name, f"run {len(job.cases)} case(s), the kernel is new")
        return
    yield Step("source", f"{name}: {src.tree} {src.version} {src.source_id}", "")
    before = load_manifest(job, store)
    request = make_build_request(job, src, declared, place)
    made_of = take_as_changed(manifest.list_kernel_files(job, base, request, declared), place.what_if)
    kernel = find_kernel(request, store)
    subject = f"{name}: {request.build_id}{f', with {FRAGMENT} for BOOT=vng' if job.boot == 'vng' else ''}"
    difference = manifest.explain(made_of, before.kernel)
    if not kernel or set(made_of) & set(place.what_if):
        new = "nothing was built from this source, config and compiler"
        yield Step("build", subject, f"build it: {difference or new}")
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
    whys = _explain_cases(job, kernel, before, difference, place, chosen.split()[0])
    yield Step("run", f"{name}: {len(job.cases)} case(s)", "; ".join(whys))


def _explain_cases(
    job: Job, kernel: Kernel, before: Manifest, difference: str, place: Workspace, accel: str
) -> Iterator[str]:
    """The cases that would run, by the reason for it."""
    machine = replace(find_machine(job, kernel, place), accel=accel)
    folder = find_cell_dir(machine, place.store)
    # what is new about the kernel or the guest is new for all cases
    common = difference or manifest.explain(manifest.list_guest_files(machine), before.guest)
    toolchain = kernel.request.toolchain
    cases: dict[str, list[GuestCase]] = {}
    for case in job.cases:
        files = take_as_changed(manifest.list_case_files(case), place.what_if)
        own = manifest.explain(files, before.cases.get(case.id, {}))
        if set(files) & set(place.what_if) or not find_result(folder, case, make_program_id(case, toolchain)):
            cases.setdefault(own or common or "not run yet, or without an answer", []).append(case)
    for why, chosen in cases.items():
        yield f"run {', '.join(case.id for case in chosen)}: {why}"
