# SPDX-License-Identifier: GPL-2.0-or-later
"""Deletes the least recently used artifacts until the store is below a size.

Only artifacts that can be made again are deleted: worktrees, objects, kernels, root images, compiled tests,
series from mail archives, the memory of guests (``VMCORE=1``) and traces (``TRACE=``). Commits, results,
records of runs and the history are kept. Artifacts of running jobs are locked and skipped. Remains of killed
processes are removed in any case, and boots whose console no result and no run refers to.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.store.store import SOURCE, TREES, Store, name_use, try_unowned

# series from a mail archive
THREADS = "threads"
# the memory of guests, among their results
CORES = "cores"
# the traces of tests, among their results and beside the pages that link to them
TRACES = "traces"
KINDS = (
    "configs",
    "headers",
    "images",
    "kernels",
    "modules",
    "programs",
    "rootfs",
    "toolboxes",
    THREADS,
    TREES,
    CORES,
    TRACES,
)
# like make clean: artifacts that only make the next build faster
CLEANED = ("programs", TREES)


@dataclass(frozen=True, slots=True)
class StoreEntry:
    """A deletable artifact. ``lock`` is held by processes that use it, ``used_at`` is Unix time."""

    path: Path
    lock: str
    used_at: float
    size: int


@dataclass(frozen=True, slots=True)
class Collection:
    """The artifacts that were (or would be) removed, and the store's size in bytes before and after.

    ``in_use`` are artifacts that were skipped because a job uses them.
    """

    removed: tuple[StoreEntry, ...]
    in_use: tuple[StoreEntry, ...]
    before: int
    after: int


def collect(
    store: Store, limit: int, kinds: Sequence[str] = KINDS, *, is_dry_run: bool = False
) -> Collection:
    """Delete the least recently used artifacts until the store has at most ``limit`` bytes."""
    entries = sorted(_list_entries(store, kinds), key=lambda entry: entry.used_at)
    before = measure(store.root)
    before += sum(entry.size for entry in entries if not entry.path.is_relative_to(store.root))
    removed = [*_remove_remains(store, is_dry_run=is_dry_run), *_remove_boots(store, is_dry_run=is_dry_run)]
    after = before - sum(entry.size for entry in removed)
    in_use: list[StoreEntry] = []
    for entry in entries:
        if after <= limit:
            break
        with store.try_lock(entry.lock) as is_free:
            if not is_free:
                in_use.append(entry)
                continue
            if not is_dry_run and entry.path.is_file():
                entry.path.unlink()
            elif not is_dry_run:
                # rename first, so that a kill leaves no incomplete artifact
                gone = entry.path.rename(entry.path.with_name(f".{entry.path.name}.gone"))
                shutil.rmtree(gone, ignore_errors=True)
        removed.append(entry)
        after -= entry.size
    return Collection(tuple(removed), tuple(in_use), before, after)


def _remove_remains(store: Store, *, is_dry_run: bool) -> Iterator[StoreEntry]:
    """The scratch folders and drafts of killed processes; others are locked."""
    for path in [*store.root.glob("scratch/*"), *store.results_root.glob("scratch/*")]:
        yield from _remove_unlocked(store, path, f"scratch-{path.name}", is_dry_run=is_dry_run)
    for path in [*store.root.glob("*/.*"), *store.root.glob(f"{TREES}/*/.*")]:
        name, _, ending = path.name[1:].rpartition(".")
        if name and path.is_dir() and path.parent.name not in ("edit", "runs", "results"):
            lock = "gc" if ending == "gone" else f"{path.parent.name}-{name}"
            yield from _remove_unlocked(store, path, lock, is_dry_run=is_dry_run)


def _remove_unlocked(store: Store, path: Path, lock: str, *, is_dry_run: bool) -> Iterator[StoreEntry]:
    with store.try_lock(lock) as is_free:
        if is_free and path.is_dir():
            yield _remove(path, is_dry_run=is_dry_run)


def _remove_boots(store: Store, *, is_dry_run: bool) -> Iterator[StoreEntry]:
    """The files of boots that no process owns and to which neither a result nor a run refers."""
    logs = {
        (name, boot)
        for record in store.results_root.glob("runs/*/record.json")
        for name, boot in re.findall(rb"/results/([^/\"]+)/([^/\"]+)/", record.read_bytes())
    }
    for folder in [*store.results_root.glob("results/*"), *store.root.glob("coverage/*")]:
        results = [path for path in folder.rglob("*.json") if not _is_boot(path.relative_to(folder).parts[0])]
        named = {boot for path in results for boot in re.findall(rb'"boot": "([^"]+)"', path.read_bytes())}
        for place in filter(lambda place: _is_boot(place.name), folder.glob("*")):
            boot = place.name.encode()
            if boot in named or (folder.name.encode(), boot) in logs:
                continue
            with try_unowned(place) as is_free:
                if is_free:
                    yield _remove(place, is_dry_run=is_dry_run)


def _is_boot(name: str) -> bool:
    return name.startswith(("boot-", "merged-", "saved-"))


def _remove(path: Path, *, is_dry_run: bool) -> StoreEntry:
    entry = StoreEntry(path, "", path.stat().st_mtime, measure(path))
    if not is_dry_run:
        shutil.rmtree(path, ignore_errors=True)
    return entry


def _list_entries(store: Store, kinds: Sequence[str]) -> Iterator[StoreEntry]:
    for path, lock in _list_files(store, kinds):
        status = path.stat()
        yield StoreEntry(path, lock, status.st_mtime, status.st_blocks * 512)
    for kind in (kind for kind in kinds if kind not in (CORES, TRACES, THREADS, TREES)):
        for path in _list_folders(store.root / kind):
            yield _make_entry(store, path, name_use(kind, path.name))
    for tree in _list_folders(store.root / TREES) if TREES in kinds else []:
        for path in _list_folders(tree):
            is_source = path.name == SOURCE
            lock = f"worktree-{tree.name}" if is_source else name_use(f"{TREES}/{tree.name}", path.name)
            yield _make_entry(store, path, lock)


def _list_files(store: Store, kinds: Sequence[str]) -> Iterator[tuple[Path, str]]:
    """The entries that are files, each with its lock."""
    for kind, pattern in ((CORES, "vmcore"), (TRACES, "*.trace")):
        if kind in kinds:
            for path in store.path("results").glob(f"*/boot-*/{pattern}"):
                yield path, f"results-{path.parent.parent.name}"
    if TRACES in kinds:
        for path in store.path("runs").glob("*/files/*.trace.txt"):
            yield path, f"runs-{path.parent.parent.name}"
    if THREADS in kinds:
        for path in store.path(THREADS).glob("*.mbox"):
            yield path, f"thread-{path.stem}"


def _list_folders(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.is_dir() and not path.name.startswith(".")]


def _make_entry(store: Store, path: Path, lock: str) -> StoreEntry:
    used = store.path("locks", lock)
    when = used if used.exists() else path
    return StoreEntry(path, lock, when.stat().st_mtime, measure(path))


def measure(folder: Path) -> int:
    """Disk usage below a folder in bytes; files that disappear meanwhile are ignored."""
    total = 0
    pending = [str(folder)]
    while pending:
        try:
            with os.scandir(pending.pop()) as found:
                for item in found:
                    total += item.stat(follow_symlinks=False).st_blocks * 512
                    if item.is_dir(follow_symlinks=False):
                        pending.append(item.path)
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total


def render_text(collection: Collection) -> str:
    large = [entry for entry in collection.removed if entry.size >> 20]
    lines = [f"{entry.size >> 20:6} MiB  {entry.path}" for entry in large]
    if small := len(collection.removed) - len(large):
        lines.append(f"            and {small} smaller than 1 MiB")
    lines += [f"    in use  {entry.path}" for entry in collection.in_use]
    return "\n".join([*lines, f"{collection.before >> 20} MiB -> {collection.after >> 20} MiB"]) + "\n"
