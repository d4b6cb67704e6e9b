# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a bisection as data, as text, as JSON, and as a regression report by mail."""

import contextlib
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from orchestrator.bisect.answer import Answer
from orchestrator.bisect.gitbisect import Find
from orchestrator.bisect.line import SYMBOLIC
from orchestrator.errors import UsageError
from orchestrator.history.entry import render_columns
from orchestrator.parse.printk import make_printable
from orchestrator.result import statistics
from orchestrator.result.record import TargetRate
from orchestrator.store.store import write_json


class Role(StrEnum):
    """Why a commit was tested: as an end, as a step, found (or its parent) again, or all but it."""

    END = "end"
    STEP = "step"
    AGAIN = "again"
    WITHOUT = "without"


@dataclass(frozen=True, slots=True)
class BisectStep:
    """One commit tested, and why.

    ``rates`` are how often races were hit. ``run_id`` names the run that shows it. ``image_id`` is what was
    booted, ``same_as`` the commit whose image that was too, so that nothing was run. ``stage`` is where it
    failed before it could say anything of the test.
    """

    commit: str
    subject: str
    role: Role
    answer: Answer
    reason: str
    rates: Mapping[str, str] = field(default_factory=dict)
    run_id: str = ""
    image_id: str = ""
    same_as: str = ""
    stage: str = ""
    duration_s: float = 0.0


@dataclass(frozen=True, slots=True)
class BisectResult:
    """What came of it. ``suspects`` is the one commit, or those that skips leave in question.

    ``doubts`` say why it is not confirmed: there are none if it is. ``target_rates`` are the rates that races
    were tried for, ``log`` is git bisect's, ``git_dir`` where git knows of it. For versions, ``previous``
    comes before the suspect, and ``difference`` the command that shows the changes between them.
    """

    name: str
    kind: str
    find: Find
    names: tuple[str, str]
    suspects: tuple[str, ...]
    confidence: float
    failing: Mapping[str, str]
    target_rates: Mapping[str, TargetRate]
    steps: tuple[BisectStep, ...]
    doubts: tuple[str, ...]
    log: str
    git_dir: str
    previous: str = ""
    difference: str = ""

    @property
    def is_found(self) -> bool:
        return len(self.suspects) == 1 and not self.doubts


def load_steps(folder: Path) -> list[BisectStep]:
    """What an earlier call did; nothing when it was of another version."""
    try:
        told = json.loads((folder / "steps.json").read_text())
        return [
            BisectStep(**{**fields, "answer": Answer(fields["answer"]), "role": Role(fields["role"])})
            for fields in told
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


@contextlib.contextmanager
def open_call(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """Keep what was typed, and where, for ``RESUME=1``, until the block has ended, if by a wrong question."""
    path = folder / "call.json"
    write_json(path, {"folder": str(Path.cwd()), "words": list(words)})
    try:
        yield
    except UsageError:
        path.unlink()
        raise
    path.unlink()


def find_interrupted(folder: Path) -> tuple[Path, list[str]]:
    """Where the last bisection that was not ended was started, and with which words."""
    calls = list(folder.glob("*/call.json"))
    if not calls:
        raise UsageError("there is no bisection that was not ended", where="RESUME")
    told = json.loads(max(calls, key=lambda path: path.stat().st_mtime).read_text())
    return Path(told["folder"]), list(told["words"])


_SHORT = 12


def render_text(outcome: BisectResult) -> str:
    """The answer first, then what shows it, a line a step; and where to look further."""
    verb = "breaks" if outcome.find is Find.BREAK else "fixes"
    what = ", ".join(f"{name} ({how})" for name, how in outcome.failing.items())
    subjects = {step.commit: step.subject for step in outcome.steps}
    lines: list[str] = []
    if len(outcome.suspects) == 1:
        (found,) = outcome.suspects
        after = f", after {outcome.previous}" if outcome.kind == "version" else ""
        lines += [
            f"the first {outcome.kind} that {verb} {what}:",
            f"  {_name(outcome, found, subjects)}{after}",
        ]
        lines += [outcome.difference] if outcome.difference else []
        lines += [f"NOT CONFIRMED: {doubt}" for doubt in outcome.doubts] or [_tell_confirmed(outcome)]
    else:
        lines.append(f"one of these {len(outcome.suspects)} {verb} {what}; the others can not be tested:")
        lines += [f"  {_name(outcome, one, subjects)}" for one in outcome.suspects]
    for name, target in outcome.target_rates.items():
        tries = statistics.find_tries(target.rate, target.risk)
        rate = statistics.percent(target.rate)
        lines.append(
            f"{name} is a race, {target.origin}: no failure in {tries} tries means good, since a bad one "
            f"fails at {rate} or more; the bisection has {statistics.percent(outcome.confidence)} confidence"
        )
    text = "\n".join(
        # a command is pasted as it is
        f"  {line}" if line == outcome.difference else textwrap.fill(line, 120, subsequent_indent="    ")
        for line in lines
    )
    is_version = outcome.kind == "version"

    def label(commit: str) -> str:
        return subjects.get(commit, "") if is_version else commit[:_SHORT]

    steps = [
        (
            step.role,
            label(step.commit),
            step.answer,
            ", ".join(step.rates.values()) or "-",
            f"{step.duration_s:.0f} s",
            f"as {label(step.same_as)}, the same image" if step.same_as else step.run_id or "-",
            *(() if is_version else (step.subject,)),
        )
        for step in outcome.steps
    ]
    head = ("step", outcome.kind, "answer", "hits", "took", "run", *(() if is_version else ("subject",)))
    table = render_columns([head, *steps])
    skips = [
        f"skipped {label(step.commit)}: {make_printable(step.reason.splitlines()[0])}\n"
        for step in outcome.steps
        if step.answer is Answer.SKIP
    ]
    where = f"git -C {outcome.git_dir} bisect log\ncowbell report RUN=ID shows a step's run\n"
    return f"{text}\n\n{table}\n{''.join(skips)}{where}"


def _name(outcome: BisectResult, commit: str, subjects: Mapping[str, str]) -> str:
    short = "" if outcome.kind in SYMBOLIC else f"{commit[:_SHORT]} "
    return f"{short}{make_printable(subjects.get(commit, ''))}".rstrip()


def _tell_confirmed(outcome: BisectResult) -> str:
    parent = outcome.previous if outcome.kind == "version" else "its parent"
    told = f"confirmed: it and {parent} came to the same when tested again"
    without = [step for step in outcome.steps if step.role == Role.WITHOUT]
    if not without:
        return told
    end = outcome.names[1]
    if without[0].answer is Answer.SKIP:
        return f"{told}; {end} without it can not be tested ({without[0].reason.splitlines()[0]})"
    return f"{told}; {end} without it is {without[0].answer}"


def render_mail(outcome: BisectResult) -> str:
    """The text for a mail about a regression, as the kernel's tracker reads it; empty where there is none.

    Source: Documentation/admin-guide/reporting-regressions.rst.
    """
    if outcome.kind != "commit" or outcome.find is not Find.BREAK or not outcome.is_found:
        return ""
    (found,) = outcome.suspects
    step = next(step for step in outcome.steps if step.commit == found)
    cited = f'{found[:_SHORT]} ("{make_printable(step.subject)}")'
    body = textwrap.fill(
        f"{outcome.name} passes on {outcome.names[0]} and fails on {outcome.names[1]}. "
        f"Bisection leads to {cited}.",
        72,
    )
    return (
        f"To: (those whom scripts/get_maintainer.pl names)\nCc: regressions@lists.linux.dev\n"
        f"Subject: [REGRESSION] {outcome.name} fails since {found[:_SHORT]}\n\n{body}\n\n"
        f"{make_printable(step.reason)}\n\n{render_text(outcome)}\n{outcome.log}\n"
        f"#regzbot introduced: {found[:_SHORT]}\n\nFixes: {cited}\n"
    )
