# SPDX-License-Identifier: GPL-2.0-or-later
"""Patches that Cowbell generates for a source, and puts after the series of a job."""

from dataclasses import replace
from pathlib import Path

from orchestrator.plan.plan import Job
from orchestrator.source.patch import export_commit
from orchestrator.source.repository import Source, git, open_repository
from orchestrator.source.series import Patch
from orchestrator.store.store import Store


def add_patch(job: Job, name: str, patch: Patch) -> Job:
    """The job with a patch after its series; ``name`` is added to those of its series and variant."""
    series = job.series
    return replace(
        job,
        variant=replace(job.variant, name=f"{job.variant.name}+{name}"),
        series=replace(
            series,
            name=f"{series.name}+{name}".lstrip("+"),
            patches=(*series.patches, patch),
            is_generated=True,
        ),
    )


def export_files_as_patch(source: Source, tree: Path, subject: str, folder: Path, store: Store) -> Path:
    """Write the patch that puts all files below ``tree`` into the source; the patch's path."""
    repository = open_repository(store)
    with store.scratch("index") as place:
        env = {"GIT_INDEX_FILE": str(place / "index")}
        git(repository, "read-tree", source.commit, env=env)
        git(repository, f"--work-tree={tree}", "add", "-A", "--ignore-removal", ".", env=env)
        made = git(repository, "write-tree", env=env).output
    commit = git(repository, "commit-tree", "-p", source.commit, "-m", subject, made).output
    export_commit(repository, commit, folder, 1)
    return next(folder.glob("0001-*"))
