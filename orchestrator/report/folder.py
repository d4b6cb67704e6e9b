# SPDX-License-Identifier: GPL-2.0-or-later
"""The folder of a run in the store: selects runs, and writes reports beside their record."""

import contextlib
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.history.database import find_entries, open_history
from orchestrator.project.yamlfile import suggest
from orchestrator.report.bundle import make_bundles, write_files
from orchestrator.report.junit import render_junit
from orchestrator.report.page import LINKED, render_html
from orchestrator.report.report import Judged, join_runs, list_parts, render_json, render_ktap
from orchestrator.result.record import load_run
from orchestrator.store.store import Store, make_folder, write_atomic

PAGE = "report.html"
FILES = ("report.json", "report.ktap", "junit.xml", PAGE)


def choose_runs(store: Store, names: str) -> list[str]:
    """The run ids of ``RUN=a,b``, or the latest run; raises ``UsageError`` for each unknown id."""
    runs = store.path("runs")
    if not names:
        latest = runs / "latest"
        if not latest.exists():
            raise UsageError("there is no run yet", where=str(runs), hint="start one with cowbell test")
        return [latest.resolve().name]
    chosen = list(dict.fromkeys(filter(None, names.split(","))))
    known = [path.parent.name for path in runs.glob("*/record.json")]
    raise_all(
        [
            UsageError(f"there is no run {run_id}{suggest(run_id, known)}", where=str(runs))
            for run_id in chosen
            if run_id not in known
        ]
    )
    return chosen


def judge_runs(store: Store, run_ids: Sequence[str]) -> Judged:
    runs = store.path("runs")
    return join_runs([load_run(runs / run_id / "record.json") for run_id in run_ids])


def write_reports(judged: Judged, store: Store, note: Callable[[str], None], *, is_new: bool) -> None:
    """Write the missing ``FILES``, or all of them for a new run, and update ``latest``."""

    renders: dict[str, Callable[[Judged], str]] = {
        "report.json": render_json,
        "report.ktap": render_ktap,
        "junit.xml": render_junit,
        PAGE: lambda judged: render_page(judged, store, note),
    }
    folder = store.path("runs") / judged.run.run_id
    for name in FILES:
        if is_new or not (folder / name).exists():
            write_atomic(folder / name, renders[name](judged))
    for run in judged.parts:
        # the page finds the same paths here and in a folder to which it is copied
        if not (folder / run.run_id).exists():
            (folder / run.run_id).symlink_to(f"../{run.run_id}")
    if not judged.parts:
        point_latest(store, judged.run.run_id)


def render_page(judged: Judged, store: Store, note: Callable[[str], None]) -> str:
    """The page; writes the files to which it links."""
    linked: set[str] = set()
    for run, prefix in list_parts(judged):
        place = store.path("runs") / run.run_id / LINKED
        write_files(run, store, place)
        linked |= {f"{prefix}{LINKED}/{path.name}" for path in place.glob("*")}
    with open_history(store, note) as db:
        return render_html(judged, find_entries(db), linked)


def point_latest(store: Store, run_id: str) -> None:
    """Make a run the latest one, the default of ``RUN=``."""
    with contextlib.suppress(FileExistsError):
        draft = store.path("runs", f".latest-{os.getpid()}")
        draft.symlink_to(run_id)
        draft.replace(draft.with_name("latest"))


def publish(judged: Judged, store: Store, target: Path) -> list[str]:
    """Copy the reports and the evidence to a folder for a web server, with the page as ``index.html``.

    Returns the names of its files.
    """
    make_folder(target)
    folder = store.path("runs") / judged.run.run_id
    for name in FILES:
        write_atomic(target / ("index.html" if name == PAGE else name), (folder / name).read_bytes())
    for run, prefix in list_parts(judged):
        for name in ("evidence", LINKED):
            source = store.path("runs") / run.run_id / name
            if source.is_dir():
                shutil.copytree(source, target / prefix / name, dirs_exist_ok=True)
    return sorted(path.name for path in target.iterdir())


def write_bundles(judged: Judged, store: Store) -> None:
    """Write the evidence bundles of failing trials beside the record of their run."""
    for run in judged.parts or (judged.run,):
        make_bundles(run, store, store.path("runs") / run.run_id / "evidence")
