# SPDX-License-Identifier: GPL-2.0-or-later
"""report: the verdicts of stored runs, as tables, a mail, a page, and in formats for programs."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target
from orchestrator.errors import UsageError
from orchestrator.source.repository import find_user
from orchestrator.store.name import is_name

if TYPE_CHECKING:
    from orchestrator.report.report import Judged


def run(call: Call) -> int:
    from orchestrator.report.folder import choose_runs

    name = call.value("FORMAT")
    options = call.line.options
    if name not in ("text", "json") and (options.json or options.failed):
        raise UsageError("goes with FORMAT=text or json", where="--json" if options.json else "--failed")
    if name == "mail" and (mail := _find_bisection_mail(call)):
        call.show(mail)
        return 0
    run_ids = choose_runs(call.store, call.value("RUN"))
    if name == "text":
        return show_report(run_ids, call, is_new=True)
    return _print_report(run_ids, name, call)


def _find_bisection_mail(call: Call) -> str:
    """The mail of a bisection, if RUN= is the id of one."""
    name = call.value("RUN")
    place = call.store.path("bisects") / name
    if not is_name(name) or not place.is_dir():
        return ""
    try:
        return (place / "mail.txt").read_text()
    except FileNotFoundError:
        what = "this bisection has no mail: it is not finished, or found no single commit that broke the test"
        raise UsageError(what, where=name, hint=f"see {place / 'report.txt'}") from None


def _print_report(run_ids: Sequence[str], name: str, call: Call) -> int:
    """Print stored runs in a format for programs, or as a mail, and nothing else."""
    from orchestrator.history.database import find_entries, open_history
    from orchestrator.report import folder, junit, kcidb, mail, report

    judged = folder.judge_runs(call.store, run_ids)
    if not call.is_dry_run:
        folder.write_reports(judged, call.store, call.note, is_new=True)
    match name:
        case "mail":
            with open_history(call.store, call.note) as db:
                text = mail.render_mail(judged, find_entries(db), find_user(Path.cwd()))
        case "kcidb":
            text = kcidb.render_kcidb(judged, call.value("ORIGIN"))
        case "ktap":
            text = report.render_ktap(judged)
        case "junit":
            text = junit.render_junit(judged)
        case "html":
            text = folder.render_page(judged, call.store, call.note)
        case _:
            text = report.render_json(judged, only_bad=call.line.options.failed)
    if call.folder and not call.is_dry_run:
        folder.write_bundles(judged, call.store)
        folder.publish(judged, call.store, call.folder)
    call.show(text)
    return 0 if judged.is_as_expected else 1


def show_report(run_ids: Sequence[str], call: Call, *, is_new: bool) -> int:
    """Show stored runs and write their reports; 1 where a verdict is not as expected."""
    from orchestrator.gitlab.reports import write_annotations
    from orchestrator.report import folder, report

    store, target, options = call.store, call.folder, call.line.options
    judged = folder.judge_runs(store, run_ids)
    if not call.is_dry_run:
        folder.write_reports(judged, store, call.note, is_new=is_new)
    if options.json:
        call.show(report.render_json(judged, only_bad=options.failed))
    else:
        where = store.path("runs") / judged.run.run_id
        _show_tables(judged, f"{where}: {', '.join(folder.FILES)}", call, is_new=is_new)
    if (is_new or target) and not call.is_dry_run:
        folder.write_bundles(judged, store)
    if target and not call.is_dry_run:
        names = folder.publish(judged, store, target)
        write_annotations(target, os.environ)
        if not options.json:
            call.show(f"{target}: {', '.join(names)}\n")
    return 0 if judged.is_as_expected else 1


def _show_tables(judged: "Judged", where: str, call: Call, *, is_new: bool) -> None:
    from rich.console import Console
    from rich.text import Text

    from orchestrator.report import report

    console = Console(highlight=False, soft_wrap=True, width=call.width or 160)
    only_bad = call.line.options.failed

    def show(text: str, style: str = "") -> None:
        console.print(Text(call.fit(text), style))

    for title, table in report.make_tables(judged, console.width, only_bad=only_bad):
        show(title, "bold")
        console.print(table)
    for title, text in report.list_explanations(judged, only_bad=only_bad):
        show(title, "bold")
        show("\n".join(f"    {line}" for line in text.splitlines()))
    if judged.longest:
        show(f"\nlongest: {judged.longest}")
    show(f"\n{'' if is_new else 'up to date: '}{judged.summary}", "bold")
    show(where)


TARGETS = (
    Target(
        "report",
        "read results",
        "show the verdicts of the last run or of named runs",
        run,
        (
            ("cowbell report", "show the last run"),
            ("cowbell report RUN=demo-0123456789ab FORMAT=mail", "print a run as a mail for a kernel list"),
        ),
        variables=("RUN", "FORMAT", "ORIGIN", "DIR"),
        extra_options=("--failed",),
        products=("report",),
        more="It needs no kernel. FORMAT= prints only that format. DIR= gets report.json, report.ktap, "
        "junit.xml, the page, files/ and evidence/.",
    ),
)
