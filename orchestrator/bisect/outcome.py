# SPDX-License-Identifier: GPL-2.0-or-later
"""The result of a bisection as data, as text, as JSON, and as a regression report by mail."""

import contextlib
import json
import re
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
from orchestrator.report.mail import BAR, WIDTH, fold, fold_command, render_facts
from orchestrator.report.replay import make_command
from orchestrator.result import statistics
from orchestrator.result.record import RunRecord, TargetRate
from orchestrator.store.store import write_json


class Role(StrEnum):
    """Why a commit was tested: as an end, as a step, once more to confirm it, or the new end without it."""

    END = "end"
    STEP = "step"
    AGAIN = "again"
    WITHOUT = "without"


@dataclass(frozen=True, slots=True)
class BisectStep:
    """One commit tested, and why.

    ``rates`` is how often races were hit, ``run_id`` the run with the results. ``image_id`` identifies the
    image; if ``same_as`` names an earlier commit with the same image, nothing was run. ``stage`` is the stage
    that failed before the test could run.
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
    """The result. ``suspects`` is the commit that was found, or all candidates left by skipped commits.

    ``doubts`` are the reasons why it is not confirmed, if any. ``log`` is the log of git bisect, ``git_dir``
    its repository. For versions, ``previous`` is the version before the suspect, and ``difference`` the
    command that shows the changes between them.
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
    """The steps of an earlier call; none if another version of Cowbell wrote them."""
    try:
        steps = json.loads((folder / "steps.json").read_text())
        return [
            BisectStep(**{**fields, "answer": Answer(fields["answer"]), "role": Role(fields["role"])})
            for fields in steps
        ]
    except (OSError, ValueError, TypeError, KeyError):
        return []


@contextlib.contextmanager
def open_call(folder: Path, words: Sequence[str]) -> Iterator[None]:
    """Save the command line and its folder for ``RESUME=1`` until the block ends or raises ``UsageError``."""
    path = folder / "call.json"
    write_json(path, {"folder": str(Path.cwd()), "words": list(words)})
    try:
        yield
    except UsageError:
        path.unlink()
        raise
    path.unlink()


def find_interrupted(folder: Path) -> tuple[Path, list[str]]:
    """The folder and the command line of the last unfinished bisection."""
    calls = list(folder.glob("*/call.json"))
    if not calls:
        raise UsageError("there is no unfinished bisection", where="RESUME")
    call = json.loads(max(calls, key=lambda path: path.stat().st_mtime).read_text())
    return Path(call["folder"]), list(call["words"])


_SHORT = 12


def render_text(outcome: BisectResult) -> str:
    """The result, then a table of the steps and the reasons of skips, then how to find details."""
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
        lines += [f"NOT CONFIRMED: {doubt}" for doubt in outcome.doubts] or [_describe_confirmation(outcome)]
    else:
        lines.append(f"one of these {len(outcome.suspects)} {verb} {what}; the others cannot be tested:")
        lines += [f"  {_name(outcome, one, subjects)}" for one in outcome.suspects]
    for name, target in outcome.target_rates.items():
        tries = statistics.find_tries(target.rate, target.risk)
        rate = statistics.percent(target.rate)
        lines.append(
            f"{name} is a race, {target.origin}: no failure in {tries} tries means good, as a bad kernel "
            f"fails at {rate} or more; the bisection has {statistics.percent(outcome.confidence)} confidence"
        )
    text = "\n".join(
        # do not wrap a command
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


def _describe_confirmation(outcome: BisectResult) -> str:
    parent = outcome.previous if outcome.kind == "version" else "its parent"
    text = f"confirmed: it and {parent} gave the same results when tested again"
    without = [step for step in outcome.steps if step.role == Role.WITHOUT]
    if not without:
        return text
    end = outcome.names[1]
    if without[0].answer is Answer.SKIP:
        return f"{text}; {end} without it cannot be tested ({without[0].reason.splitlines()[0]})"
    return f"{text}; {end} without it is {without[0].answer}"


def render_mail(outcome: BisectResult, run: RunRecord) -> str:
    """The text of a regression mail for regzbot; empty if no commit that broke the test was confirmed.

    ``run`` is that of the commit that was found.
    Source: Documentation/admin-guide/reporting-regressions.rst.
    """
    if outcome.kind != "commit" or outcome.find is not Find.BREAK or not outcome.is_found:
        return ""
    (found,) = outcome.suspects
    (job,) = run.jobs
    step = next(step for step in outcome.steps if step.commit == found)
    cited = f'{found[:_SHORT]} ("{" ".join(make_printable(step.subject).split())}")'
    about = f"{outcome.name} passes on {outcome.names[0]} and fails on {outcome.names[1]}. "
    table = render_columns(
        [
            ("step", "commit", "answer", "hits"),
            *(
                (step.role, step.commit[:_SHORT], step.answer, ", ".join(step.rates.values()) or "-")
                for step in outcome.steps
            ),
        ]
    )
    targets = [
        fold(
            f"{name} is a race: on a bad kernel it fails at {statistics.percent(target.rate)} or more, so "
            f"{statistics.find_tries(target.rate, target.risk)} tries without a failure mean good."
        )
        for name, target in outcome.target_rates.items()
    ]
    log = re.sub(r"\b([0-9a-f]{12})[0-9a-f]{28}\b", r"\1", make_printable(outcome.log))
    tests = list(dict.fromkeys(job.tests))
    parts = [
        fold(f"{about}Bisection leads to {cited}."),
        fold(f"{_describe_confirmation(outcome)}."),
        *targets,
        fold(step.reason, BAR),
        render_facts([job]),
        "\n".join(line if len(line) <= WIDTH else fold(line, "", "    ") for line in table.splitlines()),
        "\n".join(fold(line, "", "#   ") for line in log.splitlines()),
        f"To reproduce, with Cowbell:\n\n{fold_command(make_command(run, job, *tests))}",
        f"#regzbot introduced: {found[:_SHORT]}",
        f"Fixes: {cited}",
    ]
    head = "To: (output of scripts/get_maintainer.pl)\nCc: regressions@lists.linux.dev\n" + fold(
        f"[REGRESSION] {outcome.name} fails since {found[:_SHORT]}", "Subject: ", " "
    )
    return f"{head}\n\n" + "\n\n".join(parts) + "\n"
