# SPDX-License-Identifier: GPL-2.0-or-later
"""Imports runs and results of other machines into the store.

Everything is validated before anything is stored: input may be truncated, of another version, or crafted
to write outside the store. Existing results are kept, so importing twice changes nothing.
"""

import contextlib
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.history.database import VARIANT_FILE, find_variant, list_result_files, open_history
from orchestrator.history.entry import make_result_id
from orchestrator.history.join import find_killed, join, list_missing
from orchestrator.result.record import (
    JobRecord,
    RunRecord,
    TrialResult,
    load_job,
    load_result,
    load_run,
    save_result,
    save_run,
)
from orchestrator.store.store import Store

_KNOWN = {each.name for each in fields(TrialResult)}
_NEEDED = {each.name for each in fields(TrialResult) if each.default is MISSING}


@dataclass(frozen=True, slots=True)
class Merged:
    """The ids of new runs, the number of new results, and the number of known ones.

    ``merged`` is the id of the joined run, empty if there is none. ``missing`` are the planned kernels
    (ROW/VARIANT) without results for all tests.
    """

    runs: tuple[str, ...]
    results: int
    known: int
    merged: str = ""
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """The content of one or more folders: runs, results by file, records of variants by folder.

    ``named`` are the runs to join. Each run comes with its folder.
    """

    runs: dict[str, tuple[RunRecord, Path]] = field(default_factory=dict)
    results: dict[Path, TrialResult] = field(default_factory=dict)
    named: dict[str, tuple[RunRecord, Path]] = field(default_factory=dict)
    variants: dict[Path, JobRecord] = field(default_factory=dict)
    errors: list[UsageError] = field(default_factory=list)

    def refuse(self, path: Path, what: str, hint: str = "") -> None:
        self.errors.append(UsageError(what, where=str(path), hint=hint))


def merge(
    store: Store,
    folders: Sequence[Path],
    note: Callable[[str], None],
    planned: Sequence[JobRecord] = (),
    *,
    is_dry_run: bool = False,
) -> Merged:
    """Import folders of stores and runs. Raises ``UsageError`` for all errors, and then imports nothing.

    With ``planned``, everything is joined into one run of the plan, and results without files are missing.
    """
    if not folders:
        raise UsageError("takes folders of stores or runs", where="merge")
    # what is new is only known while nobody else imports
    with contextlib.nullcontext() if is_dry_run else store.lock("merge"):
        return _merge(store, folders, note, planned, is_dry_run=is_dry_run)


def _merge(
    store: Store,
    folders: Sequence[Path],
    note: Callable[[str], None],
    planned: Sequence[JobRecord],
    *,
    is_dry_run: bool,
) -> Merged:
    found = _Found()
    for folder in folders:
        if planned and not folder.exists():
            note(f"{folder}: there is no such folder; its results are missing")
            continue
        for place in _list_stores(folder):
            _examine(place, found)
    for run_id, (run, folder) in found.runs.items():
        here = store.results_root / "runs" / run_id / "record.json"
        if here.exists() and load_run(here).jobs != run.jobs:
            found.refuse(folder / "record.json", f"differs from the run {run_id} in this store")
    if planned:
        found.named.update(found.runs)
        found.named.update(find_killed(found.named, found.results, found.variants, planned))
    missing = list_missing([run for run, _ in found.named.values()], planned)
    one = join(found.named, planned, found.refuse) if planned or len(found.named) > 1 else None
    raise_all(found.errors)
    with open_history(store, note) as db:
        known = {result_id for (result_id,) in db.execute("SELECT DISTINCT result_id FROM entries")}
    ids = {make_result_id(result) for result in found.results.values()}
    for run, _ in found.runs.values():
        ids |= {make_result_id(result) for job in run.jobs for result in job.results}
    new = [name for name in found.runs if not (store.results_root / "runs" / name / "record.json").exists()]
    merged = Merged(tuple(new), len(ids - known), len(ids & known), one.run_id if one else "", missing)
    if is_dry_run:
        return merged
    with store.scratch("merge", is_result=True) as draft:
        for name in new:
            shutil.copytree(found.runs[name][1], draft / "runs" / name)
        if one and not (store.results_root / "runs" / one.run_id / "record.json").exists():
            save_run(one, draft / "runs" / one.run_id)
            for _, folder in found.named.values() if planned else ():
                if (folder / "evidence").is_dir():
                    place = draft / "runs" / one.run_id / "evidence"
                    shutil.copytree(folder / "evidence", place, dirs_exist_ok=True)
        _copy_results(found, store, draft)
        _move_in(draft, store.results_root)
    with open_history(store, note):
        return merged


def _examine(folder: Path, found: _Found) -> None:
    """Read the runs and results of a folder and collect all errors."""
    try:
        root = folder.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        # RuntimeError: links that lead in a circle
        found.refuse(folder, f"cannot be read: {getattr(error, 'strerror', error)}")
        return
    is_run = (root / "record.json").is_file()
    parts = [root] if is_run else [root / name for name in ("runs", "results") if (root / name).is_dir()]
    if not parts:
        found.refuse(
            folder, "is neither a store nor a run", "a store has runs/ and results/, a run record.json"
        )
    before = len(found.errors)
    for part in parts:
        _check_files(part, root, found)
    # do not follow links out of the folder
    if len(found.errors) > before:
        return
    records = [root / "record.json"] if is_run else sorted(root.glob("runs/[!.]*/record.json"))
    for path in records:
        if path.parent != root / "runs" / "latest":
            _examine_run(path, found, is_named=is_run)
    if not is_run:
        for path in list_result_files(root / "results"):
            _examine_result(path, found)
        for path in sorted(root.glob(f"results/*/{VARIANT_FILE}")):
            if job := load_job(path):
                found.variants[path.parent] = job
            else:
                found.refuse(path, "is not the record of a variant, or is truncated")


def _check_files(part: Path, root: Path, found: _Found) -> None:
    for place, folders, files in os.walk(part, onerror=lambda error: found.refuse(part, str(error))):
        for path in (Path(place, name) for name in (*folders, *files)):
            mode = path.lstat().st_mode
            if path == root / "runs" / "latest":
                continue
            if stat.S_ISLNK(mode):
                is_out = not path.resolve().is_relative_to(root)
                found.refuse(path, f"is a symbolic link{' that leads out of the folder' if is_out else ''}")
            elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
                found.refuse(path, "is neither a file nor a folder")


def _examine_run(path: Path, found: _Found, *, is_named: bool) -> None:
    try:
        run = load_run(path)
    except UsageError as error:
        found.errors.append(error)
        return
    other = found.runs.get(run.run_id)
    if run.run_id == "latest":
        found.refuse(path, "has an invalid run id: latest is the last run")
    elif other and other[0].jobs != run.jobs:
        found.refuse(path, f"differs from the run {run.run_id} in {other[1]}")
    else:
        found.runs[run.run_id] = (run, path.parent)
        if is_named:
            found.named[run.run_id] = (run, path.parent)


def _examine_result(path: Path, found: _Found) -> None:
    result = load_result(path)
    if not result:
        # ignore results of other versions
        try:
            has = json.loads(path.read_bytes()).keys()
        except (OSError, ValueError, AttributeError, RecursionError):
            has = _NEEDED
        if "test" not in has or _NEEDED <= has <= _KNOWN:
            found.refuse(path, "is not a test result, or is truncated")
    elif not str(path.relative_to(find_variant(path))).startswith(f"{result.test}.{result.content_id[:12]}."):
        found.refuse(
            path, f"is a result of {result.test}, program {result.content_id}, but has another file name"
        )
    else:
        found.results[path] = result


def _list_stores(folder: Path) -> list[Path]:
    """The folder, or the stores and runs in it if it is neither."""
    parts = ("runs", "results", "record.json")
    inner = [path for path in sorted(folder.glob("*")) if any((path / part).exists() for part in parts)]
    return [folder] if any((folder / part).exists() for part in parts) else inner or [folder]


def _copy_results(found: _Found, store: Store, draft: Path) -> None:
    """Copy each result, under another name if its own is taken, and the files of its boot."""
    for path, result in found.results.items():
        variant = find_variant(path)
        name = Path("results", variant.name, path.relative_to(variant))
        result_id = make_result_id(result)
        beside = name.with_name(f"{result.test.rpartition('/')[2]}.{result.content_id[:12]}.{result_id}.json")
        there = [load_result(root / each) for root in (store.results_root, draft) for each in (name, beside)]
        if result_id in {make_result_id(known) for known in there if known}:
            continue
        boot = _copy_boot(variant / result.boot, store, draft)
        is_taken = (store.results_root / name).exists() or (draft / name).exists()
        place = draft / (beside if is_taken else name)
        save_result(replace(result, boot=boot), place)
        # the file time is used for results without a start time
        shutil.copystat(path, place)
        is_known = (store.results_root / "results" / variant.name / VARIANT_FILE).exists()
        if (variant / VARIANT_FILE).exists() and not is_known:
            shutil.copy2(variant / VARIANT_FILE, draft / "results" / variant.name / VARIANT_FILE)


def _copy_boot(boot: Path, store: Store, draft: Path) -> str:
    """Copy the files of a boot without keys and images; returns its name, which is unique across machines."""
    if not (boot / "console.log").is_file():
        return boot.name
    with (boot / "console.log").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    name = boot.name if boot.name.startswith("merged-") else f"merged-{digest[:12]}"
    place = Path("results", boot.parent.name, name)
    if not (store.results_root / place).exists() and not (draft / place).exists():
        shutil.copytree(boot, draft / place, ignore=shutil.ignore_patterns("keys.tar", "*.qcow2"))
    return name


def _move_in(draft: Path, root: Path) -> None:
    """Move everything by rename. A result is moved after its boot, a run after its results."""
    boots = [path for path in draft.glob("results/*/merged-*") if path.is_dir()]
    files = list_result_files(draft / "results") + list(draft.glob(f"results/*/{VARIANT_FILE}"))
    for path in [*boots, *files, *draft.glob("runs/*")]:
        place = root / path.relative_to(draft)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.rename(place)


def render(merged: Merged) -> str:
    lines = [
        *merged.runs,
        f"{len(merged.runs)} runs and {merged.results} results are new, {merged.known} were known",
    ]
    lines += [f"missing or incomplete: {name}" for name in merged.missing]
    lines += [f"joined run: {merged.merged}"] if merged.merged else []
    return "\n".join(lines) + "\n"
