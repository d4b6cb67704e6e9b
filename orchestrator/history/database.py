# SPDX-License-Identifier: GPL-2.0-or-later
"""The history: every result of every test, in one SQLite database of the store.

Results are added when they are recorded. The JSON files of results and runs are authoritative: entries that
are missing here, after a kill or because there was no database yet, are read from them. An entry is a subtest
of a result; a result is added once, by the run that produced it.
"""

import contextlib
import datetime
import os
import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from orchestrator.errors import CowbellError, InfraError, UsageError, raise_all
from orchestrator.history.entry import Entry, is_kernel, list_missing, make_entries, make_result_id
from orchestrator.process.progress import Progress
from orchestrator.project.guesttest import is_match
from orchestrator.project.yamlfile import suggest
from orchestrator.result.record import JobRecord, RunRecord, TrialResult, load_job, load_result, load_run
from orchestrator.status import Status
from orchestrator.store.store import Store

FILE = "history.sqlite"
VARIANT_FILE = "variant.json"
_BUSY_S = 60.0
# migration from each schema version to the next; a released step is never changed
_STEPS = (
    """
    CREATE TABLE entries (
        result_id TEXT NOT NULL, name TEXT NOT NULL, "test" TEXT NOT NULL,
        row TEXT NOT NULL, variant TEXT NOT NULL, tree TEXT NOT NULL, series TEXT NOT NULL,
        kernel TEXT NOT NULL, "commit" TEXT NOT NULL, build_id TEXT NOT NULL, config_id TEXT NOT NULL,
        rootfs_id TEXT NOT NULL, program_id TEXT NOT NULL, arch TEXT NOT NULL, accel TEXT NOT NULL,
        boot TEXT NOT NULL, started TEXT NOT NULL, duration_s REAL NOT NULL, trial INTEGER NOT NULL,
        raw TEXT NOT NULL, expected TEXT NOT NULL, reason TEXT NOT NULL, hits INTEGER, tries INTEGER,
        fingerprint TEXT NOT NULL, folder TEXT NOT NULL, console TEXT NOT NULL, console_at INTEGER,
        host TEXT NOT NULL,
        PRIMARY KEY (result_id, name)
    );
    CREATE TABLE files (path TEXT PRIMARY KEY, stamp TEXT NOT NULL);
    """,
)
# folders of a variant that contain no results
_TRACES = ("boot-", "merged-", "saved-")
_UNKNOWN_JOB = JobRecord(row="", variant="", arch="", tree="", series="", tests={})
# stores whose error was already reported by this process
_reported: set[Path] = set()


_COLUMNS = tuple(field.name for field in fields(Entry))
_NAMES = ", ".join(f'"{name}"' for name in _COLUMNS)


def add_result(store: Store, job: JobRecord, result: TrialResult, folder: Path, progress: Progress) -> None:
    """Add a result that is saved in ``folder``. If that fails, note it; the result is added later."""
    try:
        entries = make_entries(job, result, str(folder.relative_to(store.results_root)))
        with _connect(store) as db:
            _insert(db, entries)
    except (sqlite3.Error, OSError, CowbellError) as error:
        if store.results_root not in _reported:
            _reported.add(store.results_root)
            where = store.results_root / FILE
            progress.note(f"{where}: {error}; no result is lost: cowbell history reads the saved results")


@contextlib.contextmanager
def open_history(store: Store, note: Callable[[str], None]) -> Iterator[sqlite3.Connection]:
    """The history, updated from the results and runs of the store.

    A damaged file is moved away and made again; if nothing can be written, it is made in memory. Raises
    ``UsageError`` if a newer cowbell wrote it.
    """
    with contextlib.ExitStack() as stack:
        try:
            db = stack.enter_context(_connect(store))
            _check(db)
            catch_up(db, store)
        except (sqlite3.Error, InfraError) as error:
            stack.close()
            where = store.results_root / FILE
            if _is_damage(error) and _set_aside(store):
                note(f"{where}: {error}; moved to {FILE}.damaged, and made again from results and runs")
                db = stack.enter_context(_connect(store))
            else:
                note(f"{where}: {error}; read from results and runs instead, not saved")
                db = stack.enter_context(
                    contextlib.closing(sqlite3.connect(":memory:", isolation_level=None))
                )
                _migrate(db)
            catch_up(db, store)
        yield db


def _is_damage(error: Exception) -> bool:
    return isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError)


@contextlib.contextmanager
def _connect(store: Store) -> Iterator[sqlite3.Connection]:
    """The database file, migrated to this schema; closed at the end of the block."""
    path = store.path(FILE)
    with contextlib.ExitStack() as stack:
        # SQLite does not wait while another process changes the journal mode
        with store.lock("history"):
            db = stack.enter_context(
                contextlib.closing(sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None))
            )
            (version,) = db.execute("PRAGMA user_version").fetchone()
            if version > len(_STEPS):
                raise UsageError(
                    f"has schema {version}, this version of cowbell reads up to {len(_STEPS)}",
                    where=str(path),
                    hint="a newer cowbell wrote it: use that version, or move the file away to make it again",
                )
            if version < len(_STEPS):
                db.execute("PRAGMA journal_mode = WAL")
                _migrate(db)
        db.execute("PRAGMA synchronous = FULL")
        yield db


def _migrate(db: sqlite3.Connection) -> None:
    (version,) = db.execute("PRAGMA user_version").fetchone()
    for number, step in enumerate(_STEPS[version:], version + 1):
        db.executescript(f"BEGIN IMMEDIATE; {step}; PRAGMA user_version = {number}; COMMIT;")


def _check(db: sqlite3.Connection) -> None:
    """Raises ``sqlite3.DatabaseError`` if the file is damaged."""
    (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _set_aside(store: Store) -> bool:
    """Move a damaged file away; returns whether it is gone, perhaps moved by another process."""
    path = store.path(FILE)
    with contextlib.suppress(sqlite3.Error), _connect(store) as db:
        _check(db)
        return True
    try:
        with store.lock("history"):
            path.replace(path.with_name(f"{FILE}.damaged"))
            for suffix in ("-wal", "-shm"):
                path.with_name(FILE + suffix).unlink(missing_ok=True)
    except (OSError, InfraError):
        return False
    return True


def _insert(db: sqlite3.Connection, entries: Iterable[Entry], files: Iterable[tuple[str, str]] = ()) -> None:
    """One short transaction. A known result is not added again, even if its verdict would differ today."""
    by_result: dict[str, list[Entry]] = {}
    for entry in entries:
        by_result.setdefault(entry.result_id, []).append(entry)
    db.execute("BEGIN IMMEDIATE")
    try:
        for result_id, found in by_result.items():
            if not db.execute("SELECT 1 FROM entries WHERE result_id = ?", (result_id,)).fetchone():
                marks = ", ".join("?" * len(_COLUMNS))
                db.executemany(
                    f"INSERT OR IGNORE INTO entries ({_NAMES}) VALUES ({marks})",
                    [tuple(asdict(entry).values()) for entry in found],
                )
        db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", files)
    except BaseException:
        db.rollback()
        raise
    db.commit()


def catch_up(db: sqlite3.Connection, store: Store) -> None:
    """Add the missing runs and results of the store; a file is read again only if it changed."""
    read = set(db.execute("SELECT path, stamp FROM files"))
    known = {result_id for (result_id,) in db.execute("SELECT DISTINCT result_id FROM entries")}
    runs = _stamp_new(sorted(store.results_root.glob("runs/[!.]*/record.json")), store, read)
    files = _stamp_new(list_result_files(store.results_root / "results"), store, read)
    found = {make_result_id(result): path for path in files if (result := load_result(path))}
    loose = {result_id: path for result_id, path in found.items() if result_id not in known}
    jobs: dict[Path, JobRecord] = {}
    for run, path in sorted(_load_runs(runs), key=lambda item: item[0].started):
        entries: list[Entry] = []
        for job, result in ((its, result) for its in run.jobs for result in its.results):
            result_id = make_result_id(result)
            place = loose.pop(result_id, None)
            if place:
                jobs[find_variant(place)] = job
            if result_id not in known:
                known.add(result_id)
                entries += _make_stored(store, job, result, place, run.started)
        # a failed job has no results, but counts
        entries += [entry for job in run.jobs if job.failure for entry in list_missing(run, job)]
        _insert(db, entries, [(_name(path, store), runs[path])])
    # results without a run, which was killed
    for path in loose.values():
        if result := load_result(path):
            job = load_job(find_variant(path) / VARIANT_FILE) or jobs.get(find_variant(path), _UNKNOWN_JOB)
            when = datetime.datetime.fromtimestamp(path.stat().st_mtime, datetime.UTC)
            _insert(db, _make_stored(store, job, result, path, when.isoformat(timespec="milliseconds")))
    _insert(db, (), [(_name(path, store), stamp) for path, stamp in files.items()])


def _make_stored(
    store: Store, job: JobRecord, result: TrialResult, path: Path | None, started: str
) -> list[Entry]:
    """Entries of a result that is also a file, whose boot may have another name."""
    if stored := load_result(path) if path else None:
        result = replace(result, boot=stored.boot)
    return make_entries(job, result, _name(find_variant(path), store) if path else "", started)


def _stamp_new(paths: Iterable[Path], store: Store, read: Collection[tuple[str, str]]) -> dict[Path, str]:
    """The files that are new or have changed, with time stamp and size."""
    stamps: dict[Path, str] = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            stamp = f"{status.st_mtime_ns}-{status.st_size}"
            if (_name(path, store), stamp) not in read:
                stamps[path] = stamp
    return stamps


def _name(path: Path, store: Store) -> str:
    return str(path.relative_to(store.results_root))


def _load_runs(paths: Iterable[Path]) -> Iterator[tuple[RunRecord, Path]]:
    """The runs that this version can read; others may be of another version."""
    for path in paths:
        with contextlib.suppress(UsageError):
            yield load_run(path), path


def list_result_files(results: Path) -> list[Path]:
    """The result files below the store's ``results/``, without the files of boots."""
    found: list[Path] = []
    for place, folders, files in os.walk(results):
        depth = len(Path(place).relative_to(results).parts)
        folders[:] = [name for name in folders if depth != 1 or not name.startswith(_TRACES)]
        names = (name for name in files if name.endswith(".json") and name != VARIANT_FILE)
        found += [Path(place, name) for name in names if depth and not name.startswith(".")]
    return sorted(found)


def find_variant(path: Path) -> Path:
    """The folder below ``results/`` that contains a result file."""
    return next(parent for parent in path.parents if parent.parent.name == "results")


def find_entries(db: sqlite3.Connection) -> list[Entry]:
    """All entries, newest last."""
    listed = db.execute(f"SELECT {_NAMES} FROM entries ORDER BY started, rowid")
    entries = (Entry(**dict(zip(_COLUMNS, values, strict=True))) for values in listed)
    return [replace(entry, raw=Status(entry.raw), expected=Status(entry.expected)) for entry in entries]


def choose_entries(
    db: sqlite3.Connection, tests: Sequence[str], rows: Sequence[str], kernel: str
) -> list[Entry]:
    """The entries of tests, rows and a kernel (a version, its prefix, or a tree), newest last.

    ``tests`` are ids or globs of tests or subtests; empty selects all. Raises ``UsageError`` for each name
    without results.
    """
    entries = find_entries(db)

    def is_test(entry: Entry, glob: str) -> bool:
        return is_match(glob, entry.test) or is_match(glob, entry.name)

    wrong = [
        *(("history", word, "test") for word in tests if not any(is_test(entry, word) for entry in entries)),
        *(("ROW", word, "row") for word in rows if word not in {entry.row for entry in entries}),
    ]
    if kernel and not any(is_kernel(entry, kernel) for entry in entries):
        wrong.append(("KERNEL", kernel, "kernel"))
    known = {kind: {str(getattr(entry, kind)) for entry in entries} for kind in ("test", "row", "kernel")}
    raise_all(
        [
            UsageError(f"there is no result of {kind} {word}{suggest(word, known[kind])}", where=where)
            for where, word, kind in wrong
        ]
    )
    return [
        entry
        for entry in entries
        if (not rows or entry.row in rows)
        and (not kernel or is_kernel(entry, kernel))
        and (not tests or any(is_test(entry, glob) for glob in tests))
    ]
