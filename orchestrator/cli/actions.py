# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs the targets that show results, edit patches or bisect, and returns their exit statuses."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call
from orchestrator.cli.grammar import choose_subject, read_confidence
from orchestrator.errors import UsageError, raise_all

if TYPE_CHECKING:
    # imported where they are used: a target needs no other's modules
    from orchestrator.history.coverage import Observation
    from orchestrator.plan.plan import Job
    from orchestrator.plan.workspace import Workspace
    from orchestrator.project.guesttest import GuestTest


def _find_seen(tests: Sequence["GuestTest"], place: "Workspace") -> Iterable["Observation"]:
    from orchestrator.history import coverage

    runs = coverage.load_runs(place.store.path("runs"))
    return coverage.find_observations(runs, place.list_program_ids(tests)).values()


def know_rates(jobs: Sequence["Job"], place: "Workspace") -> "Workspace":
    """REPEAT=auto: at what rates races are known to fail."""
    from orchestrator.history import coverage
    from orchestrator.result import repeat

    if place.repeat.count != repeat.AUTO:
        return place
    races = list({test.id: test for job in jobs for test in job.tests if test.kind == "race"}.values())
    target_rates = coverage.find_target_rates(coverage.make_proofs(races, _find_seen(races, place)))
    return replace(place, repeat=replace(place.repeat, target_rates=target_rates))


def show_evidence(call: Call) -> int:
    """What stored runs say of the tests; ROW= and TESTS= choose of which."""
    from orchestrator.cli import explain
    from orchestrator.history import coverage
    from orchestrator.project import changelog
    from orchestrator.project.guesttest import select_tests

    (target,) = call.targets
    request, place, declared = call.request, call.place, call.declared

    def find_seen(tests: Sequence["GuestTest"]) -> list["Observation"]:
        found = _find_seen(tests, place)
        return [
            observation for observation in found if observation.row in (request.rows or (observation.row,))
        ]

    if target == "explain":
        plain, chosen = explain.find_subjects(call.subjects or request.tests, declared)
        seen = find_seen(chosen)
        show = explain.render_json if call.options.json else explain.render
        call.show(show(plain, chosen, seen, declared))
        return 0
    tests = select_tests(declared.tests, request.tests or ("*",), target)
    seen = find_seen(tests)
    if target == "proof":
        return call.show_product(
            coverage.render_proofs, coverage.render_proofs_json, coverage.make_proofs(tests, seen)
        )
    entries = changelog.load_changelog(place.changelogs, declared.tests)
    covered = coverage.make_coverage(entries, tests, seen)
    return call.show_product(coverage.render_coverage, coverage.render_coverage_json, covered)


def examine(call: Call) -> int:
    from orchestrator.cli import doctor
    from orchestrator.plan import plan

    findings = doctor.examine(plan.make_plan(call.request, call.declared), call.place)
    call.show_product(doctor.render, doctor.render_json, findings)
    return int(bool(doctor.find_missing(findings)))


def edit_patches(call: Call) -> int:
    from orchestrator.cli import patching

    show = patching.TARGETS[call.targets[0]]
    status, text = show(call.request, call.declared, call.place, call.options, call.folder)
    call.show(text)
    return status


def bisect_line(call: Call) -> int:
    from orchestrator.bisect import bisection, outcome
    from orchestrator.cli import bisect

    name = call.value("TESTS").strip()
    test, job = bisect.choose_job(name, call.request, call.declared)
    asked = bisect.Asked(
        name,
        call.value("GOOD"),
        call.value("BAD"),
        call.value("FIND"),
        call.settings["PATHS"].words,
        call.settings["CONFIG_GOOD"].words,
        call.settings["CONFIG_BAD"].words,
        read_confidence(call.value("CONFIDENCE")),
    )
    question = bisect.make_question(asked, test, job, call.declared, call.place)
    place = know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    redo = call.options.always_make
    ours = bisection.Bisection(question, job, place, call.request.accel, call.command, redo=redo)
    if call.options.dry_run:
        call.show(f"{ours.describe()}\n")
        return 0
    with outcome.open_call(ours.folder, call.words):
        found = ours.run()
    call.terminal.stop()
    call.show_product(outcome.render_text, outcome.render_json, found)
    if not call.options.json:
        files = [name for name in ("report.txt", "mail.txt", "evidence") if (ours.folder / name).exists()]
        call.show(f"{ours.folder}: {', '.join(files)}\n")
    if call.folder:
        # the rest is for going on
        others = shutil.ignore_patterns("git", "steps.json")
        shutil.copytree(ours.folder, call.folder, ignore=others, dirs_exist_ok=True)
    return int(not found.is_found)


def take_step(call: Call) -> int:
    from orchestrator.cli import bisect

    name, fingerprint = call.value("TESTS").strip(), call.value("FINGERPRINT")
    if not call.request.tree:
        raise UsageError("which checkout is it?", where="KERNEL", hint="KERNEL=. where git bisect runs")
    _, job = bisect.choose_job(name, call.request, call.declared)
    place = know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    answer, why, run_id = bisect.take_step(
        name, fingerprint, job, call.declared, place, call.request.accel, call.command
    )
    call.terminal.stop()
    call.show(f"{answer}: {why} ({run_id})\n")
    if call.value("FIND") == "fix":
        answer = answer.other
    return answer.exit_status


def make_series_matrix(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.cli import listing, seriesmatrix
    from orchestrator.plan import dryrun, plan
    from orchestrator.result.record import load_run

    jobs = seriesmatrix.list_prefixes(
        plan.make_plan(call.request, call.declared), is_any_row=not call.request.rows
    )
    place = know_rates(jobs, call.place)
    if call.options.dry_run:
        steps = list(dryrun.explain_jobs(jobs, call.declared, place, call.request.accel))
        return call.show_product(listing.render_steps, listing.render_steps_json, steps)
    redo = call.options.always_make
    run_id, _ = pipeline.run_jobs(jobs, call.declared, place, call.request.accel, call.command, redo=redo)
    call.terminal.stop()
    run = load_run(place.store.path("runs", run_id) / "record.json")
    matrix = seriesmatrix.make_matrix(jobs[-1], run)
    call.show_product(seriesmatrix.render, seriesmatrix.render_json, matrix)
    return int(not matrix.is_as_claimed)


def render_ci(call: Call) -> int:
    """The pipeline, or what is wrong with it or with the files that are named."""
    from orchestrator.gitlab import check
    from orchestrator.gitlab.pipeline import make_text

    if call.options.check and call.subjects:
        raise_all([error for name in call.subjects for error in check.check_file(Path(name))])
        return 0
    choose_subject("ci", call.subjects, ())
    values = {name: setting.value for name, setting in call.settings.items()}
    folder = ("-C", str(call.options.directory)) if call.options.directory else ()
    text = make_text(call.request, values, folder, call.declared, call.place)
    if call.options.check:
        raise_all(check.check_pipeline(text, "the pipeline"))
    else:
        call.show(text)
    return 0


def merge_stores(call: Call) -> int:
    """With rows, one run of all that came of them, and of what did not."""
    from orchestrator.history import merge
    from orchestrator.plan import plan, stages
    from orchestrator.report.folder import point_latest

    jobs = plan.make_plan(call.request, call.declared) if call.request.rows else ()
    folders = [Path(word) for word in call.subjects]
    store, is_dry_run = call.place.store, call.options.dry_run
    planned = [stages.make_record(job) for job in jobs]
    merged = merge.merge(store, folders, call.terminal.note, planned, is_dry_run=is_dry_run)
    call.show_product(merge.render, merge.render_json, merged)
    if merged.merged and not is_dry_run:
        point_latest(store, merged.merged)
    return 0
