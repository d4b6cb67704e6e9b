# SPDX-License-Identifier: GPL-2.0-or-later
"""What the targets would do about jobs, and why, without doing any of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.accel import find_accel
from orchestrator.arch import ARCHES
from orchestrator.build import find_kernel
from orchestrator.fetch import find_fetched
from orchestrator.kconfig import make_config
from orchestrator.pipeline import find_cell_dir, find_machine, find_reason_left_out, find_result
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
    folder = find_cell_dir(replace(find_machine(job, kernel, place), accel=chosen.split()[0]), store)
    missing = [
        case.id
        for case in job.cases
        if not find_result(folder, case, make_program_id(case, request.toolchain))
    ]
    why = f"run {', '.join(missing)}: not run yet, or changed" if missing else ""
    yield Step("run", f"{name}: {len(job.cases)} case(s)", why)
