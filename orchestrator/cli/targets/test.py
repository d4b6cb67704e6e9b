# SPDX-License-Identifier: GPL-2.0-or-later
"""source, config, build and test: each does the previous one's work first, for the selected rows."""

import os
import shlex
from dataclasses import replace

from orchestrator.cli.call import Call
from orchestrator.cli.storedresults import know_rates
from orchestrator.cli.target import FIRST_ROW, GUESTS, JOBS, KERNELS, LIMITS, PARALLEL, TRIALS, Target
from orchestrator.cli.targets.report import show_report
from orchestrator.errors import UsageError


def run_rows(call: Call) -> int:
    """Run the named targets in their order, ``test`` last."""
    from orchestrator import pipeline
    from orchestrator.cli import configreport, listing
    from orchestrator.gitlab.reports import write_code_quality
    from orchestrator.plan import plan
    from orchestrator.plan.steps import make_goal

    if call.settings["FAILED"].is_typed and call.value("FAILED") == "1":
        return call.again(_find_failed(call))
    request, declared, targets = call.request, call.known, call.line.targets
    if not request.rows:
        # prebuilt images name their rows
        built = dict.fromkeys(one.row for one in declared.built.values())
        request = replace(request, rows=tuple(built))
    jobs = plan.make_plan(request, declared)
    place, goal = know_rates(jobs, call.place), make_goal(targets, redo=call.redo)
    if call.is_dry_run:
        steps = list(pipeline.explain_jobs(jobs, declared, place, request.accel, goal))
        return call.show_product("steps", listing.render_steps, steps, steps=steps)
    pipeline.check_what_if(jobs, declared, place, goal)
    prepared, status = pipeline.prepare_jobs(jobs, declared, place, goal), 0
    if "source" in targets:
        for src in [one.source for one in prepared.values() if one.source and not one.left_out]:
            call.show(f"{src.source_id} {src.tree} {src.version} {src.series or '-'} {src.commit}\n")
    if "config" in targets:
        reports = list(configreport.make_reports(prepared))
        call.show_product("config", configreport.render_text, reports, kernels=reports)
        status = int(any(report.is_bad for report in reports))
    if "test" in targets:
        try:
            run_id, is_new = pipeline.run_jobs(
                jobs, declared, place, request.accel, call.command, goal, prepared
            )
        except pipeline.IncompleteRun as error:
            call.terminal.stop()
            show_report([error.run_id], call, is_new=True)
            raise
        if "build" in targets:
            call.show("".join(f"{image}\n" for image in pipeline.list_images(prepared, place)))
        call.terminal.stop()
        return show_report([run_id], call, is_new=is_new)
    if "build" in targets:
        try:
            for image in pipeline.build_jobs(jobs, declared, place, goal, prepared, target=call.folder):
                call.show(f"{image}\n")
        finally:
            if call.folder:
                write_code_quality(call.folder, os.environ)
    elif failures := [one.failure for one in prepared.values() if one.failure]:
        raise ExceptionGroup("jobs", failures)
    return status


def _find_failed(call: Call) -> list[str]:
    """The words of the command that repeats what was not as expected in the last run."""
    from orchestrator.project.guesttest import is_match
    from orchestrator.report.folder import choose_runs, judge_runs
    from orchestrator.report.replay import make_repetition

    if call.line.targets != ("test",):
        raise UsageError("goes with test alone", where="FAILED=1")
    judged = judge_runs(call.store, choose_runs(call.store, ""))
    globs = call.settings["TESTS"].words
    failed = [
        (job.row, verdict.test)
        for job, verdicts in judged.jobs
        for verdict in verdicts
        if verdict.status.is_bad
        and (not call.rows or job.row in call.rows)
        and (not globs or any(is_match(g, name) for g in globs for name in (verdict.test, verdict.name)))
    ]
    if not failed:
        chosen = any(call.settings[name].value for name in ("ROW", "TESTS"))
        raise UsageError(
            f"nothing to repeat: {'no such result' if chosen else 'no result'} of the last run, "
            f"{judged.run.run_id}, was unexpected",
            where="FAILED=1",
            hint="cowbell report shows the last run",
        )
    mine = [word for word in call.line.typed if word.partition("=")[0] not in ("FAILED", "ROW", "TESTS")]
    words = [*make_repetition(judged.run, *zip(*failed, strict=True)), *mine]
    call.note(f"{shlex.join(['cowbell', *words])}")
    return words


_BUILD_OPTIONS = ("--keep-going", "--always-make", "--what-if", *PARALLEL)
TARGETS = (
    Target(
        "test",
        "test a kernel",
        "build and boot a row's kernels, run its tests, report verdicts",
        run_rows,
        (
            ("cowbell test ROW=demo KERNEL=~/linux", "test the HEAD of a checkout in row demo"),
            ("cowbell -n test ROW=demo TESTS='odirect.*'", "print what these tests still need, and why"),
        ),
        variables=(*JOBS, *KERNELS, *GUESTS, *TRIALS, *LIMITS, "TRACE", "REPEAT", "FAILED", "BUILT", "DIR"),
        extra_options=(*_BUILD_OPTIONS, "--failed"),
        products=("report", "steps"),
        more="This is the default target. Without ROW= it takes the first row, of the user overlay if it "
        "has rows; ROW=all takes every row. Up-to-date steps and results are reused. DIR= gets a copy "
        "of the reports.",
        is_joined=True,
        default_row=FIRST_ROW,
    ),
    Target(
        "build",
        "test a kernel",
        "configure and build the kernels of a row, and print their paths",
        run_rows,
        (
            ("cowbell build ROW=demo", "build the kernels of row demo"),
            ("cowbell build ROW=demo DIR=built", "export them, to be tested elsewhere with BUILT=built"),
        ),
        variables=(*JOBS, *KERNELS, "TESTS", "DIR"),
        extra_options=_BUILD_OPTIONS,
        products=("steps",),
        is_joined=True,
        default_row=FIRST_ROW,
    ),
    Target(
        "config",
        "test a kernel",
        "check the requested config symbols of a row, with reasons",
        run_rows,
        (
            ("cowbell config ROW=demo", "list each requested symbol and its value"),
            ("cowbell config ROW=demo KERNEL=~/linux CONFIG=base,kasan", "try fragments on another tree"),
        ),
        variables=(*JOBS, *KERNELS, "TESTS"),
        extra_options=("--keep-going",),
        products=("config", "steps"),
        more="It runs Kconfig alone and builds nothing. TESTS= matters for selftests, which bring config "
        "fragments of their own. Exit status 1: a symbol does not have its value.",
        is_joined=True,
        default_row=FIRST_ROW,
    ),
    Target(
        "source",
        "test a kernel",
        "fetch the trees of a row and apply its series",
        run_rows,
        (
            ("cowbell source ROW=demo", "fetch the tree of row demo, and apply its series"),
            ("cowbell -B source ROW=demo", "look for a newer state of the tree"),
        ),
        variables=JOBS,
        extra_options=("--keep-going", "--always-make", *PARALLEL),
        products=("steps",),
        is_joined=True,
        default_row=FIRST_ROW,
    ),
)
