# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line, with make's habits. Alone in printing and in ending the process.

stdout is the product, stderr is for people. Exit status: 0 every verdict is the expected one, 1 one is not,
2 your mistake, 3 the host's.
"""

import argparse
import contextlib
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from orchestrator import gc
from orchestrator.document import size_mib, suggest
from orchestrator.errors import CowbellError, UsageError, raise_all
from orchestrator.store import Store, disk_trouble, find_default_root, write_atomic

if TYPE_CHECKING:
    # imported where they are used: cowbell --help must not wait for paramiko
    from orchestrator.pipeline import Step, Workspace
    from orchestrator.plan import Declarations, Job, Request
    from orchestrator.terminal import Terminal

TARGETS: Mapping[str, str] = {
    "source": "fetch the trees and apply the series",
    "config": "what becomes of every config symbol that is asked for, and why",
    "build": "source, then configure and build the kernels",
    "test": "build, then boot, run the cases and report (the default)",
    "shell": "build, then boot one kernel and open a shell in its guest, or run the commands on stdin",
    "report": "show a run again: RUN=ID, or the last one",
    "gc": "remove what was not used for longest, until the store has at most SIZE",
    "list": "what there is: rows, kernels, series, fragments, cases; or --changelog",
    "explain": "all about the cases that are named after it",
    "proof": "which kernels every case was seen to fail on, and to pass on",
    "series": "the patches of the series; with KERNEL= (and -n to keep nothing) whether they apply",
    "worktree": "open SERIES= on KERNEL= as commits to edit, and print where (DIR= chooses)",
    "refresh": "write the commits of that worktree back into patches/SERIES",
}

# these do not go together with others
ALONE = ("shell", "gc", "list", "explain", "proof", "series", "worktree", "refresh")


@dataclass(frozen=True, slots=True)
class Variable:
    """``is_inherited``: it may come from the environment, where a CC or SIZE means something else."""

    about: str
    default: str = ""
    is_inherited: bool = True


VARIABLES: Mapping[str, Variable] = {
    "ROW": Variable("rows of ci/matrix.yaml, by name; all of them when empty"),
    "KERNEL": Variable("a tree of patches/trees.yaml or a /path/to/one, with :REF if wanted"),
    "SERIES": Variable(
        "series to compare the plain kernel with: names of patches/, folders, mboxes, patches, "
        "TREE:BASE..TIP; none for none"
    ),
    "DIRTY": Variable("1 takes KERNEL=/path/to/checkout with its changes that are not committed"),
    "ARCH": Variable("x86_64, aarch64 or riscv64, instead of the row's"),
    "CONFIG": Variable("fragments of kconfigs/, instead of the row's"),
    "CC": Variable("the compiler of the kernels, instead of the architecture's gcc", is_inherited=False),
    "LLVM": Variable("1 builds kernels with clang and LLVM's tools"),
    "TESTS": Variable("case ids or globs, instead of the row's"),
    "ACCEL": Variable("auto, kvm or tcg", "auto"),
    "BOOT": Variable(
        "who boots the guests: qemu, or vng for virtme-ng, which takes the fragment virtme", "qemu"
    ),
    "VMCORE": Variable("1 keeps the memory of a guest that crashes or hangs, for crash(8)"),
    "RUN": Variable("a run's id, for report"),
    "DIR": Variable("where the worktree is, instead of the store", is_inherited=False),
    "SIZE": Variable("how much the store may hold, for gc", "20G", is_inherited=False),
}

CHOICES = {"ACCEL": ("auto", "kvm", "tcg"), "BOOT": ("qemu", "vng")}


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable's value and where it came from."""

    value: str
    origin: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.value.replace(",", " ").split())


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and exit with the documented status."""
    words = list(sys.argv[1:] if argv is None else argv)
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
    except* KeyboardInterrupt:
        print(
            "cowbell: interrupted; what was done is kept, the same command goes on from there",
            file=sys.stderr,
        )
        status = 130
    except* BrokenPipeError:
        # whoever read our stdout has left; nothing more can be said there
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _flatten(group: BaseExceptionGroup[CowbellError]) -> Iterator[CowbellError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cowbell",
        usage="cowbell [OPTIONS] [TARGET...] [VAR=value...]",
        description="Does this kernel keep memory coherent when copy-on-write meets a page pin?",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            (
                "targets:",
                *(f"  {name:<8} {about}" for name, about in TARGETS.items()),
                "\nvariables (command line, then environment but for those marked *, then the row):",
                *(
                    f"  {name:<8} {variable.about}{'' if variable.is_inherited else ' *'}"
                    for name, variable in VARIABLES.items()
                ),
                "\nexit status: 0 as expected, 1 not as expected, 2 your mistake, 3 the host's trouble",
            )
        ),
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would be done, and why")
    parser.add_argument(
        "-k",
        "--keep-going",
        action="store_true",
        help="after a patch that does not apply, try the later ones",
    )
    parser.add_argument(
        "-B", "--always-make", action="store_true", help="do the targets again, though up to date"
    )
    parser.add_argument(
        "-C", "--directory", type=Path, default=None, metavar="DIR", help="the project's folder"
    )
    parser.add_argument("-s", "--silent", action="store_true", help="no progress on stderr")
    parser.add_argument("-p", "--print-variables", action="store_true", help="variables, values and origins")
    parser.add_argument(
        "--changelog", action="store_true", help="list: every entry, its cases, what they came to"
    )
    parser.add_argument("--json", action="store_true", help="the product as JSON")
    return parser


def _run(words: list[str]) -> int:
    options = _make_parser().parse_intermixed_args(words)
    targets, settings = _read_words(options.words)
    if options.print_variables:
        return _print_settings(settings, as_json=options.json)
    root = _find_root(options.directory)
    store = Store(find_default_root())
    if targets == ["report"]:
        return _show_run(store, settings["RUN"].value, as_json=options.json)
    if targets == ["gc"]:
        return _collect(store, settings["SIZE"].value, is_dry_run=options.dry_run, as_json=options.json)

    from orchestrator import patching, pipeline, plan
    from orchestrator.terminal import Terminal

    request = plan.Request(
        rows=settings["ROW"].words,
        tree=settings["KERNEL"].value,
        series=settings["SERIES"].words,
        tests=settings["TESTS"].words,
        arch=settings["ARCH"].value,
        config=settings["CONFIG"].words,
        # a shell comes by vng where it can
        boot="" if targets == ["shell"] and settings["BOOT"].origin == "default" else settings["BOOT"].value,
    )
    declared = pipeline.load_declarations(root)
    with Terminal(is_silent=options.silent) as terminal:
        place = pipeline.Workspace(
            root,
            store,
            terminal,
            keep_going=options.keep_going,
            cc=settings["CC"].value,
            use_llvm=settings["LLVM"].value == "1",
            keep_core=settings["VMCORE"].value == "1",
        )
        declared = pipeline.add_inputs(
            declared,
            request.tree,
            request.series,
            place,
            is_dirty=settings["DIRTY"].value not in ("", "0"),
            redo=options.always_make and "source" in targets,
        )
        if targets == ["list"] and not options.changelog:
            return _list(declared, as_json=options.json)
        if targets[0] in ("list", "explain", "proof"):
            return _show_evidence(targets[0], request, declared, place, as_json=options.json)
        if show := patching.TARGETS.get(targets[0]):
            where = Path(settings["DIR"].value).expanduser() if settings["DIR"].value else None
            status, text = show(request, declared, place, options, where)
            print(text, end="")
            return status
        jobs = plan.make_plan(request, declared)
        if targets == ["shell"]:
            return _open_shell(
                jobs, request.series, declared, place, options, settings["ACCEL"].value, terminal
            )
        status, run = _make_targets(
            targets, jobs, declared, place, options, settings["ACCEL"].value, shlex.join(["cowbell", *words])
        )
    return _report(store, run[0], as_json=options.json, is_new=run[1]) if run else status


def _open_shell(
    jobs: Sequence["Job"],
    series: Sequence[str],
    declared: "Declarations",
    place: "Workspace",
    options: argparse.Namespace,
    accel: str,
    terminal: "Terminal",
) -> int:
    from orchestrator import pipeline, shell

    job = shell.choose_job(jobs, series)
    if options.dry_run:
        steps = [step for step in pipeline.explain_jobs([job], declared, place, accel) if step.stage != "run"]
        steps.append(pipeline.Step("shell", f"{job.row.name}/{job.cell.name}", f"boot it, by {job.boot}"))
        return _print_steps(steps, as_json=options.json)
    with pipeline.open_guest(job, declared, place, accel) as guest:
        terminal.stop()
        if sys.stdin.isatty() and not options.silent:
            print(shell.make_greeting(guest, job), end="", file=sys.stderr)
        session = shell.run_shell(guest)
    for complaint in session.complaints:
        print(f"cowbell: the kernel complained: {complaint} ({guest.console})", file=sys.stderr)
    return session.status


def _make_targets(
    targets: Sequence[str],
    jobs: Sequence["Job"],
    declared: "Declarations",
    place: "Workspace",
    options: argparse.Namespace,
    accel: str,
    command: str,
) -> tuple[int, tuple[str, bool] | None]:
    """The targets that work on the rows, in their order, ``test`` last: the status, and the run if any."""
    from orchestrator import pipeline

    if options.dry_run:
        steps = list(pipeline.explain_jobs(jobs, declared, place, accel))
        return _print_steps(steps, as_json=options.json), None
    status = 0
    for target in targets:
        if target == "source":
            for src in pipeline.fetch_sources(jobs, declared, place, redo=options.always_make):
                print(f"{src.source_id} {src.tree} {src.version} {src.series or '-'} {src.commit}")
        elif target == "config":
            status = _print_configs(jobs, declared, place, as_json=options.json)
        elif target == "build":
            for kernel in pipeline.build_jobs(jobs, declared, place, redo=options.always_make):
                print(kernel.image)
    if "test" not in targets:
        return status, None
    return status, pipeline.run_jobs(jobs, declared, place, accel, command, redo=options.always_make)


def _read_words(words: Sequence[str]) -> tuple[list[str], dict[str, Setting]]:
    """Split targets from ``VAR=value``; every unknown word is told at once."""
    settings = {name: Setting(variable.default, "default") for name, variable in VARIABLES.items()}
    settings |= {
        name: Setting(os.environ[name], "environment")
        for name, variable in VARIABLES.items()
        if variable.is_inherited and os.environ.get(name)
    }
    targets: list[str] = []
    errors: list[UsageError] = []
    subjects: list[str] = []
    for word in words:
        name, is_setting, value = word.partition("=")
        if is_setting and name in VARIABLES:
            settings[name] = Setting(value, "command line")
        elif is_setting:
            errors.append(UsageError(f"there is no variable {name}{suggest(name, VARIABLES)}", where=word))
        elif targets == ["explain"]:
            subjects.append(word)
        elif word in TARGETS:
            targets.append(word)
        else:
            errors.append(
                UsageError(
                    f"there is no target {word}{suggest(word, TARGETS)}", hint="cowbell --help lists them"
                )
            )
    if subjects:
        settings["TESTS"] = Setting(" ".join(subjects), "command line")
    for name, known in CHOICES.items():
        if (value := settings[name].value) not in known:
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            errors.append(UsageError(f"expected {expected}, got {value}{suggest(value, known)}", where=name))
    if settings["LLVM"].value not in ("", "0", "1"):
        errors.append(UsageError(f"expected 1 or 0, got {settings['LLVM'].value}", where="LLVM"))
    try:
        size_mib(settings["SIZE"].value)
    except ValueError as error:
        errors.append(UsageError(str(error), where="SIZE"))
    errors += [UsageError("is done alone", where=name) for name in ALONE if name in targets and targets[1:]]
    raise_all(errors)
    return targets or ["test"], settings


def _find_root(asked: Path | None) -> Path:
    """The project's folder: ``-C``, or the first one upwards from here that has a matrix, or our checkout."""
    here = asked or Path.cwd()
    candidates = [here] if asked else [here, *here.parents, Path(__file__).parent.parent]
    for folder in candidates:
        if (folder / "ci" / "matrix.yaml").is_file():
            return folder.resolve()
    raise UsageError(
        "there is no ci/matrix.yaml here", where=str(here), hint="say where the project is: cowbell -C DIR"
    )


def _print_settings(settings: Mapping[str, Setting], *, as_json: bool) -> int:
    if as_json:
        print(
            json.dumps(
                {name: {"value": s.value, "origin": s.origin} for name, s in settings.items()}, indent=1
            )
        )
    else:
        for name, setting in settings.items():
            print(f"{name:<6} = {setting.value:<24} # {setting.origin}")
    return 0


def _print_steps(steps: Sequence["Step"], *, as_json: bool) -> int:
    if as_json:
        print(json.dumps([{"stage": s.stage, "subject": s.subject, "why": s.why} for s in steps], indent=1))
        return 0
    for step in steps:
        print(f"{step.stage:<8} {step.subject}\n           {step.why or 'up to date'}")
    return 0


def _list(declared: "Declarations", *, as_json: bool) -> int:
    listed = {
        "rows": {name: row.about for name, row in declared.rows.items()},
        "kernels": {name: str(tree) for name, tree in declared.trees.items()},
        "series": {
            name: f"{len(series.patches)} patch(es), {series.title}"
            for name, series in declared.series.items()
        },
        "fragments": {name: fragment.about for name, fragment in declared.fragments.items()},
        "cases": {case.id: case.summary for case in declared.cases},
    }
    if as_json:
        print(json.dumps(listed, indent=1))
        return 0
    for kind, entries in listed.items():
        print(f"{kind}:")
        for name, about in entries.items():
            print(f"  {name:<24} {about}")
    return 0


def _show_evidence(
    target: str, request: "Request", declared: "Declarations", place: "Workspace", *, as_json: bool
) -> int:
    """What stored runs say of the cases; ROW= and TESTS= choose of which."""
    from orchestrator import changelog, ledger
    from orchestrator.guesttest import select_cases

    if target == "explain" and not request.tests:
        raise UsageError("expected the id of a case, or a glob", where="explain")
    cases = select_cases(declared.cases, request.tests or ("*",), target)
    runs = ledger.load_runs(place.store.path("runs"))
    found = ledger.find_sightings(runs, place.list_program_ids(cases))
    seen = [sighting for sighting in found.values() if sighting.row in (request.rows or (sighting.row,))]
    if target == "proof":
        proofs = ledger.make_proofs(cases, seen)
        text = ledger.render_proofs_json(proofs) if as_json else ledger.render_proofs(proofs)
    elif target == "explain":
        text = ledger.explain_cases_json(cases, seen) if as_json else ledger.explain_cases(cases, seen)
    else:
        entries = changelog.load_changelog(place.root / "guest-tests" / "changelog.yaml", declared.cases)
        coverage = ledger.make_coverage(entries, cases, seen)
        text = ledger.render_coverage_json(coverage) if as_json else ledger.render_coverage(coverage)
    print(text, end="")
    return 0


def _print_configs(
    jobs: Sequence["Job"], declared: "Declarations", place: "Workspace", *, as_json: bool
) -> int:
    from orchestrator import configreport

    reports = list(configreport.make_reports(jobs, declared, place))
    print(configreport.render_json(reports) if as_json else configreport.render_text(reports), end="")
    return int(any(report.is_bad for report in reports))


def _collect(store: Store, size: str, *, is_dry_run: bool, as_json: bool) -> int:
    found = gc.collect(store, size_mib(size) << 20, is_dry_run=is_dry_run)
    print(gc.render_json(found) if as_json else gc.render_text(found), end="")
    return 0


def _show_run(store: Store, run_id: str, *, as_json: bool) -> int:
    runs = store.path("runs")
    if not run_id:
        latest = runs / "latest"
        if not latest.exists():
            raise UsageError("there is no run yet", where=str(runs), hint="cowbell test makes one")
        run_id = latest.resolve().name
    if not (runs / run_id / "record.json").exists():
        known = [path.name for path in runs.glob("*-*")]
        raise UsageError(f"there is no run {run_id}{suggest(run_id, known)}", where=str(runs))
    return _report(store, run_id, as_json=as_json, is_new=True)


def _report(store: Store, run_id: str, *, as_json: bool, is_new: bool) -> int:
    """Render a stored run into its folder and onto stdout; the exit status says whether it is as expected."""
    from rich.console import Console

    from orchestrator import report
    from orchestrator.record import load_run

    folder = store.path("runs", run_id)
    judged = report.Judged(load_run(folder / "record.json"))
    files = {
        "report.json": report.render_json,
        "report.ktap": report.render_ktap,
        "junit.xml": report.render_junit,
        "report.html": report.render_html,
    }
    for name, render in files.items():
        if is_new or not (folder / name).exists():
            write_atomic(folder / name, render(judged))
    latest = folder.parent / "latest"
    with contextlib.suppress(FileExistsError):
        draft = folder.parent / f".latest-{os.getpid()}"
        draft.symlink_to(folder.name)
        draft.replace(latest)
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
        console.print(f"{folder}: {', '.join(files)}", markup=False, soft_wrap=True)
    return 0 if judged.is_as_expected else 1
