# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the variables of ``bisect`` and ``bisect-step``, and reports all usage errors at once."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from orchestrator.bisect.answer import Answer, find_answer, make_default_failure_modes
from orchestrator.bisect.bisection import BisectRequest
from orchestrator.bisect.gitbisect import Find
from orchestrator.bisect.line import Line, make_config_line, make_history_line, make_series_line
from orchestrator.bisect.versionline import make_version_line
from orchestrator.errors import UsageError, raise_all
from orchestrator.pipeline import run_jobs
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.project.guesttest import LOCAL, GuestTest, select_tests
from orchestrator.project.matrix import Row
from orchestrator.result.record import load_run
from orchestrator.result.verdict import judge_job
from orchestrator.source.debian import VERSION, make_key
from orchestrator.source.tree import VERSIONED
from orchestrator.status import Status


@dataclass(frozen=True, slots=True)
class Asked:
    """The values of ``TESTS=`` and so on. ``confidence`` is from 0 to 1."""

    test: str
    good: str
    bad: str
    find: str
    paths: tuple[str, ...]
    config_good: tuple[str, ...]
    config_bad: tuple[str, ...]
    confidence: float
    fingerprint: str = ""


def choose_job(name: str, request: Request, declared: Declarations) -> tuple[GuestTest, Job]:
    """The test, also of a subtest, and the one job to run it in.

    The job is of the named row, or the first one with the test, and has the series if one is named.
    """
    if not name:
        raise UsageError(
            "is required",
            where="TESTS",
            hint="one test or subtest, such as TESTS=odirect.rd-mprotect; cowbell list tests",
        )
    test_id, bracket, _ = name.partition("[")
    # the parameters of a subtest may have commas
    if re.search(r"[\s,*?]", test_id) or (bracket and not re.fullmatch(r"\[[^\]]*\]", name[len(test_id) :])):
        raise UsageError(f"takes one test or subtest, got {name}", where="TESTS")
    (test,) = select_tests(declared.tests, [test_id], "TESTS")
    errors = []
    if name not in (test.id, *test.subtests):
        hint = f"there are: {', '.join(test.subtests)}"
        errors.append(UsageError(f"{test.id} has no subtest {name}", where="TESTS", hint=hint))
    if len(request.rows) > 1:
        errors.append(UsageError("takes one row", where="ROW"))
    if len(request.series) > 1:
        errors.append(UsageError("takes one series", where="SERIES"))
    raise_all(errors)
    rows = request.rows or tuple(_list_rows(test, declared))[:1] or declared.usual_rows[:1]
    series = request.series or ("none",)
    jobs = make_plan(replace(request, rows=rows, tests=(test.id,), series=series), declared)
    return test, jobs[-1]


def _list_rows(test: GuestTest, declared: Declarations) -> Iterator[str]:
    # a program of the command line is in no row, though "*" matches its id
    for name in () if test.family == LOCAL else declared.usual_rows:
        row: Row = declared.rows[name]
        if test in select_tests(declared.tests, row.tests):
            yield name


def make_question(
    asked: Asked, test: GuestTest, job: Job, declared: Declarations, place: Workspace
) -> BisectRequest:
    """Raises ``UsageError`` for all that does not go together, and as the lines do."""
    line = _make_line(asked, job, declared, place)
    find = Find(asked.find) if asked.find else Find.BREAK if line.kind != "patch" else None
    if line.kind == "version":
        find = _find_direction(asked)
    return BisectRequest(asked.test, test, line, find, asked.paths, asked.confidence, asked.fingerprint)


def _find_direction(asked: Asked) -> Find:
    """The order of two versions tells a break from a fix."""
    return Find.BREAK if make_key(asked.good) < make_key(asked.bad) else Find.FIX


def _make_line(asked: Asked, job: Job, declared: Declarations, place: Workspace) -> Line:
    ends = {"GOOD": asked.good, "BAD": asked.bad}
    configs = {"CONFIG_GOOD": asked.config_good, "CONFIG_BAD": asked.config_bad}
    errors = [
        *_find_odd(ends),
        *_find_odd(configs),
        *(
            UsageError("applies to commits only; set GOOD= and BAD=", where=name)
            for name, value in (("FIND", asked.find), ("PATHS", asked.paths))
            if value and not any(ends.values()) and not (name == "FIND" and job.series.name)
        ),
    ]
    if any(ends.values()) and any(configs.values()):
        errors.append(UsageError("cannot be combined: bisect commits or configs", where="GOOD, CONFIG_GOOD"))
    if not any(ends.values()) and not any(configs.values()) and not job.series.name:
        errors.append(
            UsageError(
                "nothing to bisect",
                where="bisect",
                hint="set GOOD=REV BAD=REV, or SERIES=NAME, or CONFIG_GOOD=FRAGMENTS CONFIG_BAD=FRAGMENTS",
            )
        )
    is_version = asked.good and asked.bad and isinstance(job.tree, VERSIONED)
    if is_version:
        errors += _check_versions(asked)
    raise_all(errors)
    if is_version:
        return make_version_line(job, asked.good, asked.bad, declared, place)
    if asked.good:
        is_fix = asked.find == Find.FIX
        return make_history_line(
            job, (asked.bad, asked.good) if is_fix else (asked.good, asked.bad), declared, place
        )
    if asked.config_good:
        return make_config_line(job, asked.config_good, asked.config_bad, declared, place)
    return make_series_line(job, declared, place)


def _check_versions(asked: Asked) -> Iterator[UsageError]:
    wrong = [
        (name, value)
        for name, value in (("GOOD", asked.good), ("BAD", asked.bad))
        if not VERSION.fullmatch(value)
    ]
    for name, value in wrong:
        yield UsageError(f"expected a Debian version such as 6.1.170-3, got {value}", where=name)
    if asked.paths:
        yield UsageError("applies to commits only, and these are Debian versions", where="PATHS")
    if asked.find and not wrong and asked.good != asked.bad and asked.find != _find_direction(asked):
        newer = "GOOD" if _find_direction(asked) is Find.FIX else "BAD"
        yield UsageError(
            f"contradicts the versions: {newer}= is the newer one",
            where="FIND",
            hint="omit FIND=; the order of the versions decides between break and fix",
        )


def _find_odd(pair: Mapping[str, object]) -> Iterator[UsageError]:
    if sum(map(bool, pair.values())) == 1:
        yield from (UsageError("is required", where=name) for name, value in pair.items() if not value)


def take_step(
    name: str, fingerprint: str, job: Job, declared: Declarations, place: Workspace, accel: str, command: str
) -> tuple[Answer, str, str]:
    """For ``git bisect run``: the answer for the current tree, the reason, and the run.

    Bad means that a subtest fails, or, with a fingerprint, only that crash. Skipped subtests count only if
    all are.
    """
    run_id, _ = run_jobs([job], declared, place, accel, command)
    (record,) = load_run(place.store.path("runs", run_id) / "record.json").jobs
    if record.left_out:
        return Answer.SKIP, record.left_out, run_id
    verdicts = [v for v in judge_job(record) if name in (v.test, v.name)]
    telling = [v for v in verdicts if v.raw is not Status.SKIP] or verdicts
    answer, why = find_answer(telling, make_default_failure_modes(telling, fingerprint), record.target_rates)
    return answer, why, run_id
