# SPDX-License-Identifier: GPL-2.0-or-later
"""series-matrix: the results that each patch of a series changes."""

from orchestrator.cli.call import Call
from orchestrator.cli.storedresults import know_rates
from orchestrator.cli.target import JOBS, KERNELS, PARALLEL, TRIALS, Target


def run(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.cli import listing, seriesmatrix
    from orchestrator.plan import plan
    from orchestrator.plan.steps import make_goal
    from orchestrator.result.record import load_run

    jobs = seriesmatrix.list_prefixes(
        plan.make_plan(call.request, call.known), is_any_row=not call.request.rows
    )
    place, accel = know_rates(jobs, call.place), call.request.accel
    goal = make_goal(["test"], redo=call.redo)
    if call.is_dry_run:
        steps = list(pipeline.explain_jobs(jobs, call.known, place, accel, goal))
        return call.show_product("steps", listing.render_steps, steps, steps=steps)
    run_id, _ = pipeline.run_jobs(jobs, call.known, place, accel, call.command, goal)
    call.terminal.stop()
    found = load_run(place.store.path("runs", run_id) / "record.json")
    matrix = seriesmatrix.make_matrix(jobs[-1], found)
    call.show_product("series-matrix", seriesmatrix.render, matrix, is_as_claimed=matrix.is_as_claimed)
    return int(not matrix.is_as_claimed)


TARGETS = (
    Target(
        "series-matrix",
        "find the change",
        "test every prefix of a series; list what each patch changes",
        run,
        (
            ("cowbell series-matrix ROW=demo SERIES=cow", "compare with the claims in series.yaml"),
            ("cowbell series-matrix SERIES=cow KERNEL=debian-5.10", "in the first row that has all tests"),
        ),
        variables=(*JOBS, *KERNELS, *TRIALS, "REPEAT"),
        extra_options=("--keep-going", "--always-make", *PARALLEL),
        products=("series-matrix", "steps"),
        default_row="the first row with all tests of the claims",
        more="Exit status 1: a result differs from the claims.",
    ),
)
