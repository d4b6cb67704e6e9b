# SPDX-License-Identifier: GPL-2.0-or-later
"""The history: entries survive kills, full and read-only disks, and damaged files."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier

import pytest

from orchestrator.errors import UsageError
from orchestrator.history import database
from orchestrator.history.database import (
    FILE,
    add_result,
    choose_entries,
    find_entries,
    open_history,
)
from orchestrator.history.entry import (
    Entry,
    list_outcomes,
    make_entries,
    make_result_id,
    render,
)
from orchestrator.result.record import (
    Ended,
    Failure,
    RunRecord,
    TrialResult,
    save_result,
)
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, cowbell
from tests.records import FAILED_RESULT, JOB, RESULT, STARTED, VARIANT, read_entries, store_result, store_run
from tests.samples import CONSOLE, GOOD, PAIR, PAIRED, SUBTESTS, WARNING
from tests.schema import read_product


def read_raw(store: Store) -> list[tuple[str, str]]:
    """What the file itself has, without what would be read from results."""
    db = sqlite3.connect(store.root / FILE)
    found = db.execute("SELECT result_id, name FROM entries").fetchall()
    db.close()
    return found


def test_an_entry_says_all_that_the_result_came_of(store: Store) -> None:
    store_result(store, FAILED_RESULT)
    (entry,) = read_entries(store)
    assert entry == Entry(
        result_id=make_result_id(FAILED_RESULT), name=GOOD.test, test=GOOD.test, row="demo", variant="plain",
        tree="debian-6.1", series="", kernel="6.1.176", commit="c0ffee", build_id="b", config_id="k",
        rootfs_id="r", program_id=FAILED_RESULT.content_id, arch="x86_64", accel="tcg", boot="qemu",
        started=FAILED_RESULT.started, duration_s=0.5, trial=1, raw=Status.FAIL, expected=Status.FAIL,
        reason="the read is whole", hits=None, tries=None, fingerprint="", folder=f"results/{VARIANT}",
        console=f"results/{VARIANT}/boot-1/console.log", console_at=77, host="one",
    )  # fmt: skip
    assert entry.label == "FAIL (expected)"


def test_a_splat_leaves_its_fingerprint_and_a_race_its_rate(store: Store) -> None:
    marks = CONSOLE.splitlines(keepends=True)
    store_result(store, replace(RESULT, console=marks[0] + WARNING + marks[1]))
    rated = replace(RESULT, started=FAILED_RESULT.started)
    store_result(
        store, replace(rated, stdout=rated.stdout.replace("1..1\n", "1..1\n# rate: 3 of 1800 tries\n"))
    )
    splat, race = read_entries(store)
    assert (splat.raw, splat.fingerprint) == (Status.CRASH, "warning:do_wp_page/handle_mm_fault")
    assert (race.hits, race.tries) == (3, 1800)
    assert "3 of 1800" in render([race])


def test_a_subtest_is_an_entry(store: Store) -> None:
    store_result(store, replace(PAIRED, stdout=PAIR))
    assert [entry.name for entry in read_entries(store)] == list(SUBTESTS["fork.basic-cow"])


def test_what_is_taken_from_the_store_again_is_not_new(store: Store) -> None:
    store_result(store, RESULT)
    store_run(store, 1, replace(JOB, results=(RESULT,)))
    store_run(store, 2, replace(JOB, row="other", results=(RESULT,)))
    assert [entry.row for entry in read_entries(store)] == ["demo"]
    # the same result once more is another one when it was earned later
    store_result(store, replace(RESULT, started=FAILED_RESULT.started))
    assert len(read_entries(store)) == 2


@pytest.mark.parametrize("has_runs", [True, False], ids=["runs", "killed"])
def test_history_is_rebuilt_from_runs_and_results(store: Store, has_runs: bool) -> None:
    store_result(store, RESULT)
    store_result(store, FAILED_RESULT)
    if has_runs:
        store_run(store, 1, replace(JOB, results=(RESULT,)))
    before = read_entries(store)
    for path in store.root.glob(f"{FILE}*"):
        path.unlink()
    # the first result's file was replaced by the second's; a run still has it
    after = read_entries(store)
    assert after[-1] == before[-1]
    assert len(after) == 1 + has_runs


def test_a_result_between_file_and_history_is_not_lost(store: Store) -> None:
    store_result(store, RESULT)
    assert len(read_entries(store)) == 1
    save_result(FAILED_RESULT, store.path("results", VARIANT) / "odirect.rd-mprotect.fedcba987654.json")
    assert [entry.raw for entry in read_entries(store)] == [Status.PASS, Status.FAIL]


def test_a_result_without_a_run_is_entered_with_its_own_fields(store: Store) -> None:
    """A run that was killed before there was a history: neither record nor variant.json."""
    path = store.path("results", VARIANT) / "fork.basic-cow.0.json"
    save_result(replace(PAIRED, stdout=PAIR), path)
    os.utime(path, (1700000000, 1700000000))
    found = read_entries(store)
    assert [(entry.row, entry.name, entry.started[:10]) for entry in found] == [
        ("", name, "2023-11-14") for name in SUBTESTS["fork.basic-cow"]
    ]


def test_a_kernel_that_does_not_boot_has_entries(store: Store) -> None:
    """Else it would only be missing, where it is compared with one that boots."""
    store_result(store, RESULT)
    failed = replace(JOB, version="6.12.3", failure=Failure("boot", "it panics", "", "", ""))
    for number in (1, 2):
        store_run(store, number, failed)
    found = [entry for entry in read_entries(store) if entry.kernel == "6.12.3"]
    assert [entry.raw for entry in found] == [Status.CRASH] * 6
    assert read_entries(store)[1:] == found
    done = cowbell("diff", "6.1", "6.12")
    assert done.returncode == 1
    assert "CRASH" in done.stdout


def test_what_is_no_result_is_passed_over(store: Store) -> None:
    path = store_result(store, RESULT)
    (path.parent / "odirect.cut.0.json").write_text('{"test": "odirect.cut"')
    (path.parent / "boot-1").mkdir()
    (path.parent / "boot-1" / "qemu.json").write_text("{}")
    broken = store.path("runs", "demo-broken") / "record.json"
    broken.parent.mkdir(parents=True)
    broken.write_text("{")
    assert len(read_entries(store)) == 1


def test_a_damaged_file_is_set_aside_and_made_again(store: Store) -> None:
    store_result(store, RESULT)
    for path in store.root.glob(f"{FILE}-*"):
        path.unlink()
    (store.root / FILE).write_bytes(b"no database" * 1000)
    notes: list[str] = []
    with open_history(store, notes.append) as db:
        assert len(find_entries(db)) == 1
    assert len(notes) == 1
    assert f"{FILE}: file is not a database; moved to {FILE}.damaged" in notes[0]
    assert (store.root / f"{FILE}.damaged").read_bytes().startswith(b"no database")
    assert len(read_entries(store)) == 1


def test_a_damaged_page_is_found(store: Store) -> None:
    for number in range(200):
        add_result(
            store,
            JOB,
            replace(RESULT, started=f"2024-{number}"),
            store.path("results", VARIANT),
            QuietProgress(),
        )
    where = store.root / FILE
    content = bytearray(where.read_bytes())
    assert len(content) > 5 * 4096
    content[2 * 4096 : 4 * 4096] = os.urandom(2 * 4096)
    where.write_bytes(content)
    notes: list[str] = []
    with open_history(store, notes.append):
        pass
    assert len(notes) == 1
    assert "moved to" in notes[0]


@pytest.mark.parametrize("trouble", ["damaged", "folder"])
def test_a_run_goes_on_without_its_history(
    store: Store, trouble: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_reported", set())
    where = store.path(FILE)
    if trouble == "folder":
        where.mkdir()
    else:
        where.write_bytes(b"no database" * 1000)
    progress = QuietProgress()
    folder = store.path("results", VARIANT)
    for number in range(3):
        result = replace(RESULT, content_id=f"{number}")
        save_result(result, folder / f"{result.test}.{number}.json")
        add_result(store, JOB, result, folder, progress)
    # once, not once a test
    assert len(progress.notes) == 1
    assert str(where) in progress.notes[0]
    assert "no result is lost" in progress.notes[0]
    notes: list[str] = []
    with open_history(store, notes.append) as db:
        assert len(find_entries(db)) == 3
    assert len(notes) == 1


# a disk that is full for anything larger than a result
FULL = """
import resource, sys
from pathlib import Path
from orchestrator.result.record import save_result
from orchestrator.history.database import add_result
from orchestrator.store.store import Store
from tests.conftest import QuietProgress
from tests.records import JOB, RESULT, VARIANT
from dataclasses import replace

store, progress = Store(Path(sys.argv[1])), QuietProgress()
folder = store.path("results", VARIANT)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
for number in range(3):
    result = replace(RESULT, content_id=str(number))
    save_result(result, folder / f"{result.test}.{number}.json")
    add_result(store, JOB, result, folder, progress)
print(len(progress.notes), progress.notes[0])
"""


def test_a_full_disk_loses_nothing(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, store.root], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"1 {store.root / FILE}: ")
    # and when there is room again
    assert len(read_entries(store)) == 3


def test_a_store_that_can_not_be_written_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store_result(store, RESULT)
    save_result(FAILED_RESULT, store.path("results", VARIANT) / "odirect.rd-mprotect.fedcba987654.json")
    connect = sqlite3.connect

    def connect_readonly(path: Path | str, **options: object) -> sqlite3.Connection:
        if path == ":memory:":
            return connect(path, isolation_level=None)
        return connect(f"file:{path}?mode=ro", uri=True, isolation_level=None)

    monkeypatch.setattr(sqlite3, "connect", connect_readonly)
    notes: list[str] = []
    with open_history(store, notes.append) as db:
        assert len(find_entries(db)) == 2
    assert len(notes) == 1
    assert "readonly" in notes[0]


def test_an_older_file_is_migrated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store_result(store, RESULT)
    next_step = "ALTER TABLE entries ADD COLUMN weather TEXT NOT NULL DEFAULT 'fine'"
    monkeypatch.setattr(database, "_STEPS", (*database._STEPS, next_step))
    with open_history(store, pytest.fail) as db:
        assert db.execute("SELECT weather FROM entries").fetchall() == [("fine",)]
        assert db.execute("PRAGMA user_version").fetchone() == (2,)
    assert len(read_entries(store)) == 1


def test_a_newer_file_is_refused_and_results_are_saved(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_reported", set())
    store_result(store, RESULT)
    db = sqlite3.connect(store.root / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with (
        pytest.raises(UsageError, match="has schema 99, this version of cowbell reads up to 1"),
        open_history(store, pytest.fail),
    ):
        pass
    progress = QuietProgress()
    add_result(store, JOB, FAILED_RESULT, store.path("results", VARIANT), progress)
    assert "schema 99" in progress.notes[0]
    done = cowbell("history")
    assert done.returncode == 2
    assert f"{store.root / FILE}: has schema 99" in done.stderr


# earns results without end, and says of each that it is entered
WRITER = """
import os, sys
from pathlib import Path
from dataclasses import replace
from orchestrator.store.store import Store
from orchestrator.history.entry import make_result_id
from tests.records import RESULT, store_result

store, name = Store(Path(sys.argv[1])), sys.argv[2]
os.write(1, b"begins\\n")
for number in range(int(sys.argv[3])):
    result = replace(RESULT, content_id=f"{name}{number:06}", started=f"{name}-{number:06}")
    store_result(store, result)
    os.write(1, f"{make_result_id(result)}\\n".encode())
"""


def start_writer(store: Store, name: str, number: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, store.root, name, str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_no_kill_loses_what_was_announced(store: Store) -> None:
    """At random moments, also those between a result's file and its entry, and in the first creation."""
    announced: set[str] = set()
    moments = random.Random(8)
    for number in range(15):
        writer = start_writer(store, f"w{number}-", 1_000_000)
        assert writer.stdout
        assert writer.stdout.readline() == "begins\n"
        # killed right after it said so, or a moment later, in the midst of the next ones
        first = [writer.stdout.readline() for _ in range(moments.randint(0, 5))]
        time.sleep(moments.random() / 20)
        writer.send_signal(signal.SIGKILL)
        said = "".join(first) + writer.stdout.read()
        writer.wait()
        announced |= {line for line in said.splitlines(keepends=True) if line.endswith("\n")}
        if not announced:
            continue
        assert {line.strip() for line in announced} <= {result_id for result_id, _ in read_raw(store)}
        db = sqlite3.connect(store.root / FILE)
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        db.close()
    assert len(announced) > 12
    # with the results that were saved, but not added
    results = {path.name for path in (store.root / "results" / VARIANT).glob("odirect.*.json")}
    assert len(read_entries(store)) == len(results) >= len(announced)


def test_two_processes_write_at_once(store: Store) -> None:
    writers = [start_writer(store, name, 40) for name in ("a", "b")]
    said = [set(writer.communicate()[0].split()) - {"begins"} for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert [len(ids) for ids in said] == [40, 40]
    assert {result_id for result_id, _ in read_raw(store)} == said[0] | said[1]


def test_concurrent_first_writers_create_one_file(tmp_path: Path) -> None:
    """The file is made once, whoever else wants to make it."""
    results = [replace(RESULT, content_id=str(number)) for number in range(8)]
    with ThreadPoolExecutor(len(results)) as pool:
        for attempt in range(20):
            store, progress, start = Store(tmp_path / str(attempt)), QuietProgress(), Barrier(len(results))
            folder = store.path("results", VARIANT)

            def add(
                result: TrialResult,
                start: Barrier = start,
                store: Store = store,
                folder: Path = folder,
                progress: QuietProgress = progress,
            ) -> None:
                start.wait()
                add_result(store, JOB, result, folder, progress)

            list(pool.map(add, results))
            assert not progress.notes
            assert len(read_raw(store)) == len(results)


def test_choose_entries_by_test_row_and_kernel(store: Store) -> None:
    store_result(store, RESULT)
    store_result(
        store,
        replace(PAIRED, stdout=PAIR, started=STARTED),
        replace(JOB, row="numa", version="6.12.3", tree="n"),
    )
    with open_history(store, pytest.fail) as db:

        def count(*tests: str, rows: tuple[str, ...] = (), kernel: str = "") -> int:
            return len(choose_entries(db, tests, rows, kernel))

        assert count() == 3
        assert count("fork.*") == 2
        assert count("fork.basic-cow[state=thp]") == 1
        assert count(rows=("numa",)) == 2
        assert [count(kernel=word) for word in ("6.1", "6.1.176", "n", "6")] == [1, 1, 2, 3]
        with pytest.raises(ExceptionGroup) as caught:
            count("odirect.rd-mprotec", rows=("numb",), kernel="7")
    assert [str(error) for error in caught.value.exceptions] == [
        "history: there is no result of test odirect.rd-mprotec; did you mean odirect.rd-mprotect?",
        "ROW: there is no result of row numb; did you mean numa?",
        "KERNEL: there is no result of kernel 7",
    ]


def test_the_command_tells_newest_last_and_as_published(store: Store) -> None:
    store_result(store, FAILED_RESULT)
    store_result(store, replace(RESULT, content_id="earlier"))
    done = cowbell("history", "odirect.*", "ROW=demo", "KERNEL=6.1")
    assert (done.returncode, done.stderr) == (0, "")
    _, first, second = done.stdout.splitlines()
    assert first.split() == [
        "2024-05-01", "10:00:00", "demo/plain", "6.1.176", "odirect.rd-mprotect",
        "PASS", "(expected", "to", "fail)", "0.5",
    ]  # fmt: skip
    assert "FAIL (expected)" in second
    product = read_product(cowbell("history", "--json").stdout)
    assert [(entry["raw"], entry["status"]) for entry in product["entries"]] == [
        ("pass", "xpass"),
        ("fail", "xfail"),
    ]


def test_nothing_that_is_shown_is_obeyed_by_a_terminal() -> None:
    (entry,) = make_entries(replace(JOB, row="demo\x1b[2J"), RESULT)
    assert "demo\\x1b[2J/plain" in render([entry])


def test_a_run_tells_also_of_what_did_not_come_to_run() -> None:
    job = replace(JOB, failure=Failure("boot", "it panics", "", "", ""))
    run = RunRecord("demo-1", "", STARTED, (job,))
    found = list(list_outcomes(run))
    assert [entry.raw for entry in found] == [Status.CRASH] * 3
    assert {entry.reason for entry in found} == {"boot: it panics"}


def test_a_result_is_the_same_wherever_it_is() -> None:
    assert make_result_id(RESULT) == make_result_id(replace(RESULT, boot="merged-1", trial=3))
    changed = [
        replace(RESULT, started=""),
        replace(RESULT, console=""),
        replace(RESULT, ended=Ended.HANG),
        replace(RESULT, duration_s=0.6),
    ]
    assert len({make_result_id(result) for result in (RESULT, *changed)}) == 5
    (entry,) = make_entries(JOB, replace(RESULT, boot="merged-1"), "results/x")
    assert entry.console == "results/x/merged-1/console.log"
