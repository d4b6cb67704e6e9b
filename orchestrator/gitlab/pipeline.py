# SPDX-License-Identifier: GPL-2.0-or-later
"""Renders the GitLab pipeline of the target ``ci``."""

import datetime
import os
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.gitlab.child import Setup, make_pipeline, render
from orchestrator.gitlab.shards import find_times
from orchestrator.gitlab.touched import choose_touched
from orchestrator.history.database import find_entries, open_history
from orchestrator.plan.plan import Declarations, Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.project.guesttest import SELFTEST
from orchestrator.project.root import IS_CHECKOUT, SHIPPED
from orchestrator.project.yamlfile import time_s

# variables of the request that are passed to the jobs
_FORWARDED = (
    "KERNEL", "SERIES", "DIRTY", "ARCH", "CONFIG", "CONFIG+", "CC", "LLVM", "TESTS", "REPEAT", "ACCEL",
    "BOOT", "DEBUG", "VMCORE",
)  # fmt: skip
_DEFAULTS = {"REPEAT": "1", "ACCEL": "auto", "BOOT": "qemu"}
_STORE = ".cowbell"


def make_text(
    request: Request,
    values: Mapping[str, str],
    options: tuple[str, ...],
    declared: Declarations,
    place: Workspace,
) -> str:
    """The pipeline of the request's rows. Nothing is fetched.

    ``declared`` includes the tree and series of the request, ``values`` are those of all variables, and
    ``options`` are passed to every command. Raises ``UsageError`` for each invalid value.
    """
    jobs = make_plan(request, declared)
    selftests = {test.id for job in jobs for test in job.tests if test.language == SELFTEST}
    raise_all(
        [
            UsageError(f"{test} is built from the kernel source, which test jobs do not have", where="ci")
            for test in sorted(selftests)
        ]
    )
    why = f"{len({job.row.name for job in jobs})} row(s)"
    if values["SINCE"]:
        jobs, why = choose_touched(jobs, declared, request, place.root, values["SINCE"])
        place.progress.note(why)
    with open_history(place.store, place.progress.note) as db:
        times = find_times(find_entries(db))
    words = {name: values[name] for name in _FORWARDED if values[name] != _DEFAULTS.get(name, "")}
    setup = Setup(
        # all jobs mean the same kernels
        words=words | ({"DEBUG": "1"} if request.debug else {}),
        options=options,
        image=values["IMAGE"],
        before=values["SETUP"],
        tags=tuple(values["TAGS"].replace(",", " ").split()),
        store=_find_store(),
        shard_s=time_s(values["SHARD"]),
        needs_checkout=IS_CHECKOUT or place.root != SHIPPED or bool(values["SETUP"]),
    )
    today = datetime.datetime.now(datetime.UTC).date()
    return render(make_pipeline(jobs, setup, times, today), f"Made by cowbell ci. {why}")


def _find_store() -> str:
    """The store of the jobs: ``$COWBELL_STORE`` if it is shared, or a folder in the project."""
    chosen, project = os.environ.get("COWBELL_STORE", ""), os.environ.get("CI_PROJECT_DIR", "")
    if project and Path(chosen).is_relative_to(project):
        return str(Path(chosen).relative_to(project))
    return chosen if chosen.startswith("/") else _STORE
