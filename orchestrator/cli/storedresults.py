# SPDX-License-Identifier: GPL-2.0-or-later
"""Stored results that targets refer to: which tests failed and passed where, and at which rate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from orchestrator.cli.call import Call

if TYPE_CHECKING:
    from orchestrator.history.coverage import Observation
    from orchestrator.plan.plan import Job
    from orchestrator.plan.workspace import Workspace
    from orchestrator.project.guesttest import GuestTest


def find_seen(tests: Sequence["GuestTest"], call: Call) -> list["Observation"]:
    """The last outcome of each subtest on each kernel of the selected rows."""
    found = _find_seen(tests, call.place)
    call.check_rows({one.row for one in found})
    return [one for one in found if not call.rows or one.row in call.rows]


def _find_seen(tests: Sequence["GuestTest"], place: "Workspace") -> list["Observation"]:
    from orchestrator.history import coverage

    runs = coverage.load_runs(place.store.path("runs"))
    return list(coverage.find_observations(runs, place.list_program_ids(tests)).values())


def know_rates(jobs: Sequence["Job"], place: "Workspace") -> "Workspace":
    """With REPEAT=auto, the rates at which the jobs' races are known to fail."""
    from orchestrator.history import coverage
    from orchestrator.result import repeat

    if place.repeat.count != repeat.AUTO:
        return place
    races = list({test.id: test for job in jobs for test in job.tests if test.kind == "race"}.values())
    rates = coverage.find_target_rates(coverage.make_proofs(races, _find_seen(races, place)))
    return replace(place, repeat=replace(place.repeat, target_rates=rates))
