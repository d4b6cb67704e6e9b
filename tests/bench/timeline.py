# SPDX-License-Identifier: GPL-2.0-or-later
"""Draws the timeline of a stored run: its builds and tests, a line for each job.

    COWBELL_STORE=... python -m tests.bench.timeline RUN > timeline.svg

A build ended when its log was written. Builds before the tests of the run by more than an hour were there.
"""

import datetime
import json
import sys

from orchestrator.report.chart import list_bars, render_timeline
from orchestrator.result.record import RunRecord, load_run
from orchestrator.store.store import Store, open_default

_BEFORE = datetime.timedelta(hours=1)


def main() -> None:
    store = open_default()
    run = load_run(store.path("runs") / sys.argv[1] / "record.json")
    print(render_timeline(list_bars(run, find_builds(run, store))), end="")


def find_builds(run: RunRecord, store: Store) -> dict[str, tuple[datetime.datetime, float]]:
    """When the builds of a run began, and their seconds, by build id."""
    starts = [
        datetime.datetime.fromisoformat(one.started) for job in run.jobs for one in job.results if one.started
    ]
    found = {}
    for build_id in {job.build_id for job in run.jobs if job.build_id}:
        path = store.path("kernels") / build_id / "build.json"
        if path.is_file() and starts:
            seconds = float(json.loads(path.read_text())["wall_s"])
            ended = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
            began = ended - datetime.timedelta(seconds=seconds)
            if seconds and began > min(starts) - _BEFORE:
                found[build_id] = began, seconds
    return found


if __name__ == "__main__":
    main()
