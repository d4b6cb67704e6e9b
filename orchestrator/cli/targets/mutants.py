# SPDX-License-Identifier: GPL-2.0-or-later
"""mutants, coverage: how much of the kernel the tests reach, and how many mistakes in it they notice."""

from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call, render_product, vars_of
from orchestrator.cli.target import FIRST_ROW, JOBS, KERNELS, PARALLEL, Target

if TYPE_CHECKING:
    from orchestrator.plan.plan import Job
    from orchestrator.project.mutants import MutantSpec


def _choose(call: Call, target: str) -> "tuple[Job, MutantSpec]":
    from orchestrator.cli import shell
    from orchestrator.plan import plan
    from orchestrator.project.mutants import load_mutants, load_written
    from orchestrator.project.root import list_layers

    layers = list_layers(call.root)[::-1]
    spec = load_mutants(next(path for layer in layers if (path := layer / "ci/mutants.yaml").exists()))
    files = sorted(path for layer in layers for path in (layer / "patches/mutants").glob("*.yaml"))
    spec = replace(spec, written=tuple(mutant for file in files for mutant in load_written(file)))
    return shell.choose_job(plan.make_plan(call.request, call.known), call.request.series, target), spec


def cover(call: Call) -> int:
    from orchestrator.coverage import measure, text

    job, spec = _choose(call, "coverage")
    if call.is_dry_run:
        planned = measure.plan_coverage(job, spec, call.known, call.place)
        return call.show_product("coverage", text.render_names, planned)
    found = measure.measure(job, spec, call.known, call.place, call.request.accel)
    call.terminal.stop()
    return call.show_product("coverage", text.render, found)


def run(call: Call) -> int:
    from orchestrator.mutants import measure, score
    from orchestrator.mutants.page import render_html

    job, spec = _choose(call, "mutants")
    words = call.settings["MUTANTS"].words
    choice = measure.Choice(words, int(call.value("SAMPLE")), int(call.value("SEED")))
    if call.is_dry_run:
        planned = measure.plan_mutants(job, spec, choice, call.known, call.place)
        return call.show_product("mutants", score.render_names, planned, score=None)

    found = measure.measure(job, spec, choice, call.known, call.place, call.request.accel)
    call.terminal.stop()
    share = score.compute_score(found.results)
    if call.folder:
        call.folder.mkdir(parents=True, exist_ok=True)
        (call.folder / "mutants.html").write_text(render_html(found))
        (call.folder / "mutants.json").write_text(
            render_product("mutants", {**vars_of(found), "score": share})
        )
    return call.show_product("mutants", score.render, found, score=share)


TARGETS = (
    Target(
        "mutants",
        "read results",
        "put mistakes into the kernel, and count those that the tests notice",
        run,
        (
            ("cowbell mutants ROW=mutants SAMPLE=50", "a random sample of 50 mutants, with all tests"),
            (
                "cowbell mutants ROW=mutants MUTANTS='mm/memory.c:do_wp_page:*'",
                "all mutants of one function",
            ),
        ),
        variables=(*JOBS, *KERNELS, "TESTS", "ACCEL", "DIR", "MUTANTS", "SAMPLE", "SEED"),
        extra_options=PARALLEL,
        products=("mutants",),
        more="All mutants are in one image, and are switched on one at a time. A mutant is killed by a test "
        "that passes without it and fails or crashes with it. Outcomes are kept: the next call runs only "
        "what is missing. -n lists the chosen mutants. DIR= gets mutants.json and mutants.html.",
        default_row=FIRST_ROW,
    ),
    Target(
        "coverage",
        "read results",
        "list the lines and branches of the kernel's functions that no test reaches",
        cover,
        (
            ("cowbell coverage ROW=coverage", "count with all tests, in the functions of ci/mutants.yaml"),
            ("cowbell coverage ROW=coverage TESTS=odirect.*", "what the tests of direct I/O reach"),
        ),
        variables=(*JOBS, *KERNELS, "TESTS", "ACCEL"),
        products=("coverage",),
        more="The row needs the fragment gcov. Each test runs once. What was counted is kept, and the next "
        "call only prints it. -n lists the functions.",
        default_row=FIRST_ROW,
    ),
)
