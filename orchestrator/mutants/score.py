# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws samples of mutants, and computes from the outcomes what became of each and how many were noticed."""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from orchestrator.mutants.operators import Site
from orchestrator.mutants.sweep import Outcome
from orchestrator.parse.ktap import Rate
from orchestrator.result.statistics import find_interval
from orchestrator.status import Status


class State(StrEnum):
    """What became of a mutant. Only the first counts as noticed, and the last three count neither way."""

    KILLED = "killed"
    BROKEN = "only broken or timed out"
    ALIVE = "alive"
    UNREACHED = "not reached"
    PENDING = "not run"
    EQUIVALENT = "equivalent"
    LEFT_OUT = "not compiled"


@dataclass(frozen=True, slots=True)
class MutantResult:
    """A mutant, what became of it, and the outcomes of its tests in the order in which they ran."""

    site: Site
    state: State
    outcomes: tuple[Outcome, ...] = ()
    equivalent: str = ""

    @property
    def last(self) -> Outcome | None:
        """The outcome that decided: the kill, or one that was no pass."""
        others = [outcome for outcome in self.outcomes if outcome.status is not Status.PASS]
        return others[-1] if others else None


@dataclass(frozen=True, slots=True)
class Score:
    """How many mutants were killed, of all that are not equivalent; ``interval`` is of the share, at 95 %."""

    killed: int
    total: int
    interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class Measurement:
    """The results of the chosen mutants, and how many of all are compiled into the image."""

    kernel: str
    commit: str
    results: tuple[MutantResult, ...]
    compiled: int
    generated: int
    tests: tuple[str, ...]


def draw_sample(sites: Sequence[Site], number: int, seed: int = 1) -> list[Site]:
    """A random sample, stratified by file: each file has its share. The same seed draws the same sites."""
    groups: dict[str, list[Site]] = {}
    for site in sites:
        groups.setdefault(site.file, []).append(site)
    random_ = random.Random(seed)
    # each file's share, the remainders going to the largest fractions
    shares = {file: number * len(group) / len(sites) for file, group in groups.items()}
    counts = {file: int(share) for file, share in shares.items()}
    by_rest = sorted(shares, key=lambda file: (counts[file] - shares[file], file))
    for file in by_rest[: max(0, min(number, len(sites)) - sum(counts.values()))]:
        counts[file] += 1
    drawn = [
        site
        for file, group in groups.items()
        for site in random_.sample(group, min(counts[file], len(group)))
    ]
    return sorted(drawn, key=lambda site: site.number)


def find_state(
    outcomes: Sequence[Outcome], *, is_reached: bool, is_missing: bool, is_equivalent: bool
) -> State:
    """What became of a mutant; ``is_missing``: tests that reach it have yet to run."""
    if any(outcome.is_kill for outcome in outcomes):
        return State.KILLED
    if is_equivalent:
        return State.EQUIVALENT
    if not is_reached:
        return State.UNREACHED
    if is_missing:
        return State.PENDING
    if any(outcome.status in (Status.TIMEOUT, Status.BROKEN) for outcome in outcomes):
        return State.BROKEN
    return State.ALIVE


_UNCOUNTED = (State.PENDING, State.EQUIVALENT, State.LEFT_OUT)


def compute_score(results: Iterable[MutantResult]) -> Score:
    counted = [one for one in results if one.state not in _UNCOUNTED]
    killed = sum(one.state is State.KILLED for one in counted)
    return Score(killed, len(counted), find_interval(Rate(killed, len(counted))))


def render_names(found: Measurement) -> str:
    return "".join(f"{one.site.name} (line {one.site.line}): {one.site.code}\n" for one in found.results)


def render(found: Measurement) -> str:
    """The score by file, what each test killed, and every mutant that was not killed."""
    results = found.results
    files: dict[str, list[MutantResult]] = {}
    for one in results:
        files.setdefault(one.site.file, []).append(one)
    states = list(State)
    width = max((len(file) for file in files), default=4)
    lines = [f"{'file':<{width}}  " + "  ".join(_SHORT[state] for state in states)]
    for name, group in [*files.items(), ("all", list(results))]:
        counts = [sum(one.state is state for one in group) for state in states]
        lines.append(
            f"{name:<{width}}  "
            + "  ".join(f"{n:>{len(_SHORT[s])}}" for s, n in zip(states, counts, strict=True))
        )
    kills: dict[str, int] = dict.fromkeys(found.tests, 0)
    for one in results:
        if one.state is State.KILLED and one.last:
            kills[one.last.test] = kills.get(one.last.test, 0) + 1
    lines += ["", "killed first by:"]
    lines += [f"  {n:>4}  {test}" for test, n in sorted(kills.items(), key=lambda item: -item[1]) if n]
    for state in (State.ALIVE, State.BROKEN, State.UNREACHED):
        if group := [one for one in results if one.state is state]:
            lines += ["", f"{state}: {len(group)}"]
            for one in group:
                why = f"  ({one.last.test}: {one.last.status}, {one.last.reason})" if one.last else ""
                lines.append(f"  {one.site.name} (line {one.site.line}): {one.site.code}{why}")
    score = compute_score(results)
    low, high = (100 * bound for bound in score.interval)
    share = 100 * score.killed / score.total if score.total else 0
    lines += ["", f"score: {score.killed} of {score.total} killed, {share:.0f} % ({low:.0f} to {high:.0f} %)"]
    lines.append(
        f"{len(results)} of the {found.compiled} mutants in {found.kernel}; {found.generated} in its source"
    )
    return "\n".join(lines) + "\n"


_SHORT: Mapping[State, str] = {
    State.KILLED: "killed", State.BROKEN: "broken", State.ALIVE: "alive", State.UNREACHED: "unreached",
    State.PENDING: "pending", State.EQUIVALENT: "equivalent", State.LEFT_OUT: "uncompiled",
}  # fmt: skip
