# SPDX-License-Identifier: GPL-2.0-or-later
"""source, config, build and test: each does the previous one's work first, for the selected rows."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call
from orchestrator.cli.evidence import know_rates
from orchestrator.cli.target import FIRST_ROW, JOBS, KERNELS, PARALLEL, TRIALS, Target
from orchestrator.cli.targets.report import show_report

if TYPE_CHECKING:
    from orchestrator.plan.plan import Job


def run_rows(call: Call) -> int:
    """Run the named targets in their order, ``test`` last."""
    from orchestrator import pipeline
    from orchestrator.cli import listing
    from orchestrator.plan import dryrun, plan

    request, declared, redo = call.request, call.known, call.redo
    if not request.rows:
        # prebuilt images name their rows
        built = dict.fromkeys(one.row for one in declared.built.values())
        request = replace(request, rows=tuple(built))
    jobs = plan.make_plan(request, declared)
    place = know_rates(jobs, call.place)
    if call.is_dry_run:
        steps = list(dryrun.explain_jobs(jobs, declared, place, request.accel))
        return call.show_product(listing.render_steps, listing.render_steps_json, steps)
    dryrun.check_what_if(jobs, declared, place)
    status, names = 0, call.line.targets
    for target in names:
        if target == "source":
            for src in pipeline.fetch_sources(jobs, declared, place, redo=redo):
                call.show(f"{src.source_id} {src.tree} {src.version} {src.series or '-'} {src.commit}\n")
        elif target == "config":
            status = _show_configs(jobs, call)
        elif target == "build":
            folder = call.folder if "test" not in names else None
            for image in pipeline.build_jobs(jobs, declared, place, redo=redo, target=folder):
                call.show(f"{image}\n")
    if "test" not in names:
        return status
    run_id, is_new = pipeline.run_jobs(jobs, declared, place, request.accel, call.command, redo=redo)
    call.terminal.stop()
    return show_report([run_id], call, is_new=is_new)


def _show_configs(jobs: Sequence["Job"], call: Call) -> int:
    from orchestrator.cli import configreport

    reports = list(configreport.make_reports(jobs, call.known, call.place))
    call.show_product(configreport.render_text, configreport.render_json, reports)
    return int(any(report.is_bad for report in reports))


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
        variables=(*JOBS, *KERNELS, *TRIALS, "REPEAT", "BUILT", "DIR"),
        extra_options=_BUILD_OPTIONS,
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
        variables=(*JOBS, *KERNELS, "DIR"),
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
        variables=(*JOBS, *KERNELS),
        extra_options=("--keep-going",),
        products=("config", "steps"),
        more="It runs Kconfig alone and builds nothing. Exit status 1: a symbol does not have its value.",
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
