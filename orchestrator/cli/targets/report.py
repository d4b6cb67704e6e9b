# SPDX-License-Identifier: GPL-2.0-or-later
"""report: the verdicts of stored runs, as tables, JSON, KTAP, JUnit and a page."""

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
            ("cowbell report RUN=demo-0123456789ab DIR=public", "write the reports of a run to a folder"),
        ),
        variables=("RUN", "DIR"),
        extra_options=("--failed",),
        products=("report",),
        more="It needs no kernel. DIR= gets report.json, report.ktap, junit.xml, the page, files/ and "
        "evidence/.",
    ),
)
