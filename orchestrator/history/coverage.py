# SPDX-License-Identifier: GPL-2.0-or-later
"""Coverage: the trees on which each subtest has failed and passed.

A test that has never failed may be unable to fail; one that has never passed may be unable to pass. Results
of an older version of a test are ignored.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError
from orchestrator.parse.ktap import Rate
from orchestrator.project.changelog import Statement
from orchestrator.project.guesttest import GuestTest
from orchestrator.result import statistics
from orchestrator.result.record import JobRecord, RunRecord, TargetRate, load_run
from orchestrator.result.verdict import is_unexercised, judge_job
from orchestrator.status import Status

_SIDES = {
    Status.FAIL: "fail", Status.CRASH: "fail", Status.TIMEOUT: "fail", Status.PASS: "pass",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Observation:
    """A subtest's outcome on one kernel of one row, and the run with the evidence.

    ``rate`` is how often a race was hit, if the test reports it. ``is_unexercised``: it was skipped, though
    its row lists it by name.
    """

    test: str
    name: str
    row: str
    kernel: str
    status: Status
    run_id: str
    rate: Rate | None = None
    is_unexercised: bool = False


@dataclass(frozen=True, slots=True)
class Proof:
    """The kernels on which one subtest has failed and passed, with its rates if it reports them.

    ``unexercised_in`` are the rows that list the test by name, and only skip this subtest.
    """

    test: GuestTest
    name: str
    failed_on: Mapping[str, Rate | None]
    passed_on: Mapping[str, Rate | None]
    unexercised_in: tuple[str, ...] = ()

    @property
    def is_two_sided(self) -> bool:
        return bool(self.failed_on and self.passed_on)


def load_runs(folder: Path) -> Iterator[RunRecord]:
    """The runs below a folder that this version can read, oldest first."""
    runs = []
    for path in folder.glob("*/record.json"):
        if path.parent.is_symlink():
            continue
        try:
            runs.append(load_run(path))
        except UsageError:
            continue
    yield from sorted(runs, key=lambda run: run.started)


def find_observations(
    runs: Iterable[RunRecord], current: Mapping[tuple[str, str], str]
) -> dict[tuple[str, str, str], Observation]:
    """The last outcome by (subtest, row, kernel).

    ``current`` has the current program id of each test, by (test, architecture).
    """
    seen: dict[tuple[str, str, str], Observation] = {}
    for run in runs:
        for job in run.jobs:
            ids = {result.test: result.content_id for result in job.results}
            for verdict in judge_job(job):
                if ids.get(verdict.test) == current.get((verdict.test, job.arch), ""):
                    found = Observation(
                        verdict.test, verdict.name, job.row, describe_kernel(job), verdict.raw, run.run_id,
                        verdict.rate, is_unexercised(job, verdict),
                    )  # fmt: skip
                    seen[found.name, found.row, found.kernel] = found
    return seen


def describe_kernel(job: JobRecord) -> str:
    series = f" + {job.series}" if job.series else ""
    return f"{job.version}{series}" + (f" {job.arch}" if job.arch != "x86_64" else "")


def make_proofs(tests: Sequence[GuestTest], seen: Iterable[Observation]) -> tuple[Proof, ...]:
    """A proof for each subtest, also for those without results.

    If a test does not declare its subtests, the observed ones are used. Rates of several rows on one kernel
    are added.
    """
    sides: dict[tuple[str, str], dict[str, Rate | None]] = {}
    skipped: dict[str, dict[str, bool]] = {}
    names = {test.id: dict.fromkeys(test.subtests) for test in tests}
    for observation in seen:
        rows = skipped.setdefault(observation.name, {})
        rows[observation.row] = rows.get(observation.row, True) and observation.is_unexercised
        if side := _SIDES.get(observation.status):
            kernels = sides.setdefault((observation.name, side), {})
            rates = [rate for rate in (kernels.get(observation.kernel), observation.rate) if rate]
            kernels[observation.kernel] = sum(rates[1:], rates[0]) if rates else None
            names.get(observation.test, {}).setdefault(observation.name)
    return tuple(
        Proof(
            test,
            name,
            sides.get((name, "fail"), {}),
            sides.get((name, "pass"), {}),
            tuple(row for row, is_skipped in skipped.get(name, {}).items() if is_skipped),
        )
        for test in tests
        for name in names[test.id]
    )


def render_proofs(proofs: Sequence[Proof]) -> str:
    """The coverage of each subtest, then the missing parts."""
    lines = []
    for proof in proofs:
        lines.append(proof.name)
        lines.append(f"    FAIL  {_render_kernels(proof.failed_on)}")
        lines.append(f"    PASS  {_render_kernels(proof.passed_on)}")
    missing = {
        "never seen to FAIL": [p.name for p in proofs if p.passed_on and not p.failed_on],
        "never seen to PASS": [p.name for p in proofs if p.failed_on and not p.passed_on],
        "never seen to do either": [p.name for p in proofs if not p.failed_on and not p.passed_on],
        "not exercised by a row that names it": [
            f"{p.name}: {', '.join(p.unexercised_in)}" for p in proofs if p.unexercised_in
        ],
    }
    for what, names in missing.items():
        if names:
            lines += [f"\n{what}: {len(names)}", *(f"    {name}" for name in names)]
    lines.append(f"\n{sum(p.is_two_sided for p in proofs)} of {len(proofs)} subtests seen both ways")
    return "\n".join(lines) + "\n"


def find_target_rates(proofs: Iterable[Proof]) -> dict[str, TargetRate]:
    """The target rate of each race: the lowest confidence bound over all kernels on which it has failed."""
    known: dict[str, TargetRate] = {}
    for proof in proofs:
        for kernel, rate in proof.failed_on.items():
            if rate and rate.hits:
                low, _ = statistics.find_interval(rate)
                if proof.name not in known or low < known[proof.name].rate:
                    known[proof.name] = TargetRate(low, f"{rate} on {kernel}")
    return known


def _render_kernels(kernels: Mapping[str, Rate | None]) -> str:
    return ", ".join(f"{kernel} ({rate})" if rate else kernel for kernel, rate in kernels.items()) or "-"


def list_proofs(proofs: Sequence[Proof]) -> list[dict[str, Any]]:
    """The proofs as ``cowbell schema proof`` describes them."""
    return [
        {
            "name": p.name, "test": p.test.id, "kind": p.test.kind,
            "failed_on": list(p.failed_on), "passed_on": list(p.passed_on),
            "unexercised_in": p.unexercised_in,
            "rates": {
                side: {kernel: rate for kernel, rate in kernels.items() if rate}
                for side, kernels in (("fail", p.failed_on), ("pass", p.passed_on))
            },
        }
        for p in proofs
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Coverage:
    """A changelog entry: by test and kernel, the different outcomes of the test's subtests."""

    entry: Statement
    tests: Mapping[str, Mapping[str, tuple[Status, ...]]]


def make_coverage(
    entries: Sequence[Statement], tests: Sequence[GuestTest], seen: Sequence[Observation]
) -> list[Coverage]:
    """All entries in order, also those without a test."""
    states: dict[str, dict[str, tuple[Status, ...]]] = {test.id: {} for test in tests}
    for observation in seen:
        if observation.test in states:
            before = states[observation.test].get(observation.kernel, ())
            states[observation.test][observation.kernel] = tuple(sorted({*before, observation.status}))
    return [
        Coverage(entry, {c.id: states[c.id] for c in tests if entry.id in c.changelog.split()})
        for entry in entries
    ]


def render_coverage(coverage: Sequence[Coverage]) -> str:
    lines = []
    for covered in coverage:
        entry = covered.entry
        lines.append(f"{entry.id:>4}  {entry.says}")
        if not covered.tests:
            lines.append(f"      {entry.uncovered or 'no test yet'}")
        for name, kernels in covered.tests.items():
            outcomes = (f"{kernel}: {'/'.join(found)}" for kernel, found in kernels.items())
            lines.append(f"      {name:<24} {'; '.join(outcomes) or 'not run'}")
    number = sum(bool(covered.tests) for covered in coverage)
    lines.append(f"\n{number} of {len(coverage)} entries have a test")
    return "\n".join(lines) + "\n"


def list_entries(coverage: Sequence[Coverage]) -> list[dict[str, Any]]:
    return [dataclasses.asdict(covered.entry) | {"tests": covered.tests} for covered in coverage]


def explain_tests(tests: Sequence[GuestTest], seen: Sequence[Observation]) -> str:
    """The declarations and observed outcomes of the tests, for a reader who has just seen one fail."""
    return "\n".join(_explain_test(test, seen) for test in tests)


def list_tests(tests: Sequence[GuestTest], seen: Sequence[Observation]) -> list[dict[str, Any]]:
    return [test.describe() | {"seen": [one for one in seen if one.test == test.id]} for test in tests]


def _explain_test(test: GuestTest, seen: Sequence[Observation]) -> str:
    needs = [
        *test.needs_kconfig.split(),
        *(["root"] if test.needs_root else []),
        *([f"kernel >= {test.min_kernel}"] if test.min_kernel else []),
        *([f"{test.cpus} CPUs"] if test.cpus > 1 else []),
        *([f"{test.memory_mib} MiB of memory"] if test.memory_mib else []),
    ]
    details = {
        "contract": test.contract,
        "mechanism": test.mechanism,
        "detects": test.detects,
        "kind": test.kind + (", may crash the guest" if test.may_crash else ""),
        "CVE": test.cve,
        "fixes": test.fixes,
        "changelog": test.changelog,
        "parameters": test.params,
        "needs": ", ".join(needs),
        "time limit": f"{test.timeout_s} s on native hardware",
        "source": str(test.path),
    }
    lines = [
        f"{test.id}: {test.summary}",
        *(f"    {key:<11} {value}" for key, value in details.items() if value),
    ]
    verdicts = [observation for observation in seen if observation.test == test.id]
    for s in verdicts:
        rate = f", {s.rate}" if s.rate else ""
        lines.append(f"    seen        {s.status.upper()} {s.name} on {s.kernel} ({s.row}{rate})")
    return "\n".join(lines if verdicts else [*lines, "    seen        not run yet"]) + "\n"
