# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point: parses the command line, runs a target, prints results and sets the exit status.

Results go to stdout, progress and diagnostics to stderr. Exit status: 0 every verdict is as expected, 1 one
is not, 2 usage error, 3 infrastructure error. Only this module prints and ends the process.
"""

import argparse
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli import actions
from orchestrator.cli.call import Call, find_folder, make_place, make_request
from orchestrator.cli.grammar import (
    KINDS,
    PRODUCTS,
    SHELLS,
    Setting,
    choose_subject,
    make_parser,
    read_words,
    settle_jobs,
)
from orchestrator.errors import CowbellError, UsageError
from orchestrator.process.jobserver import read_options
from orchestrator.project.root import find_root
from orchestrator.project.yamlfile import size_mib
from orchestrator.store import gc
from orchestrator.store.store import Store, convert_disk_errors, find_default_root, open_default

if TYPE_CHECKING:
    # imported where they are used: cowbell --help must not wait for paramiko
    from orchestrator.plan.plan import Declarations, Job

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and exit with the documented status."""
    words = list(sys.argv[1:] if argv is None else argv)
    is_step = "bisect-step" in words
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with convert_disk_errors(find_default_root()):
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
    from orchestrator.cli.preferences import find_path, load_preferences

    asked = settle_jobs([*read_options(os.environ), *words])
    options = make_parser().parse_intermixed_args(asked)
    read = read_words(options.words, load_preferences(find_path()))
    targets, settings = read.targets, read.settings
    if options.print_variables:
        return _print_settings(settings, as_json=options.json)
    store = open_default()
    if targets == ("bisect",) and settings["RESUME"].value == "1":
        from orchestrator.bisect.outcome import find_interrupted

        folder, words = find_interrupted(store.path("bisects"))
        os.chdir(folder)
        return _run(words)
    match targets[0]:
        case "report":
            from orchestrator.report.folder import choose_runs

            run_ids = choose_runs(store, settings["RUN"].value)
            return _report(store, run_ids, find_folder(settings), as_json=options.json, is_new=True)
        case "gc":
            return _collect(store, size_mib(settings["SIZE"].value), gc.KINDS, options)
        case "clean":
            return _collect(store, 0, gc.CLEANED, options)
        case "history" | "diff":
            return _tell_history(store, targets[0], read.subjects, settings, options)
        case "manpage" | "schema":
            return _show_page(targets[0], read.subjects)

    from orchestrator.plan.declarations import load_declarations

    root = find_root(options.directory)
    declared = load_declarations(root)
    if targets == ("completion",):
        return _complete(read.subjects, declared, store)
    if targets == ("list",) and not options.changelog:
        return _list(read.subjects, declared, store, options)

    from orchestrator.cli.terminal import Terminal
    from orchestrator.plan.inputs import add_inputs, add_names

    request = make_request(targets, settings)
    with Terminal(is_silent=options.silent, is_verbose=options.verbose) as terminal:
        place = make_place(root, store, settings, options, terminal)
        if targets[0] in _BY_NAME:
            declared = add_names(declared, request.tree, request.series)
        else:
            declared = add_inputs(
                declared,
                request.tree,
                request.series,
                place,
                is_dirty=settings["DIRTY"].value not in ("", "0"),
                redo=options.always_make and "source" in targets,
                built=[Path(word).expanduser() for word in settings["BUILT"].words],
            )
        command = shlex.join(["cowbell", *words])
        call = Call(
            targets,
            read.subjects,
            settings,
            options,
            words,
            command,
            request,
            declared,
            place,
            terminal,
            _show,
        )
        return _TARGETS.get(targets[0], _make_targets)(call)


def _print_settings(settings: Mapping[str, Setting], *, as_json: bool) -> int:
    from orchestrator.cli import listing

    render = listing.render_settings_json if as_json else listing.render_settings
    print(render(settings), end="")
    return 0


def _list(
    subjects: Sequence[str], declared: "Declarations", store: Store, options: argparse.Namespace
) -> int:
    from orchestrator.cli import listing

    as_json = options.json
    kind = choose_subject("list", subjects, KINDS)
    if kind == "trees" and options.verbose:
        return _list_versions(declared, store, options)
    if kind:
        names = listing.list_kind(kind, declared)
        print(listing.render_names_json(kind, names) if as_json else listing.render_names(names), end="")
        return 0
    render = listing.render_declared_json if as_json else listing.render_declared
    print(render(listing.list_declared(declared), declared.own), end="")
    return 0


def _list_versions(declared: "Declarations", store: Store, options: argparse.Namespace) -> int:
    """The trees with the versions that Debian's mirror offers."""
    from orchestrator.cli import listing
    from orchestrator.source import debian, versions
    from orchestrator.source.tree import DebianTree

    trees = [tree for tree in declared.trees.values() if isinstance(tree, DebianTree)]
    if options.dry_run:
        found = versions.DebianVersions(
            {tree.name: versions.read_versions(tree, store) for tree in trees}, {}
        )
    else:
        max_age_s = 0.0 if options.always_make else debian.FRESH_S
        found = versions.list_versions(trees, store, max_age_s=max_age_s)
    if found.errors and not any(found.trees.values()):
        raise next(iter(found.errors.values()))
    for error in found.errors.values():
        _note(error.what)
    names = listing.list_kind("trees", declared)
    render = listing.render_versions_json if options.json else listing.render_versions
    print(render(names, found), end="")
    return 0


def _complete(subjects: Sequence[str], declared: "Declarations", store: Store) -> int:
    """The script, or what the script asks for: the words that may stand where one was begun."""
    from orchestrator.cli import completion, listing

    if subjects[:1] == ("words",):
        begun, first = (*subjects[1:], "", "")[:2]
        names: Mapping[str, Iterable[str]] = listing.list_declared(declared)
        if begun.startswith("KERNEL=") and ":" in begun:
            names = {**names, "trees": _list_tree_words(begun, declared, store)}
        for word in completion.complete(begun, first, names, make_parser()):
            print(word)
        return 0
    if not (shell := choose_subject("completion", subjects, SHELLS)):
        raise UsageError(f"expected {', '.join(SHELLS)}", where="completion")
    print(completion.render_script(shell), end="")
    return 0


def _list_tree_words(begun: str, declared: "Declarations", store: Store) -> list[str]:
    """TREE:VERSION for each version that is known without a network."""
    from orchestrator.source.tree import DebianTree
    from orchestrator.source.versions import read_versions

    name = begun.removeprefix("KERNEL=").partition(":")[0]
    tree = declared.trees.get(name)
    known = read_versions(tree, store) if isinstance(tree, DebianTree) else ()
    return [f"{name}:{version.version}" for version in known]


def _show_page(target: str, subjects: Sequence[str]) -> int:
    """What is printed from tables alone."""
    import importlib.metadata

    from orchestrator.cli import manpage

    if target == "manpage":
        print(manpage.render(make_parser(), importlib.metadata.version("cowbell")), end="")
        return 0
    if not (name := choose_subject(target, subjects, PRODUCTS)):
        raise UsageError(f"expected one of {', '.join(PRODUCTS)}", where="schema")
    from orchestrator.cli import schemas

    print(schemas.render(name), end="")
    return 0


def _open_shell(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.cli import listing, shell
    from orchestrator.plan import dryrun, plan

    job = shell.choose_job(plan.make_plan(call.request, call.declared), call.request.series)
    accel = call.request.accel
    if call.options.dry_run:
        found = dryrun.explain_jobs([job], call.declared, call.place, accel)
        steps = [step for step in found if step.stage != "run"]
        steps.append(dryrun.Step("shell", job.name, f"boot it, by {job.boot}"))
        return call.show_product(listing.render_steps, listing.render_steps_json, steps)
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
    from orchestrator.cli import listing
    from orchestrator.plan import dryrun, plan

    jobs = plan.make_plan(call.request, call.declared)
    declared, place, redo = call.declared, actions.know_rates(jobs, call.place), call.options.always_make
    if call.options.dry_run:
        steps = list(dryrun.explain_jobs(jobs, declared, place, call.request.accel))
        return call.show_product(listing.render_steps, listing.render_steps_json, steps)
    dryrun.check_what_if(jobs, declared, place)
    status = 0
    for target in call.targets:
        if target == "source":
            for src in pipeline.fetch_sources(jobs, declared, place, redo=redo):
                print(f"{src.source_id} {src.tree} {src.version} {src.series or '-'} {src.commit}")
        elif target == "config":
            status = _print_configs(jobs, call)
        elif target == "build":
            folder = call.folder if "test" not in call.targets else None
            for image in pipeline.build_jobs(jobs, declared, place, redo=redo, target=folder):
                print(image)
    if "test" not in call.targets:
        return status
    run_id, is_new = pipeline.run_jobs(jobs, declared, place, call.request.accel, call.command, redo=redo)
    call.terminal.stop()
    return _report(place.store, [run_id], call.folder, as_json=call.options.json, is_new=is_new)


def _print_configs(jobs: Sequence["Job"], call: Call) -> int:
    from orchestrator.cli import configreport

    reports = list(configreport.make_reports(jobs, call.declared, call.place))
    call.show_product(configreport.render_text, configreport.render_json, reports)
    return int(any(report.is_bad for report in reports))


# they look at no tree and no series
_BY_NAME = ("ci", "merge")
# what is done alone; the others work on the rows
_TARGETS: Mapping[str, Callable[[Call], int]] = {
    "shell": _open_shell,
    "bisect": actions.bisect_line,
    "bisect-step": actions.take_step,
    "series-matrix": actions.make_series_matrix,
    "ci": actions.render_ci,
    "merge": actions.merge_stores,
    "doctor": actions.examine,
    "list": actions.show_evidence,
    "explain": actions.show_evidence,
    "proof": actions.show_evidence,
    "series": actions.edit_patches,
    "worktree": actions.edit_patches,
    "refresh": actions.edit_patches,
}


def _show(text: str) -> None:
    print(text, end="")


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
    from orchestrator.history import database, diff, entry

    as_json = options.json
    with database.open_history(store, _note) as db:
        if target == "diff":
            found = diff.compare(*diff.find_sides(db, store, subjects))
            print(diff.render_json(found) if as_json else diff.render(found), end="")
            return int(bool(found.broken))
        entries = database.choose_entries(db, subjects, settings["ROW"].words, settings["KERNEL"].value)
        print(entry.render_json(entries) if as_json else entry.render(entries), end="")
        return 0


def _report(store: Store, run_ids: Sequence[str], target: Path | None, *, as_json: bool, is_new: bool) -> int:
    """Render stored runs into a folder and onto stdout; the exit status says whether all is as expected.

    ``target`` is a folder that gets a copy.
    """
    from rich.console import Console

    from orchestrator.report import folder, report

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
    if is_new or target:
        folder.write_bundles(judged, store)
    if target:
        names = folder.publish(judged, store, target)
        if not as_json:
            print(f"{target}: {', '.join(names)}")
    return 0 if judged.is_as_expected else 1
