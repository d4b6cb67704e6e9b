# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line, with make's habits. Alone in printing and in ending the process.

stdout is the product, stderr is for people. Exit status: 0 every verdict is the expected one, 1 one is not,
2 your mistake, 3 the host's.
"""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from orchestrator.commandline.grammar import (
    KINDS,
    PRODUCTS,
    SHELLS,
    Setting,
    choose_subject,
    make_parser,
    read_confidence,
    read_repeat,
    read_words,
    settle_jobs,
)
from orchestrator.declarations.document import size_mib
from orchestrator.ground import gc
from orchestrator.ground.errors import CowbellError, UsageError
from orchestrator.ground.jobserver import read_options
from orchestrator.ground.project import find_root
from orchestrator.ground.store import Store, disk_trouble, find_default_root

if TYPE_CHECKING:
    # imported where they are used: cowbell --help must not wait for paramiko
    from orchestrator.commandline.terminal import Terminal
    from orchestrator.declarations.guesttest import GuestCase
    from orchestrator.ground.workers import Limits
    from orchestrator.jobs.plan import Declarations, Job, Request
    from orchestrator.jobs.workspace import Workspace
    from orchestrator.targets.ledger import Sighting

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """What was typed, and what was read for it: all that a target needs.

    ``targets`` are those named, in their order, ``subjects`` what is named after one; ``words`` is all that
    was typed, ``command`` the line as it can be pasted.
    """

    targets: tuple[str, ...]
    subjects: tuple[str, ...]
    settings: Mapping[str, Setting]
    options: argparse.Namespace
    words: Sequence[str]
    command: str
    request: "Request"
    declared: "Declarations"
    place: "Workspace"
    terminal: "Terminal"

    def value(self, name: str) -> str:
        return self.settings[name].value


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and exit with the documented status."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_step = "bisect-step" in words
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with disk_trouble(find_default_root()):
            status = _run(words)
    except* CowbellError as group:
        errors = list(_flatten(group))
        for error in errors:
            print(f"cowbell: {error}", file=sys.stderr)
        status = max(error.exit_code for error in errors)
        if is_step:
            status = 126 + status
    except* KeyboardInterrupt:
        print(
            "cowbell: interrupted; what was done is kept, the same command goes on from there",
            file=sys.stderr,
        )
        status = 130
    except* SystemExit as ended:
        # of the options' parser: 0 for --help, 2 for wrong options
        status = 128 if is_step and "0" not in str(ended.exceptions[0]) else int(str(ended.exceptions[0]))
    except* BrokenPipeError:
        # whoever read our stdout has left; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except* Exception:
        if not is_step:
            raise
        traceback.print_exc()
        status = 128
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _flatten(group: BaseExceptionGroup[CowbellError]) -> Iterator[CowbellError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _run(words: list[str]) -> int:
    from orchestrator.commandline.preferences import find_path, load_preferences

    asked = settle_jobs([*read_options(os.environ), *words])
    options = make_parser().parse_intermixed_args(asked)
    read = read_words(options.words, load_preferences(find_path()))
    targets, settings = read.targets, read.settings
    if options.print_variables:
        return _print_settings(settings, as_json=options.json)
    store = Store(find_default_root())
    if targets == ("bisect",) and settings["RESUME"].value == "1":
        from orchestrator.bisects.outcome import find_interrupted

        folder, words = find_interrupted(store.path("bisects"))
        os.chdir(folder)
        return _run(words)
    match targets[0]:
        case "report":
            from orchestrator.reports.folder import choose_runs

            run_ids = choose_runs(store, settings["RUN"].value)
            return _report(store, run_ids, as_json=options.json, is_new=True)
        case "gc":
            return _collect(store, size_mib(settings["SIZE"].value), gc.KINDS, options)
        case "clean":
            return _collect(store, 0, gc.CLEANED, options)
        case "history" | "diff" | "merge":
            return _tell_history(store, targets[0], read.subjects, settings, options)
        case "manpage" | "schema":
            return _show_page(targets[0], read.subjects)

    from orchestrator.jobs.declared import load_declarations

    root = find_root(options.directory)
    declared = load_declarations(root)
    if targets == ("completion",):
        return _complete(read.subjects, declared)
    if targets == ("list",) and not options.changelog:
        return _list(read.subjects, declared, as_json=options.json)

    from orchestrator.commandline.terminal import Terminal
    from orchestrator.jobs.inputs import add_inputs

    request = _make_request(targets, settings)
    with Terminal(is_silent=options.silent, is_verbose=options.verbose) as terminal:
        place = _make_place(root, store, settings, options, terminal)
        declared = add_inputs(
            declared,
            request.tree,
            request.series,
            place,
            is_dirty=settings["DIRTY"].value not in ("", "0"),
            redo=options.always_make and "source" in targets,
        )
        command = shlex.join(["cowbell", *words])
        call = Call(
            targets, read.subjects, settings, options, words, command, request, declared, place, terminal
        )
        return _TARGETS.get(targets[0], _make_targets)(call)


def _make_request(targets: Sequence[str], settings: Mapping[str, Setting]) -> "Request":
    from orchestrator.jobs.plan import Request

    # a shell comes by vng where it can
    is_free = tuple(targets) == ("shell",) and settings["BOOT"].origin == "default"
    return Request(
        rows=settings["ROW"].words,
        tree=settings["KERNEL"].value,
        series=settings["SERIES"].words,
        tests=settings["TESTS"].words,
        arch=settings["ARCH"].value,
        config=settings["CONFIG"].words,
        accel=settings["ACCEL"].value,
        boot="" if is_free else settings["BOOT"].value,
    )


def _make_place(
    root: Path,
    store: Store,
    settings: Mapping[str, Setting],
    options: argparse.Namespace,
    terminal: "Terminal",
) -> "Workspace":
    from orchestrator.jobs.manifest import find_names
    from orchestrator.jobs.workspace import Workspace
    from orchestrator.verdicts.trials import Repeat

    return Workspace(
        root,
        store,
        terminal,
        keep_going=options.keep_going,
        cc=settings["CC"].value,
        use_llvm=settings["LLVM"].value == "1",
        keep_core=settings["VMCORE"].value == "1",
        limits=_find_limits(options, terminal),
        what_if=find_names(options.what_if),
        repeat=Repeat(read_repeat(settings["REPEAT"].value)),
    )


def _find_limits(options: argparse.Namespace, terminal: "Terminal") -> "Limits":
    """One job at a time, or as many as -j or the make that called us allows."""
    from orchestrator.ground.jobserver import Jobserver
    from orchestrator.ground.workers import Limits

    if options.jobs is not None:
        jobs = options.jobs or os.cpu_count() or 1
        return Limits(Jobserver.make(jobs), options.load_average, options.keep_going)
    cores = Jobserver.inherit(os.environ)
    if not cores and "--jobserver" in os.environ.get("MAKEFLAGS", ""):
        terminal.note("make keeps its jobserver from us, its recipe has no +: one job at a time")
    return Limits(cores, options.load_average, options.keep_going)


def _print(as_text: Callable[[T], str], as_json: Callable[[T], str], product: T, call: Call) -> int:
    print((as_json if call.options.json else as_text)(product), end="")
    return 0


def _print_settings(settings: Mapping[str, Setting], *, as_json: bool) -> int:
    from orchestrator.commandline import listing

    render = listing.render_settings_json if as_json else listing.render_settings
    print(render(settings), end="")
    return 0


def _list(subjects: Sequence[str], declared: "Declarations", *, as_json: bool) -> int:
    from orchestrator.commandline import listing

    if kind := choose_subject("list", subjects, KINDS):
        names = listing.list_kind(kind, declared)
        print(listing.render_names_json(kind, names) if as_json else listing.render_names(names), end="")
        return 0
    render = listing.render_declared_json if as_json else listing.render_declared
    print(render(listing.list_declared(declared), declared.own), end="")
    return 0


def _find_seen(cases: Sequence["GuestCase"], place: "Workspace") -> Iterable["Sighting"]:
    from orchestrator.targets import ledger

    runs = ledger.load_runs(place.store.path("runs"))
    return ledger.find_sightings(runs, place.list_program_ids(cases)).values()


def _know_rates(jobs: Sequence["Job"], place: "Workspace") -> "Workspace":
    """REPEAT=auto: at what rates races are known to fail."""
    from orchestrator.targets import ledger
    from orchestrator.verdicts import trials

    if place.repeat.count != trials.AUTO:
        return place
    races = list({case.id: case for job in jobs for case in job.cases if case.kind == "race"}.values())
    sought = ledger.find_sought(ledger.make_proofs(races, _find_seen(races, place)))
    return replace(place, repeat=replace(place.repeat, sought=sought))


def _show_evidence(call: Call) -> int:
    """What stored runs say of the cases; ROW= and TESTS= choose of which."""
    from orchestrator.commandline import explain
    from orchestrator.declarations.guesttest import select_cases
    from orchestrator.targets import changelog, ledger

    (target,) = call.targets
    request, place, declared = call.request, call.place, call.declared

    def find_seen(cases: Sequence["GuestCase"]) -> list["Sighting"]:
        found = _find_seen(cases, place)
        return [sighting for sighting in found if sighting.row in (request.rows or (sighting.row,))]

    if target == "explain":
        plain, chosen = explain.find_subjects(call.subjects or request.tests, declared)
        seen = find_seen(chosen)
        show = explain.render_json if call.options.json else explain.render
        print(show(plain, chosen, seen, declared), end="")
        return 0
    cases = select_cases(declared.cases, request.tests or ("*",), target)
    seen = find_seen(cases)
    if target == "proof":
        return _print(ledger.render_proofs, ledger.render_proofs_json, ledger.make_proofs(cases, seen), call)
    entries = changelog.load_changelog(place.changelogs, declared.cases)
    coverage = ledger.make_coverage(entries, cases, seen)
    return _print(ledger.render_coverage, ledger.render_coverage_json, coverage, call)


def _examine(call: Call) -> int:
    from orchestrator.commandline import doctor
    from orchestrator.jobs import plan

    findings = doctor.examine(plan.make_plan(call.request, call.declared), call.place)
    _print(doctor.render, doctor.render_json, findings, call)
    return int(bool(doctor.find_missing(findings)))


def _complete(subjects: Sequence[str], declared: "Declarations") -> int:
    """The script, or what the script asks for: the words that may stand where one was begun."""
    from orchestrator.commandline import completion, listing

    if subjects[:1] == ("words",):
        begun, first = (*subjects[1:], "", "")[:2]
        for word in completion.complete(begun, first, listing.list_declared(declared), make_parser()):
            print(word)
        return 0
    if not (shell := choose_subject("completion", subjects, SHELLS)):
        raise UsageError(f"expected {', '.join(SHELLS)}", where="completion")
    print(completion.render_script(shell), end="")
    return 0


def _show_page(target: str, subjects: Sequence[str]) -> int:
    """What is printed from tables alone."""
    import importlib.metadata

    from orchestrator.commandline import manpage

    if target == "manpage":
        print(manpage.render(make_parser(), importlib.metadata.version("cowbell")), end="")
        return 0
    if not (name := choose_subject(target, subjects, PRODUCTS)):
        raise UsageError(f"expected one of {', '.join(PRODUCTS)}", where="schema")
    from orchestrator.commandline import schemas

    print(schemas.render(name), end="")
    return 0


def _edit_patches(call: Call) -> int:
    from orchestrator.targets import patching

    where = Path(call.value("DIR")).expanduser() if call.value("DIR") else None
    show = patching.TARGETS[call.targets[0]]
    status, text = show(call.request, call.declared, call.place, call.options, where)
    print(text, end="")
    return status


def _open_shell(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.commandline import listing
    from orchestrator.jobs import plan
    from orchestrator.targets import dryrun, shell

    job = shell.choose_job(plan.make_plan(call.request, call.declared), call.request.series)
    accel = call.request.accel
    if call.options.dry_run:
        found = dryrun.explain_jobs([job], call.declared, call.place, accel)
        steps = [step for step in found if step.stage != "run"]
        steps.append(dryrun.Step("shell", job.name, f"boot it, by {job.boot}"))
        return _print(listing.render_steps, listing.render_steps_json, steps, call)
    with pipeline.open_guest(job, call.declared, call.place, accel) as guest:
        call.terminal.stop()
        if sys.stdin.isatty() and not call.options.silent:
            print(shell.make_greeting(guest, job), end="", file=sys.stderr)
        session = shell.run_shell(guest)
    for complaint in session.complaints:
        print(f"cowbell: the kernel complained: {complaint} ({guest.console})", file=sys.stderr)
    return session.status


def _make_targets(call: Call) -> int:
    """The targets that work on the rows, in their order, ``test`` last."""
    from orchestrator import pipeline
    from orchestrator.commandline import listing
    from orchestrator.jobs import plan
    from orchestrator.targets import dryrun

    jobs = plan.make_plan(call.request, call.declared)
    declared, place, redo = call.declared, _know_rates(jobs, call.place), call.options.always_make
    if call.options.dry_run:
        steps = list(dryrun.explain_jobs(jobs, declared, place, call.request.accel))
        return _print(listing.render_steps, listing.render_steps_json, steps, call)
    dryrun.check_what_if(jobs, declared, place)
    status = 0
    for target in call.targets:
        if target == "source":
            for src in pipeline.fetch_sources(jobs, declared, place, redo=redo):
                print(f"{src.source_id} {src.tree} {src.version} {src.series or '-'} {src.commit}")
        elif target == "config":
            status = _print_configs(jobs, call)
        elif target == "build":
            for image in pipeline.build_jobs(jobs, declared, place, redo=redo):
                print(image)
    if "test" not in call.targets:
        return status
    run_id, is_new = pipeline.run_jobs(jobs, declared, place, call.request.accel, call.command, redo=redo)
    call.terminal.stop()
    return _report(place.store, [run_id], as_json=call.options.json, is_new=is_new)


def _print_configs(jobs: Sequence["Job"], call: Call) -> int:
    from orchestrator.targets import configreport

    reports = list(configreport.make_reports(jobs, call.declared, call.place))
    _print(configreport.render_text, configreport.render_json, reports, call)
    return int(any(report.is_bad for report in reports))


def _bisect(call: Call) -> int:
    from orchestrator.bisects import bisection, outcome
    from orchestrator.targets import bisect

    case, job = bisect.choose_job(call.value("CASE"), call.request, call.declared)
    asked = bisect.Asked(
        call.value("CASE"),
        call.value("GOOD"),
        call.value("BAD"),
        call.value("FIND"),
        call.settings["PATHS"].words,
        call.settings["CONFIG_GOOD"].words,
        call.settings["CONFIG_BAD"].words,
        read_confidence(call.value("CONFIDENCE")),
    )
    question = bisect.make_question(asked, case, job, call.declared, call.place)
    place = _know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    redo = call.options.always_make
    ours = bisection.Bisection(question, job, place, call.request.accel, call.command, redo=redo)
    if call.options.dry_run:
        print(ours.describe())
        return 0
    outcome.save_call(ours.folder, call.words)
    found = ours.run()
    call.terminal.stop()
    _print(outcome.render_text, outcome.render_json, found, call)
    if not call.options.json:
        print(f"{ours.folder}: {', '.join(sorted(path.name for path in ours.folder.glob('*.txt')))}")
    return int(not found.is_found)


def _take_step(call: Call) -> int:
    from orchestrator.targets import bisect

    name, fingerprint = call.value("CASE"), call.value("FINGERPRINT")
    if not call.request.tree:
        raise UsageError("which checkout is it?", where="KERNEL", hint="KERNEL=. where git bisect runs")
    _, job = bisect.choose_job(name, call.request, call.declared)
    place = _know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    answer, why, run_id = bisect.take_step(
        name, fingerprint, job, call.declared, place, call.request.accel, call.command
    )
    call.terminal.stop()
    print(f"{answer}: {why} ({run_id})")
    if call.value("FIND") == "fix":
        answer = answer.other
    return answer.exit_status


def _make_series_matrix(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.commandline import listing
    from orchestrator.jobs import plan
    from orchestrator.runs.record import load_run
    from orchestrator.targets import dryrun, seriesmatrix

    jobs = seriesmatrix.list_prefixes(plan.make_plan(call.request, call.declared))
    place = _know_rates(jobs, call.place)
    if call.options.dry_run:
        steps = list(dryrun.explain_jobs(jobs, call.declared, place, call.request.accel))
        return _print(listing.render_steps, listing.render_steps_json, steps, call)
    redo = call.options.always_make
    run_id, _ = pipeline.run_jobs(jobs, call.declared, place, call.request.accel, call.command, redo=redo)
    call.terminal.stop()
    run = load_run(place.store.path("runs", run_id) / "record.json")
    matrix = seriesmatrix.make_matrix(jobs[-1], run)
    _print(seriesmatrix.render, seriesmatrix.render_json, matrix, call)
    return int(not matrix.is_as_claimed)


# what is done alone; the others work on the rows
_TARGETS: Mapping[str, Callable[[Call], int]] = {
    "shell": _open_shell,
    "bisect": _bisect,
    "bisect-step": _take_step,
    "series-matrix": _make_series_matrix,
    "doctor": _examine,
    "list": _show_evidence,
    "explain": _show_evidence,
    "proof": _show_evidence,
    "series": _edit_patches,
    "worktree": _edit_patches,
    "refresh": _edit_patches,
}


def _note(text: str) -> None:
    print(f"cowbell: {text}", file=sys.stderr)


def _collect(store: Store, limit_mib: int, kinds: Sequence[str], options: argparse.Namespace) -> int:
    found = gc.collect(store, limit_mib << 20, kinds, is_dry_run=options.dry_run)
    print(gc.render_json(found) if options.json else gc.render_text(found), end="")
    return 0


def _tell_history(
    store: Store,
    target: str,
    subjects: Sequence[str],
    settings: Mapping[str, Setting],
    options: argparse.Namespace,
) -> int:
    """What was ever earned; the exit status of diff says whether something broke."""
    from orchestrator.histories import difference, entry, history, merge

    as_json = options.json
    if target == "merge":
        merged = merge.merge(store, [Path(word) for word in subjects], _note, is_dry_run=options.dry_run)
        print(merge.render_json(merged) if as_json else merge.render(merged), end="")
        return 0
    with history.open_history(store, _note) as db:
        if target == "diff":
            found = difference.compare(*difference.find_sides(db, store, subjects))
            print(difference.render_json(found) if as_json else difference.render(found), end="")
            return int(bool(found.broken))
        entries = history.choose_entries(db, subjects, settings["ROW"].words, settings["KERNEL"].value)
        print(entry.render_json(entries) if as_json else entry.render(entries), end="")
        return 0


def _report(store: Store, run_ids: Sequence[str], *, as_json: bool, is_new: bool) -> int:
    """Render stored runs into a folder and onto stdout; the exit status says whether all is as expected."""
    from rich.console import Console

    from orchestrator.reports import folder, report

    judged = folder.judge_runs(store, run_ids)
    folder.write_reports(judged, store, _note, is_new=is_new)
    if as_json:
        print(report.render_json(judged), end="")
    else:
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
        for table in report.make_tables(judged):
            console.print(table)
        for title, text in report.list_explanations(judged):
            console.print(title, style="bold", markup=False)
            for line in text.splitlines():
                console.print(f"    {line}", markup=False, soft_wrap=True)
        console.print(f"\n{'' if is_new else 'up to date: '}{judged.summary}", style="bold", markup=False)
        where = store.path("runs") / judged.run.run_id
        console.print(f"{where}: {', '.join(folder.FILES)}", markup=False, soft_wrap=True)
    if is_new:
        folder.write_bundles(judged, store)
    return 0 if judged.is_as_expected else 1
