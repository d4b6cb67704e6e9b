# SPDX-License-Identifier: GPL-2.0-or-later
"""The stages of one job: source, kernel, machine, test programs, expectations.

Prebuilt kernels enter here; later stages do not see the difference.
"""

import datetime
from dataclasses import dataclass, replace

from orchestrator.errors import StageFailure
from orchestrator.guest.accel import choose_accel
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import make_rootfs
from orchestrator.guest.vng import find_reason_not
from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain, build_kernel, check_config
from orchestrator.kernel.kconfig import make_config
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import SELFTEST
from orchestrator.result.record import Expected, JobRecord, Known
from orchestrator.run.runner import Program, compile_test
from orchestrator.run.selftests import compile_selftests
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source


def make_record(job: Job) -> JobRecord:
    """What is known of a job before any of it is done."""
    return JobRecord(
        row=job.row.name,
        variant=job.variant.name,
        arch=job.row.arch,
        tree=job.tree.name,
        series=job.series.name,
        tests={test.id: test.subtests for test in job.tests},
        races=tuple(test.id for test in job.tests if test.kind == "race"),
    )


def find_base(job: Job, place: Workspace) -> Source:
    """The job's tree; raises as ``fetch_tree``."""
    return job.built.base if job.built else fetch_tree(job.tree, place.store, place.progress)


def apply_job(job: Job, base: Source, declared: Declarations, place: Workspace) -> Source:
    """The job's series on its tree; raises as ``apply_series``."""
    if job.built:
        return job.built.find_source()
    return apply_series(
        base, job.series, declared.fixups, place.store, place.progress, keep_going=place.keep_going
    )


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job of which nothing is compiled yet: its tree, and what is to be built.

    ``request`` is None where the job is ``left_out``, with the reason, or cannot be built: ``failure``.
    """

    base: Source
    request: BuildRequest | None = None
    left_out: str = ""
    failure: StageFailure | None = None

    @property
    def checked_request(self) -> BuildRequest:
        """Raises ``StageFailure`` where there is none."""
        if self.left_out:
            raise StageFailure("source", f"left out: {self.left_out}")
        if self.failure:
            raise self.failure
        assert self.request
        return self.request


def prepare_job(job: Job, declared: Declarations, place: Workspace) -> Prepared:
    """Fetch the tree, apply the series, have Kconfig check the config. Raises only what is the host's."""
    base = find_base(job, place)
    if reason := find_reason_left_out(job, base):
        return Prepared(base, left_out=reason)
    try:
        request = make_build_request(job, apply_job(job, base, declared, place), declared, place)
        if not job.built:
            check_config(request, place.store, place.progress, place.budget)
    except StageFailure as failure:
        return Prepared(base, failure=failure)
    return Prepared(base, request)


def build_prepared(job: Job, prepared: Prepared, place: Workspace, *, redo: bool = False) -> Kernel:
    """The kernel of a job; raises ``StageFailure`` where it is left out or there is none."""
    return make_kernel(job, prepared.checked_request, place, redo=redo)


def build_job(job: Job, declared: Declarations, place: Workspace) -> Kernel:
    """Prepare and build one job."""
    return build_prepared(job, prepare_job(job, declared, place), place)


def make_build_request(job: Job, src: Source, declared: Declarations, place: Workspace) -> BuildRequest:
    arch = ARCHES[job.row.arch]
    config = make_config(job.row.kconfig, declared.fragments, arch, src.version)
    request = place.make_request(src, config, arch)
    if job.built:
        return replace(request, toolchain=replace(request.toolchain, identity=job.built.toolchain))
    return request


def make_kernel(job: Job, request: BuildRequest, place: Workspace, *, redo: bool) -> Kernel:
    if job.built:
        return job.built.find_kernel(request, place.store)
    limit_s = job.row.limits.build_s
    return build_kernel(request, place.store, place.progress, place.budget, limit_s=limit_s, redo=redo)


def find_machine(job: Job, kernel: Kernel, place: Workspace) -> Machine:
    """The row's machine, on the accelerator that always works."""
    image = make_rootfs(kernel.request.arch, place.store, place.progress)
    return Machine(
        kernel, image, job.row.guest, "tcg", job.row.limits.boot_s, boot=job.boot, keep_core=place.keep_core
    )


def choose_machine(job: Job, kernel: Kernel, place: Workspace, accel: str) -> Machine:
    """The row's machine, on the accelerator that was asked for and works."""
    machine = find_machine(job, kernel, place)
    return replace(machine, accel=choose_accel(accel, machine, place.store, place.progress))


def find_test_toolchain(job: Job, kernel: Kernel, place: Workspace) -> Toolchain:
    """What compiles the tests: what compiled the kernel, unless that was done elsewhere."""
    return place.find_toolchain(kernel.request.arch) if job.built else kernel.request.toolchain


def compile_tests(job: Job, kernel: Kernel, place: Workspace) -> list[Program]:
    """The job's tests as programs for its kernel's guest; our own first."""
    toolchain = find_test_toolchain(job, kernel, place)
    own = [test for test in job.tests if test.language != SELFTEST]
    selftests = [test for test in job.tests if test.language == SELFTEST]
    return [
        *(compile_test(test, toolchain, place.lib_dir, place.store) for test in own),
        *compile_selftests(selftests, kernel.request, place.store, place.progress),
    ]


def list_expected(job: Job, base: Source, place: Workspace) -> tuple[Expected, ...]:
    """What is expected of this kernel, today; what no longer is stays, to be told."""
    return tuple(
        Expected(
            e.test, e.status, e.why, e.until.isoformat() if e.until else "",
            _is_over(e.until, f"{e.test} to {e.status}", e.where, place), e.fingerprint,
        )
        for e in job.variant.expect
        if e.when.holds(job.row.arch, base.version)
    )  # fmt: skip


def list_known_splats(job: Job, base: Source, declared: Declarations, place: Workspace) -> tuple[Known, ...]:
    """What this kernel is known to complain of today, and is passed over."""
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


def find_reason_left_out(job: Job, base: Source) -> str:
    """Why a job is not for its tree, or not for who boots it; empty when it is for both."""
    if job.boot == "vng" and (reason := find_reason_not(ARCHES[job.row.arch])):
        return reason
    if job.built:
        return job.built.left_out
    if job.series.when.holds(job.row.arch, base.version):
        return ""
    return f"series {job.series.name} is for {job.series.when.text}, {base.tree} is {base.version}"
