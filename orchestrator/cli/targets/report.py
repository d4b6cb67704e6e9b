# SPDX-License-Identifier: GPL-2.0-or-later
"""report: the verdicts of stored runs, as tables, JSON, KTAP, JUnit and a page."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target

if TYPE_CHECKING:
    from orchestrator.report.report import Judged


def run(call: Call) -> int:
    from orchestrator.report.folder import choose_runs

    return show_report(choose_runs(call.store, call.value("RUN")), call, is_new=True)


def show_report(run_ids: Sequence[str], call: Call, *, is_new: bool) -> int:
    """Show stored runs and write their reports; 1 where a verdict is not as expected."""
    from orchestrator.report import folder, report

    store, target, as_json = call.store, call.folder, call.line.options.json
    judged = folder.judge_runs(store, run_ids)
    if not call.is_dry_run:
        folder.write_reports(judged, store, call.note, is_new=is_new)
    if as_json:
        call.show(report.render_json(judged))
    else:
        where = store.path("runs") / judged.run.run_id
        _show_tables(judged, f"{where}: {', '.join(folder.FILES)}", is_new=is_new)
    if (is_new or target) and not call.is_dry_run:
        folder.write_bundles(judged, store)
    if target and not call.is_dry_run:
        names = folder.publish(judged, store, target)
        if not as_json:
            call.show(f"{target}: {', '.join(names)}\n")
    return 0 if judged.is_as_expected else 1


def _show_tables(judged: "Judged", where: str, *, is_new: bool) -> None:
    from rich.console import Console

    from orchestrator.report import report

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
    for table in report.make_tables(judged):
        console.print(table)
    for title, text in report.list_explanations(judged):
        console.print(title, style="bold", markup=False)
        for line in text.splitlines():
            console.print(f"    {line}", markup=False, soft_wrap=True)
    console.print(f"\n{'' if is_new else 'up to date: '}{judged.summary}", style="bold", markup=False)
    console.print(where, markup=False, soft_wrap=True)


TARGETS = (
    Target(
        "report",
        "read results",
        "show the verdicts of the last run or of named runs",
        run,
        (
            ("cowbell report", "show the last run"),
            ("cowbell report RUN=demo-0123456789ab DIR=public", "write the reports of a run to a folder"),
        ),
        variables=("RUN", "DIR"),
        products=("report",),
        more="It needs no kernel. DIR= gets report.json, report.ktap, junit.xml, the page and the evidence.",
    ),
)
