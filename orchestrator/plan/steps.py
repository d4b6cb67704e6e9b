# SPDX-License-Identifier: GPL-2.0-or-later
"""A job as a list of steps: source, config, build, rootfs, run. A dry run prints the list, a run executes it.

A step has its reason before it runs. A run does a step before it asks for the next one; the dry run does not,
and then the steps that need the product run because it is new.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from orchestrator.errors import CowbellError, InfraError, StageFailure, UsageError
from orchestrator.guest.accel import check_accel, find_accel
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import make_rootfs_id
from orchestrator.guest.vng import FRAGMENT
from orchestrator.history.database import VARIANT_FILE, add_result
from orchestrator.kernel.build import (
    BuildRequest,
    Kernel,
    check_config,
    find_config,
    find_kernel,
)
from orchestrator.kernel.kconfig import SymbolOutcome
from orchestrator.plan import manifest
from orchestrator.plan.manifest import Files, Manifest, load_manifest, save_manifest
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import (
    apply_job,
    choose_machine,
    compile_tests,
    find_reason_left_out,
    find_selftests,
    find_test_toolchain,
    has_selftests,
    list_expected,
    list_known_splats,
    list_selftests,
    make_build_request,
    make_kernel,
    make_record,
    note_dropped,
    report_symbols,
)
from orchestrator.plan.workspace import Workspace
from orchestrator.process.progress import Progress
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.selftest import list_directories
from orchestrator.result.record import Expected, JobRecord, Known, TrialResult, save_job
from orchestrator.result.stored import find_results, find_results_dir
from orchestrator.result.verdict import judge_trial, summarize_trial
from orchestrator.run.compile import Program, make_program_id
from orchestrator.run.runner import run_tests
from orchestrator.source.apply import find_source
from orchestrator.source.fetch import fetch_tree, find_fetched, read_local
from orchestrator.source.local import has_own_files
from orchestrator.source.repository import Source
from orchestrator.source.tree import IMAGES, LocalTree, Tree

T = TypeVar("T")
STAGES = ("source", "config", "build", "rootfs", "run")
# the last stage of each target
_LAST = {"source": "source", "config": "config", "build": "build", "shell": "rootfs", "test": "run"}
_AGAIN = "asked for again (-B)"


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a job. An empty ``why`` means up to date.

    ``key`` is the cache key of its product, empty where an earlier step must run to know it. ``same_as``
    names an earlier job of the same request that has the same step, which is done once.
    """

    stage: str
    subject: str
    why: str
    key: str = ""
    same_as: str = ""


# each with the call that does it
Steps = Iterator[tuple[Step, Callable[[], object]]]


def perform(steps: Steps) -> None:
    """Do each step that has a reason before the next one is asked for."""
    for step, do in steps:
        if step.why:
            do()


@dataclass(frozen=True, slots=True)
class Goal:
    """How far the steps go, the stages that are done ``again`` (-B), and whether each symbol is reported."""

    last: str = "run"
    again: frozenset[str] = frozenset()
    reports_symbols: bool = False

    def reaches(self, stage: str) -> bool:
        return STAGES.index(stage) <= STAGES.index(self.last)


def make_goal(targets: Iterable[str], *, redo: bool = False) -> Goal:
    """The goal of the targets of a command line."""
    stages = [_LAST[target] for target in targets]
    again = frozenset(stages) - {"rootfs"} if redo else frozenset[str]()
    return Goal(max(stages, key=STAGES.index), again, "config" in stages)


TEST = Goal()
BUILD = Goal("build")


def find_same_steps(jobs: Sequence[Job]) -> dict[str, dict[str, str]]:
    """By job and kind of step, an earlier job that has the same step: one tree, series, kernel or guest."""
    seen: dict[tuple[object, ...], str] = {}
    found: dict[str, dict[str, str]] = {}
    for job in jobs:
        tree = (job.tree.name, repr(job.tree), job.built.build_id if job.built else "")
        source = (*tree, job.series.name, *job.series.files)
        build = (source, job.row.arch, job.row.kconfig, list_directories(job.tests))
        run = (build, repr(job.row.guest), job.boot)
        kinds: dict[str, list[tuple[object, ...]]] = {
            "tree": [tree],
            "series": [source],
            "config": [build],
            "build": [build],
            "rootfs": [(job.row.arch,)],
            "run": [(run, test.id) for test in job.tests],
        }
        own = found[job.name] = {}
        for kind, keys in kinds.items():
            if keys and all((kind, *key) in seen for key in keys):
                own[kind] = seen[(kind, *keys[0])]
            for key in keys:
                seen.setdefault((kind, *key), job.name)
    return found


def look_up_trees(jobs: Sequence[Job], place: Workspace, goal: Goal) -> dict[object, Any]:
    """The trees that are fetched, and the commits of folders: each is looked up once for all jobs.

    All kernels of a command have the same state of a folder.
    """
    found: dict[object, Any] = {}
    for job in {_make_tree_key(job.tree): job for job in jobs if not job.built}.values():
        # the job itself reports errors
        with contextlib.suppress(CowbellError):
            known = find_fetched(job.tree, place.store, found)
            # the first job of a tree may fetch it for the others
            if known and "source" not in goal.again:
                found[_make_tree_key(job.tree)] = known
            if not known and isinstance(job.tree, LocalTree) and has_own_files(job.tree):
                place.progress.for_job(job.name).stage("source", f"{job.tree.name}: {job.tree}")
                read_local(job.tree, place.store, found)
    return found


def _make_tree_key(tree: Tree) -> tuple[str, str, str]:
    return "tree", tree.name, repr(tree)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A job whose source and config steps are done: its tree, and the request for its kernel.

    ``left_out`` is the reason why the job is not tested, ``failure`` the reason why it cannot be built.
    ``new`` says which product was not there before, ``outcomes`` what becomes of each config symbol. ``job``
    is the job itself, with the selftests that its tree has.
    """

    base: Source | None = None
    source: Source | None = None
    request: BuildRequest | None = None
    left_out: str = ""
    failure: StageFailure | InfraError | None = None
    new: str = ""
    outcomes: tuple[SymbolOutcome, ...] | None = None
    job: Job | None = None


@dataclass(slots=True)
class JobSteps:
    """The steps of a job, and their products as far as those are there.

    ``same_as`` is of ``find_same_steps``; ``looked_up`` is shared by jobs that are walked in one process and
    whose steps are not done, and has the commits of folders. ``earlier`` has the results of the turns before.
    """

    job: Job
    declared: Declarations
    place: Workspace
    accel: str = "tcg"
    goal: Goal = TEST
    same_as: Mapping[str, str] = field(default_factory=dict)
    looked_up: MutableMapping[object, Any] = field(default_factory=dict)
    earlier: dict[str, list[TrialResult]] = field(default_factory=dict)
    prepared: Prepared = Prepared()
    kernel: Kernel | None = None
    machine: Machine | None = None
    results: dict[str, list[TrialResult]] = field(default_factory=dict)
    has_run: bool = False
    # the product that was not there before, for the steps that need it
    _new: str = ""
    _is_rebuilt: bool = False
    _made_of: Files = field(default_factory=dict)
    _before: Manifest = field(init=False)
    _expected: tuple[Expected, ...] | None = None
    _known_splats: tuple[Known, ...] = ()

    def __post_init__(self) -> None:
        self._before = load_manifest(self.job, self.place.store)
        self._new = self.prepared.new
        self.job = self.prepared.job or self.job

    def list_steps(self) -> Steps:
        yield from self.list_first_steps()
        if not self.prepared.left_out:
            yield from self.list_last_steps()

    # --- source and config, which all jobs go through before the first object is compiled

    def list_first_steps(self) -> Steps:
        if self.job.built:
            yield from self._take_prebuilt()
            return
        yield from self._fetch()
        base = self.prepared.base
        if base and (reason := find_reason_left_out(self.job, base, self.place)):
            self.prepared = replace(self.prepared, left_out=reason)
            yield self._step("plan", "plan", f"left out, {reason}", "", "", _do_nothing)
            return
        if isinstance(self.job.tree, IMAGES):
            self.prepared = replace(self.prepared, source=base, new=self._new)
            return
        yield from self._apply()
        if has_selftests(self.job):
            yield from self._list_selftests()
        if self.goal.reaches("config"):
            yield from self._check_config()

    def _take_prebuilt(self) -> Steps:
        built = self.job.built
        assert built
        self.prepared = Prepared(
            built.base, built.source, left_out=find_reason_left_out(self.job, built.base, self.place)
        )
        if reason := self.prepared.left_out:
            yield self._step("plan", "plan", f"left out, {reason}", "", "", _do_nothing)
        elif not built.source:
            told = "it could not be built where that was tried"
            yield self._step("build", "build", "image", told, "", built.find_source)
        else:
            self._request()

    def _fetch(self) -> Steps:
        tree, store = self.job.tree, self.place.store
        known = self._look_up(_make_tree_key(tree), lambda: find_fetched(tree, store, self.looked_up))
        self.prepared = replace(self.prepared, base=known)
        again = self._again("tree", "source")
        why = again or ("" if known else f"fetch {tree}, it has not been fetched yet")

        def do() -> None:
            base = fetch_tree(tree, store, self.place.progress, redo=bool(again), read=self.looked_up)
            self.prepared = replace(self.prepared, base=base)

        yield self._step("tree", "source", tree.name, why, known.source_id if known else "", do)
        self._mark_new("source", is_new=not known)
        if known and "source" in self.goal.again:
            # its ref may have moved
            self._new = "the source may be new"

    def _apply(self) -> Steps:
        job, place = self.job, self.place
        base, series, fixups = self.prepared.base, job.series, self.declared.fixups
        key = ("source", base.source_id if base else "", series.name, *(p.path for p in series.patches))
        known = self._look_up(key, lambda: find_source(base, series, fixups, place.store)) if base else None
        self.prepared = replace(self.prepared, source=known)
        if not (series.patches or fixups):
            return
        again = self._again("series", "source")
        changed = self._changed("series", manifest.list_patch_names(job.series, fixups))
        why = self._new or again or changed or ("" if known else "apply it, it is new on this tree")

        def do() -> None:
            base = self.prepared.base
            assert base
            source = apply_job(job, base, self.declared, place, redo=bool(again or changed))
            self.prepared = replace(self.prepared, source=source)

        subject = f"series {series.name}" if series.patches else "fixups"
        yield self._step("series", "source", subject, why, known.source_id if known else "", do)
        self._mark_new("source", is_new=not known)

    def _list_selftests(self) -> Steps:
        """Replace the words for selftests by the tests that they select in this source."""
        job, declared, place, source = self.job, self.declared, self.place, self.prepared.source
        known = find_selftests(job, source, declared, place) if source else None

        def take(found: Job) -> None:
            self.job = found
            self.prepared = replace(self.prepared, job=found)

        def do() -> None:
            source = self.prepared.source
            assert source
            take(list_selftests(job, source, declared, place))

        names = ", ".join(list_directories(job.tests))
        why = "" if known else "list their programs, which is new on this source"
        yield self._step("selftests", "source", f"selftests of {names}", why, "", do)
        if known:
            take(known)

    def _request(self) -> BuildRequest | None:
        """The request for the kernel, as soon as its source is there."""
        source, base = self.prepared.source, self.prepared.base
        if self.prepared.request or not source or not base:
            return self.prepared.request
        own = list_directories(self.job.tests)
        key = "request", source.source_id, self.job.row.arch, self.job.row.kconfig, own, self.job.built
        request = self._look_up(key, lambda: make_build_request(self.job, source, self.declared, self.place))
        self.prepared = replace(self.prepared, request=request)
        return request

    def _find_files(self) -> Files:
        """The inputs of the kernel, as far as they are known."""
        request, base = self.prepared.request, self.prepared.base
        if not self._made_of and request and base:
            self._made_of = manifest.list_kernel_files(self.job, base, request, self.declared)
        return self._made_of

    def _check_config(self) -> Steps:
        place, job, request = self.place, self.job, self._request()
        # in the dry run an earlier job may be the one that checks the same config on the same Kconfig files
        checks = self._find_job_that_checks(request) if request else job.name
        if self.goal.reports_symbols:
            why, checks = self._again("config", "config") or "report each symbol", job.name
        else:
            why = self._new or self._changed("config", self._find_files())
            if not why and checks:
                why = f"check it: {self._explain_kernel('Kconfig has not checked it yet')}"

        def do() -> None:
            request = self._request()
            assert request
            if self.goal.reports_symbols:
                self.prepared = replace(self.prepared, outcomes=report_symbols(request, place))
            if self.goal.reaches("build"):
                check_config(request, place.store, place.progress, place.budget)
                note_dropped(request, place)

        config_id = request.config.config_id if request else ""
        step, _ = self._step("config", "config", " ".join(job.row.kconfig), why, config_id, do)
        is_other = bool(checks and checks != job.name and not self._new)
        yield (replace(step, same_as=step.same_as or checks) if is_other else step), do
        self.prepared = replace(self.prepared, new=self._new)

    def _find_job_that_checks(self, request: BuildRequest) -> str:
        """The job whose step has Kconfig check this config; empty where it is checked."""
        if find_kernel(request, self.place.store):
            return ""
        folder = find_config(request, self.place.store)
        return "" if folder.is_dir() else self._look_up(("config", folder.name), lambda: self.job.name)

    # --- build, rootfs and run

    def list_last_steps(self) -> Steps:
        """Raises ``StageFailure`` where the first steps failed."""
        if self.prepared.failure:
            raise self.prepared.failure
        if self.job.built and not self.prepared.request:
            return
        for stage, list_steps in (("build", self._build), ("rootfs", self._make_root), ("run", self._run)):
            if self.goal.reaches(stage):
                yield from list_steps()

    def _build(self) -> Steps:
        job, place, built = self.job, self.place, self.job.built
        request = self._request()
        files = self._find_files()
        known = self.kernel = find_kernel(request, place.store) if request else None
        if built and request and not known:
            built.check(request)
        again = self._again("build", "build") if not built else ""
        changed = self._changed("build", files)
        redo = bool(known and (again or changed))
        why = self._new or again
        if built and not known:
            why = f"take it from {built.folder}"
        elif not why and not known and isinstance(job.tree, IMAGES):
            why = "take it from the store's images"
        elif not why and (changed or not known):
            why = (
                f"build it: {self._explain_kernel('nothing was built from this source, config and compiler')}"
            )

        def do() -> None:
            request = self._request()
            assert request
            if not known or redo:
                self._expect(self._before.build_s, self._before.expect_tests_s(job.tests))
            self.kernel = make_kernel(job, request, place, redo=redo)

        with_vng = f", with {FRAGMENT} for BOOT=vng" if job.boot == "vng" else ""
        yield self._step("build", "build", f"image{with_vng}", why, request.build_id if request else "", do)
        self._is_rebuilt = redo
        self._mark_new("kernel", is_new=redo or not known)

    def _make_root(self) -> Steps:
        arch, store = ARCHES[self.job.row.arch], self.place.store
        rootfs_id = make_rootfs_id(arch)
        accel = find_accel(self.accel, arch, store)
        is_there = bool(accel) and store.path("rootfs", rootfs_id).is_dir()
        if accel:
            check_accel(self.accel, accel)

        def do() -> None:
            assert self.kernel
            self.machine = choose_machine(self.job, self.kernel, self.place, self.accel)

        built = self.job.built
        where = f"take it from {built.folder}" if built else "make it"
        why = "" if is_there else f"{where}, and see which accelerator works"
        if built and built.rootfs_id != rootfs_id:
            raise UsageError(
                f"the root image of {self.job.name} was made by another version of cowbell",
                where=built.folder,
                hint=f"cowbell build ROW={self.job.row.name} DIR={built.folder} makes it again",
            )
        yield self._step("rootfs", "rootfs", arch.name, why, rootfs_id, do)
        if self.kernel and is_there and not self.machine:
            do()
        self._mark_new("guest", is_new=not is_there)

    def _run(self) -> Steps:
        again = self._again("run", "run")
        whys = {} if self._new or again or not self.machine else self._explain_tests()
        # in the dry run there may be no kernel yet
        why = again or self._new
        number = len(self.job.tests)
        why = f"run {number} test(s), {why}" if why else "; ".join(
            f"run {', '.join(names)}: {reason}" for reason, names in whys.items()
        )  # fmt: skip
        key = find_results_dir(self.machine, self.place.store).name if self.machine else ""
        yield self._step("run", "run", f"{number} test(s)", why, key, self._run_missing)

    def _find_results(self, test: GuestTest, program_id: str) -> list[TrialResult]:
        """The trials that count, of the store or of an earlier turn."""
        assert self.machine
        folder = find_results_dir(self.machine, self.place.store)
        stored = find_results(folder, test, program_id, self._list_splats())
        # the store gives out no trial that was no answer, and to ask again would be to hide it
        return max(self.earlier.get(test.id, []), stored, key=len)

    def _explain_tests(self) -> dict[str, list[str]]:
        """The tests to run, by reason."""
        assert self.kernel and self.machine
        common = ""
        whys: dict[str, list[str]] = {}
        for test in self.job.tests:
            files = self._list_test_files(test)
            toolchain = find_test_toolchain(self.job, test, self.kernel, self.place)
            known = self.results[test.id] = self._find_results(test, make_program_id(test, toolchain))
            if not self._changed("run", files):
                if not self.place.repeat.wants_more(test, known, self._list_splats()):
                    continue
                # an input of the kernel or the guest that changed has changed for all tests
                guest = manifest.list_guest_files(self.machine)
                common = self._explain_kernel("") or manifest.explain(guest, self._before.guest)
            now = manifest.take_as_changed(files, self.place.what_if)
            own = manifest.explain(now, self._before.tests.get(test.id, {}))
            own = own or self._changed("run", files)
            whys.setdefault(own or common or "not run yet, or without an answer", []).append(test.id)
        return whys

    def _run_missing(self) -> None:
        """Run the tests that miss a trial; raises as ``run_tests``."""
        job, place, machine, kernel = self.job, self.place, self.machine, self.kernel
        assert machine and kernel
        programs = compile_tests(job, kernel, place)
        tests = {program.test.id: program.test for program in programs}
        files = {test.id: self._list_test_files(test) for test in job.tests}
        redo = bool(self._is_rebuilt or self._again("run", "run"))
        folder = find_results_dir(machine, place.store)

        def is_wanted_again(result: TrialResult) -> bool:
            known = [*self.results[result.test], result]
            return place.repeat.wants_more(tests[result.test], known, self._list_splats())

        # a job that waits here for another one with the same variant takes the results of that one
        with place.store.lock(f"results-{folder.name}"):
            missing: list[Program] = []
            for program in programs:
                test = program.test
                is_redone = redo or self._changed("run", files[test.id])
                known = [] if is_redone else list(self._find_results(test, program.program_id))
                self.results[test.id] = known
                if place.repeat.wants_more(test, known, self._list_splats()):
                    missing.append(replace(program, trial=len(known) + 1))
            if not missing:
                return
            self._expect(self._before.expect_tests_s([program.test for program in missing]))
            record = self.record
            save_job(record, folder / VARIANT_FILE)
            with place.budget.guest(machine.shape.cpus, machine.shape.memory_mib):
                for result in run_tests(
                    machine, missing, place.lib_dir, folder, place.progress, is_wanted_again
                ):
                    add_result(place.store, record, result, folder, place.progress)
                    self.results[result.test].append(result)
                    _show_result(record, result, place.progress)
        self.has_run = True
        # of tests that are not of this request, the older entries stay
        times = self._before.test_s | {
            name: each[-1].duration_s for name, each in self.results.items() if each
        }
        guest = manifest.list_guest_files(machine)
        made = Manifest(self._find_files(), guest, self._before.tests | files, kernel.build_s, times)
        save_manifest(made, job, place.store)

    # --- the reasons

    def _step(
        self, kind: str, stage: str, subject: str, why: str, key: str, do: Callable[[], object]
    ) -> tuple[Step, Callable[[], object]]:
        return Step(stage, f"{self.job.name}: {subject}", why, key, self.same_as.get(kind, "")), do

    def _again(self, kind: str, stage: str) -> str:
        return _AGAIN if stage in self.goal.again and kind not in self.same_as else ""

    def _changed(self, kind: str, names: Iterable[str]) -> str:
        """Which inputs are taken as changed (-W)."""
        if kind in self.same_as:
            return ""
        changed = [name for name in names if name in self.place.what_if]
        return ", ".join(f"{name} is {manifest.AS_CHANGED}" for name in changed)

    def _mark_new(self, product: str, *, is_new: bool) -> None:
        if is_new:
            self._new = f"the {product} is new"

    def _explain_kernel(self, otherwise: str) -> str:
        now = manifest.take_as_changed(self._find_files(), self.place.what_if)
        return manifest.explain(now, self._before.kernel) or otherwise

    def _list_test_files(self, test: GuestTest) -> Files:
        found: Files = self._look_up(("test", test.id), lambda: manifest.list_test_files(test))
        return found

    def _look_up(self, key: object, call: Callable[[], T]) -> T:
        if key not in self.looked_up:
            self.looked_up[key] = call()
        return cast(T, self.looked_up[key])

    def _expect(self, *times: float | None) -> None:
        """Tell how long the job will still take, if that is known."""
        known = [seconds for seconds in times if seconds is not None]
        if len(known) == len(times):
            self.place.progress.expect(sum(known))

    # --- the record

    def _list_splats(self) -> tuple[Known, ...]:
        base = self.prepared.base
        if self._expected is None and base:
            self._expected = list_expected(self.job, base, self.place)
            self._known_splats = list_known_splats(self.job, base, self.declared, self.place)
        return self._known_splats

    @property
    def record(self) -> JobRecord:
        """The record of the job, as far as its steps are done."""
        base, request, machine = self.prepared.base, self.prepared.request, self.machine
        splats = self._list_splats()
        record = replace(
            make_record(self.job),
            target_rates=self.place.repeat.list_target_rates(self.job.tests),
            left_out=self.prepared.left_out,
            expect=self._expected or (),
            known=splats,
        )
        if base:
            record = replace(
                record, tree=base.tree, version=str(base.version), origin=base.origin, base=base.commit
            )
        if self.kernel and request:
            record = replace(
                record,
                fixups=request.source.fixups,
                commit=request.source.commit,
                tree_id=request.source.tree_id,
                source_id=request.source.source_id,
                config_id=request.config.config_id,
                build_id=request.build_id,
            )
        if machine:
            record = replace(
                record, rootfs_id=machine.rootfs.rootfs_id, accel=machine.accel, boot=machine.boot
            )
        return record


def _show_result(record: JobRecord, result: TrialResult, progress: Progress) -> None:
    verdicts = judge_trial(record, result)
    progress.verdict(*summarize_trial(verdicts))
    for verdict in verdicts:
        reason = f": {verdict.reason}" if verdict.reason else ""
        progress.detail(f"{verdict.label} {verdict.name}{reason}")


def _do_nothing() -> None:
    pass


# --- the calls that do the steps


def prepare_job(
    job: Job,
    declared: Declarations,
    place: Workspace,
    goal: Goal = BUILD,
    same_as: Mapping[str, str] | None = None,
    looked_up: Mapping[object, Any] | None = None,
) -> Prepared:
    """Do the source and config steps. Of errors it raises those of the host and of the user."""
    own = dict(looked_up or {})
    steps = JobSteps(job, declared, place, goal=goal, same_as=same_as or {}, looked_up=own)
    try:
        perform(steps.list_first_steps())
    except StageFailure as failure:
        return replace(steps.prepared, failure=failure)
    return steps.prepared


def build_job(job: Job, declared: Declarations, place: Workspace, prepared: Prepared | None = None) -> Kernel:
    """Do the steps of one job up to its kernel; raises ``StageFailure`` where there is none."""
    prepared = prepared or prepare_job(job, declared, place)
    if prepared.left_out:
        raise StageFailure("source", f"left out: {prepared.left_out}")
    steps = JobSteps(job, declared, place, goal=BUILD, prepared=prepared)
    perform(steps.list_last_steps())
    assert steps.kernel
    return steps.kernel


def find_source_of(job: Job, declared: Declarations, place: Workspace) -> Source:
    """The source of one job; raises ``StageFailure`` where there is none."""
    prepared = prepare_job(job, declared, place)
    if prepared.failure:
        raise prepared.failure
    if prepared.left_out or not prepared.source:
        raise StageFailure("source", f"left out: {prepared.left_out}")
    return prepared.source
