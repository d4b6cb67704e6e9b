# SPDX-License-Identifier: GPL-2.0-or-later
"""Measures how many mutants the tests of a job notice."""

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from orchestrator.errors import UsageError
from orchestrator.kernel.build import Kernel
from orchestrator.mutants.operators import WRITTEN, Site
from orchestrator.mutants.schemata import Schemata, make_schemata
from orchestrator.mutants.score import Measurement, MutantResult, State, draw_sample, find_state
from orchestrator.mutants.sweep import Sweep
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import choose_machine, compile_tests, make_build_request
from orchestrator.plan.steps import build_job, find_source_of
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.process.budget import Budget
from orchestrator.process.progress import Board
from orchestrator.process.workers import Stopped, Task, work
from orchestrator.project.mutants import MutantSpec
from orchestrator.result.stored import find_results_dir
from orchestrator.source.repository import Source

# to boot and save a guest takes as long as some of the mutants that are run in it
_MUTANTS_PER_GUEST = 24


@dataclass(frozen=True, slots=True)
class Choice:
    """Which mutants to run: those that match a word (a name or glob), or a random sample of ``number``."""

    words: tuple[str, ...] = ()
    number: int = 0
    seed: int = 1


def plan_mutants(
    job: Job, spec: MutantSpec, choice: Choice, declared: Declarations, place: Workspace
) -> Measurement:
    """The chosen mutants of the job's source, also those that the config may leave out; none is run."""
    source, schemata = _prepare(job, spec, declared, place)
    results = [MutantResult(site, State.PENDING) for site in choose_sites(schemata.sites, choice)]
    tests = tuple(test.id for test in job.tests)
    sites = len(schemata.sites)
    return Measurement(f"{source.tree} {source.version}", source.commit, tuple(results), sites, sites, tests)


def _prepare(job: Job, spec: MutantSpec, declared: Declarations, place: Workspace) -> tuple[Source, Schemata]:
    """The job's source and its mutants; raises ``StageFailure`` when there is no such source."""
    source = find_source_of(job, declared, place)
    return source, make_schemata(source, spec, place.store)


def choose_sites(sites: Sequence[Site], choice: Choice) -> list[Site]:
    """The chosen of the sites; raises ``UsageError`` for a word that matches none."""
    if not choice.words:
        generated = [site for site in sites if site.operator != WRITTEN]
        return draw_sample(generated, choice.number, choice.seed)
    for word in choice.words:
        if not any(fnmatchcase(site.name, word) for site in sites):
            raise UsageError(
                f"no mutant of this kernel is named {word}",
                where="MUTANTS",
                hint="names are FILE:FUNCTION:OPERATOR:N, such as mm/memory.c:do_wp_page:if-never:1",
            )
    return [site for site in sites if any(fnmatchcase(site.name, word) for word in choice.words)]


def measure(
    job: Job, spec: MutantSpec, choice: Choice, declared: Declarations, place: Workspace, accel: str
) -> Measurement:
    """Build the image with all mutants, and run the tests on the chosen ones."""
    source, schemata = _prepare(job, spec, declared, place)
    # before anything is built: a wrong word is an error, and a dry run lists the same mutants
    chosen = choose_sites(schemata.sites, choice)
    mutated = schemata.put_into(job)
    kernel = build_job(mutated, declared, place)
    numbers = find_compiled(kernel)
    compiled = [site for site in chosen if site.number in numbers]
    machine = choose_machine(mutated, kernel, place, accel)
    programs = compile_tests(mutated, kernel, place)
    plain = replace(kernel, request=make_build_request(job, source, declared, place))
    folder = place.store.path(
        "mutant-results", find_results_dir(replace(machine, kernel=plain), place.store).name
    )
    sweep = Sweep(machine, programs, place.lib_dir, folder, place.progress)
    _work([Task("reach", "", lambda board, budget: _find_reach(sweep, place, board, budget))], place)
    sweep.load()
    place.progress.stage("mutants", f"{len(compiled)} of {len(numbers)}")
    _work(list(_make_tasks(sweep, compiled, spec, place)), place)
    sweep.load()
    return Measurement(
        kernel.request.subject,
        kernel.request.source.commit,
        tuple(
            _describe(site, sweep, spec) if site.number in numbers else MutantResult(site, State.LEFT_OUT)
            for site in chosen
        ),
        len(numbers),
        len(schemata.sites),
        tuple(program.test.id for program in programs),
    )


def _work(tasks: Sequence[Task[None]], place: Workspace) -> None:
    """Do the tasks in as many guests as there are cores for; outcomes are kept also if one of them fails."""
    try:
        work(tasks, place.limits, place.progress)
    except Stopped as stopped:
        raise ExceptionGroup("mutants", stopped.errors) from None


def _find_reach(sweep: Sweep, place: Workspace, board: Board, budget: Budget) -> None:
    with _open(sweep, place, board, budget) as own:
        own.find_reach()


@contextlib.contextmanager
def _open(sweep: Sweep, place: Workspace, board: Board, budget: Budget) -> Iterator[Sweep]:
    """A worker's own sweep, inside the block with a guest of its own."""
    shape = sweep.machine.shape
    with budget.guest(shape.cpus, shape.memory_mib), place.store.own_scratch("mutants-guest") as folder:
        yield replace(sweep, progress=board, place=folder)


def _make_tasks(
    sweep: Sweep, sites: Sequence[Site], spec: MutantSpec, place: Workspace
) -> Iterator[Task[None]]:
    """A task boots one guest and saves it for all its mutants."""
    count = _MUTANTS_PER_GUEST if place.limits.cores else max(1, len(sites))
    for number, begin in enumerate(range(0, len(sites), count), 1):
        share = sites[begin : begin + count]

        def call(board: Board, budget: Budget, share: Sequence[Site] = share) -> None:
            with _open(sweep, place, board, budget) as own:
                for done, site in enumerate(share):
                    board.count(done, len(share), "mutants")
                    own.try_mutant(site)
                    one = _describe(site, own, spec)
                    last = f": {one.last.test}, {one.last.reason}" if one.last else ""
                    board.note(f"{one.state}: {site.name}{last}")

        yield Task(f"mutants {number}", "", call)


def _describe(site: Site, sweep: Sweep, spec: MutantSpec) -> MutantResult:
    outcomes = tuple(sweep.list_outcomes(site))
    proof = next((why for name, why in spec.equivalent.items() if fnmatchcase(site.name, name)), "")
    state = find_state(
        outcomes,
        is_reached=bool(sweep.list_tests(site)),
        is_missing=bool(sweep.list_missing(site)),
        is_equivalent=bool(proof),
    )
    return MutantResult(site, state, outcomes, proof if state is State.EQUIVALENT else "")


def find_compiled(kernel: Kernel) -> set[int]:
    """The numbers of the mutants that are in the image; raises ``UsageError`` if it has no symbols."""
    done = command.run([command.find_tool("nm", "binutils"), str(kernel.folder / "vmlinux")], check=False)
    numbers = {int(number) for number in re.findall(r"\bmutant_site_(\d+)$", done.output, re.M)}
    if not numbers:
        raise UsageError(
            f"the kernels of {kernel.request.arch.name} are stored without symbols", where="mutants"
        )
    return numbers
