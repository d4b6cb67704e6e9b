# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of several machines in one store: all of what is good, nothing of what is not, once."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import UsageError
from orchestrator.history.database import FILE, VARIANT_FILE
from orchestrator.history.entry import make_result_id
from orchestrator.history.merge import Merged, merge
from orchestrator.result.record import JobRecord, load_result, load_run, save_job
from orchestrator.result.verdict import judge_job
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import cowbell, read_line, start_python, wait_for
from tests.records import FAILED_RESULT, JOB, RESULT, VARIANT, read_entries, store_result, store_run
from tests.samples import PAIR, PAIRED
from tests.schema import read_product

OTHER = replace(PAIRED, stdout=PAIR, content_id="fork", started=RESULT.started, host="two")


@pytest.fixture
def theirs(tmp_path: Path) -> Store:
    """The store of another machine, with a run, its results and the console of its boot."""
    store = Store(tmp_path / "theirs")
    for result in (RESULT, OTHER):
        store_result(store, result)
    boot = store.root / "results" / VARIANT / "boot-1"
    boot.mkdir()
    (boot / "console.log").write_text("their console")
    (boot / "keys.tar").write_text("their keys")
    store_run(store, 1, replace(JOB, results=(RESULT, OTHER)))
    (store.root / "runs" / "latest").symlink_to("demo-000000000001")
    # what only makes builds faster is theirs
    (store.root / "trees").mkdir()
    (store.root / "trees" / "tree").symlink_to("/etc")
    return store


def take(store: Store, *folders: Path) -> Merged:
    return merge(store, folders, pytest.fail)


def list_files(root: Path) -> dict[str, bytes]:
    """What counts: locks, and the history's journal, come and go."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.relative_to(root).parts[0] in ("runs", "results")
    }


def test_a_store_comes_with_runs_results_and_consoles(store: Store, theirs: Store) -> None:
    assert take(store, theirs.root) == Merged(("demo-000000000001",), 2, 0)
    assert [(entry.name, entry.host, entry.row) for entry in read_entries(store)] == [
        (entry.name, entry.host, entry.row) for entry in read_entries(theirs)
    ]
    for entry in read_entries(store):
        assert (store.root / entry.console).read_text() == "their console"
    run = load_run(store.root / "runs" / "demo-000000000001" / "record.json")
    assert run.jobs[0].results == (RESULT, OTHER)
    # a result is found where the pipeline looks for it
    known = load_result(store.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json")
    assert known
    assert make_result_id(known) == make_result_id(RESULT)
    assert (store.root / "results" / VARIANT / VARIANT_FILE).exists()
    assert not list(store.root.rglob("keys.tar"))
    assert not (store.root / "trees").exists()
    assert not (store.root / "runs" / "latest").exists()


def test_again_changes_nothing(store: Store, theirs: Store) -> None:
    take(store, theirs.root)
    before, entries = list_files(store.root), read_entries(store)
    assert take(store, theirs.root) == Merged((), 0, 2)
    assert (list_files(store.root), read_entries(store)) == (before, entries)
    # nor when it goes back to where it came from, or to itself
    theirs_before = list_files(theirs.root)
    assert take(theirs, store.root) == Merged((), 0, 2)
    assert list_files(theirs.root) == theirs_before
    assert take(store, store.root) == Merged((), 0, 2)
    assert list_files(store.root) == before


def test_what_both_earned_is_kept_twice(store: Store, theirs: Store) -> None:
    """A test on one kernel: ours stays the answer, theirs is not lost, also when all is made again."""
    path = store_result(store, FAILED_RESULT)
    boot = store.root / "results" / VARIANT / "boot-1"
    boot.mkdir()
    (boot / "console.log").write_text("our console")
    take(store, theirs.root)
    assert load_result(path) == FAILED_RESULT
    assert {entry.result_id for entry in read_entries(store)} == {
        make_result_id(r) for r in (FAILED_RESULT, RESULT, OTHER)
    }
    assert {(entry.started, (store.root / entry.console).read_text()) for entry in read_entries(store)} == {
        (FAILED_RESULT.started, "our console"),
        (RESULT.started, "their console"),
    }
    before = read_entries(store)
    for left in store.root.glob(f"{FILE}*"):
        left.unlink()
    assert sorted(map(str, read_entries(store))) == sorted(map(str, before))


def test_old_results_of_no_run_keep_their_time(store: Store, theirs: Store) -> None:
    path = store_result(theirs, replace(RESULT, content_id="old", started=""))
    os.utime(path, (1700000000, 1700000000))
    take(store, theirs.root)
    assert read_entries(store)[0].started == "2023-11-14T22:13:20.000+00:00"


def test_a_run_comes_alone(store: Store, theirs: Store) -> None:
    folder = theirs.root / "runs" / "demo-000000000001"
    moved = folder.rename(theirs.root / "artifact")
    (moved / "report.html").write_text("<html>")
    assert take(store, moved) == Merged(("demo-000000000001",), 2, 0)
    assert (store.root / "runs" / "demo-000000000001" / "report.html").exists()
    assert len(read_entries(store)) == 3


def cut(theirs: Store) -> str:
    path = theirs.root / "runs" / "demo-000000000001" / "record.json"
    path.write_text(path.read_text()[:-100])
    return f"{path}: is not the record of a run: "


def other_schema(theirs: Store) -> str:
    path = theirs.root / "runs" / "demo-000000000001" / "record.json"
    path.write_text(path.read_text().replace('"schema": 6', '"schema": 99'))
    return f"{path}: has schema 99, this version of cowbell reads schema 6"


def cut_result(theirs: Store) -> str:
    path = theirs.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json"
    path.write_text(path.read_text()[:-100])
    return f"{path}: is not a test result, or is truncated"


def other_name(theirs: Store) -> str:
    path = theirs.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json"
    moved = path.rename(path.with_name("odirect.rd-fork.0123456789ab.json"))
    return f"{moved}: is a result of {RESULT.test}, program 0123456789abcdef, but has another file name"


def lead_out(theirs: Store) -> str:
    path = theirs.root / "results" / VARIANT / "boot-1" / "secret"
    path.symlink_to("/etc/passwd")
    return f"{path}: is a symbolic link that leads out of the folder"


def lead_out_whole(theirs: Store) -> str:
    path = theirs.root / "results" / "fedcbafedcba"
    path.symlink_to("/etc")
    return f"{path}: is a symbolic link that leads out of the folder"


def pipe(theirs: Store) -> str:
    path = theirs.root / "runs" / "demo-000000000001" / "pipe"
    os.mkfifo(path)
    return f"{path}: is neither a file nor a folder"


def climb(theirs: Store) -> str:
    path = theirs.root / "runs" / "demo-000000000001" / "record.json"
    path.write_text(path.read_text().replace("demo-000000000001", "../../escaped"))
    return f"{path}: is not the record of a run: run_id: Value error, expected a name ("


def climb_boot(theirs: Store) -> str:
    path = theirs.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json"
    path.write_text(path.read_text().replace('"boot-1"', '"../../.."'))
    return f"{path}: is not a test result, or is truncated"


def cut_variant(theirs: Store) -> str:
    path = theirs.root / "results" / VARIANT / VARIANT_FILE
    path.write_text("{")
    return f"{path}: is not the record of a variant, or is truncated"


DAMAGES = (
    cut,
    other_schema,
    cut_result,
    other_name,
    lead_out,
    lead_out_whole,
    pipe,
    climb,
    climb_boot,
    cut_variant,
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_is_refused_with_where_and_nothing_is_done(
    store: Store, theirs: Store, damage: Callable[[Store], str]
) -> None:
    store_result(store, FAILED_RESULT)
    before = list_files(store.root)
    told = damage(theirs)
    missing = store.root / "none"
    with pytest.raises(ExceptionGroup) as caught:
        take(store, missing, theirs.root, store.root / "results" / VARIANT)
    # all at once
    first, second, third = map(str, caught.value.exceptions)
    assert first == f"{missing}: cannot be read: No such file or directory"
    assert second.startswith(told)
    assert "is neither a store nor a run" in third
    assert list_files(store.root) == before
    assert len(read_entries(store)) == 1


def test_results_of_older_versions_stay_behind(store: Store, theirs: Store) -> None:
    path = theirs.root / "results" / VARIANT / "odirect.old.0.json"
    path.write_text(json.dumps({"test": "odirect.old"}))
    path.with_name("odirect.other.0.json").write_text(json.dumps(asdict(RESULT) | {"is_hung": False}))
    assert take(store, theirs.root).results == 2
    assert len(list((store.root / "results" / VARIANT).glob("*.json"))) == 3


@pytest.mark.parametrize("name", ["../../../evil", "a/b", "\x1b[31m", "\u202ex", "x\ny", "", "..", "x" * 300])
@pytest.mark.parametrize("field", ["row", "variant", "build_id", "commit"])
def test_a_record_whose_names_are_none_is_refused(tmp_path: Path, field: str, name: str) -> None:
    """They become paths, arguments of git, and text on a terminal."""
    if not name and field in ("build_id", "commit"):
        pytest.skip("empty where the kernel was not built")
    theirs, store = Store(tmp_path / "theirs"), Store(tmp_path / "deep" / "er" / "store")
    values: dict[str, Any] = {field: name}
    run = store_run(theirs, 1, replace(JOB, results=(RESULT,), **values))
    save_job(replace(JOB, **values), theirs.root / "results" / VARIANT / VARIANT_FILE)
    with pytest.raises(ExceptionGroup) as caught:
        take(store, theirs.root, theirs.root / "runs" / run.run_id)
    told = [str(error) for error in caught.value.exceptions]
    assert f"jobs.0.{field}: Value error, expected a name (" in told[0]
    assert f"{VARIANT}/{VARIANT_FILE}: is not the record of a variant" in told[1]
    assert not [path for path in tmp_path.rglob("record.json") if theirs.root not in path.parents]


def test_text_that_no_file_can_have_is_refused(store: Store, theirs: Store) -> None:
    """SQLite and reports could not store it, and every later use of the history would fail."""
    path = theirs.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json"
    path.write_text(path.read_text().replace('"host": "one"', '"host": "\\ud800"'))
    assert "\\ud800" in path.read_text()
    with pytest.raises(ExceptionGroup) as caught:
        take(store, theirs.root)
    assert str(caught.value.exceptions[0]) == f"{path}: is not a test result, or is truncated"
    # nor does a store fail that has such a file
    shutil.copytree(theirs.root / "results", store.root / "results")
    assert len(read_entries(store)) == 2


def test_parallel_imports_of_one_folder(store: Store, theirs: Store) -> None:
    script = (
        "import sys; from pathlib import Path; from orchestrator.history.merge import merge\n"
        "from orchestrator.store.store import Store\n"
        "print(len(merge(Store(Path(sys.argv[1])), [Path(sys.argv[2])], print).runs))\n"
    )
    with contextlib.ExitStack() as stack:
        # neither is done before the other has begun
        with store.lock("merge"):
            started = [stack.enter_context(start_python(script, store.root, theirs.root)) for _ in range(2)]
            wait_for(lambda: all(f" {process.pid} " in read_waiting() for process in started), 60)
        assert sorted(map(read_line, started)) == ["0", "1"]


def read_waiting() -> str:
    """The processes that wait for a lock."""
    return "\n".join(line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)


@pytest.mark.parametrize("name", ["stdout", "duration_s", "trial", "host"])
def test_a_result_with_a_value_of_another_type_is_refused(store: Store, theirs: Store, name: str) -> None:
    """If imported, it would break every later use of the history."""
    path = theirs.root / "results" / VARIANT / f"{RESULT.test}.0123456789ab.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: ["7"]}))
    with pytest.raises(ExceptionGroup) as caught:
        take(store, theirs.root)
    assert str(caught.value.exceptions[0]) == f"{path}: is not a test result, or is truncated"
    assert list_files(store.root) == {}


def test_another_run_of_the_name_is_refused(store: Store, theirs: Store) -> None:
    store_run(store, 1, replace(JOB, results=(RESULT,)))
    with pytest.raises(ExceptionGroup) as caught:
        take(store, theirs.root)
    assert "differs from the run demo-000000000001 in this store" in str(caught.value.exceptions[0])


def save_pair(theirs: Store, other: JobRecord) -> list[Path]:
    one = replace(JOB, tests={RESULT.test: (RESULT.test,)}, results=(RESULT,))
    runs = [store_run(theirs, 2, one), store_run(theirs, 3, other)]
    return [theirs.root / "runs" / run.run_id for run in runs]


def test_several_runs_become_one(store: Store, theirs: Store) -> None:
    parts = save_pair(theirs, replace(JOB, results=(OTHER, FAILED_RESULT)))
    merged = take(store, *parts)
    assert (merged.runs, merged.results) == (("demo-000000000002", "demo-000000000003"), 3)
    (job,) = load_run(store.root / "runs" / merged.merged / "record.json").jobs
    assert job.tests == JOB.tests
    # what ran in both is two trials, in their order
    assert [(result.test, result.started, result.trial) for result in job.results] == [
        (RESULT.test, RESULT.started, 1),
        (RESULT.test, FAILED_RESULT.started, 2),
        (OTHER.test, OTHER.started, 1),
    ]
    # in either order it is the same, and nothing is entered twice
    assert take(store, *reversed(parts)) == Merged((), 0, 3, merged.merged)
    assert len(read_entries(store)) == 4
    done = cowbell("report", f"RUN={merged.merged}")
    assert "fork.basic-cow[state=thp]" in done.stdout


def test_different_variants_are_not_joined(store: Store, theirs: Store) -> None:
    parts = save_pair(theirs, replace(JOB, build_id="another", results=(OTHER,)))
    with pytest.raises(ExceptionGroup) as caught:
        take(store, *parts)
    assert "demo/plain differs from that of demo-000000000002: build_id another and b" in str(
        caught.value.exceptions[0]
    )
    assert not (store.root / "runs").exists()


def test_the_command(store: Store, theirs: Store) -> None:
    before = list_files(store.root)
    done = cowbell("-n", "merge", str(theirs.root), "--json")
    assert read_product(done.stdout)["results"] == 2
    assert list_files(store.root) == before
    done = cowbell("merge", str(theirs.root), "--json")
    assert (done.returncode, done.stderr) == (0, "")
    product = read_product(done.stdout)
    assert (product["runs"], product["results"]) == (["demo-000000000001"], 2)
    done = cowbell("merge", str(theirs.root))
    assert done.stdout == "0 runs and 0 results are new, 2 were known\n"
    assert cowbell("report", "RUN=demo-000000000001").returncode in (0, 1)
    assert cowbell("merge").returncode == 2
    with pytest.raises(UsageError):
        take(store)


def plan(*tests: str, variant: str = JOB.variant) -> JobRecord:
    """What a row says of a kernel before anything of it is done."""
    return JobRecord(JOB.row, variant, JOB.arch, JOB.tree, JOB.series, tests={test: () for test in tests})


def take_planned(store: Store, planned: list[JobRecord], *folders: Path) -> tuple[Merged, list[str]]:
    notes: list[str] = []
    return merge(store, folders, notes.append, planned), notes


def test_what_was_planned_and_did_not_come_is_missing(store: Store, theirs: Store) -> None:
    """Nothing of a kernel came, and of another not every test: neither is left out of the report."""
    planned = [plan("never.run", variant="first"), plan(RESULT.test, "odirect.lost")]
    merged, _ = take_planned(store, planned, theirs.root)
    assert merged.missing == (f"{JOB.row}/first", f"{JOB.row}/{JOB.variant}")
    first, second = load_run(store.root / "runs" / merged.merged / "record.json").jobs
    (verdict,) = judge_job(first)
    assert (verdict.status, verdict.reason) == (Status.BROKEN, "merge: there are no results")
    by_name = {verdict.test: verdict for verdict in judge_job(second)}
    assert by_name[RESULT.test].status is not Status.BROKEN
    assert (by_name["odirect.lost"].status, by_name["odirect.lost"].reason) == (Status.BROKEN, "was not run")
    again, _ = take_planned(store, planned, theirs.root)
    assert (again.merged, again.runs, again.results) == (merged.merged, (), 0)


def test_what_was_earned_before_a_kill_is_in_the_run(store: Store, theirs: Store) -> None:
    """A job that dies has results, and what its variant is, but no run."""
    shutil.rmtree(theirs.root / "runs")
    save_job(
        replace(JOB, tests={RESULT.test: (RESULT.test,), "odirect.lost": ()}),
        theirs.root / "results" / VARIANT / VARIANT_FILE,
    )
    merged, _ = take_planned(store, [plan(RESULT.test, OTHER.test, "odirect.lost")], theirs.root)
    (job,) = load_run(store.root / "runs" / merged.merged / "record.json").jobs
    assert {result.test for result in job.results} == {RESULT.test, OTHER.test}
    assert job.build_id == JOB.build_id
    assert merged.missing == (f"{JOB.row}/{JOB.variant}",)


def test_shares_of_a_row_become_whole(store: Store, tmp_path: Path) -> None:
    """Each was run by itself, one on another accelerator, and both number their boots alike."""
    for number, result in enumerate((RESULT, OTHER), 1):
        share = Store(tmp_path / "results" / f"test-demo-{number}-of-2")
        store_result(share, result)
        boot = share.root / "results" / VARIANT / "boot-1"
        boot.mkdir()
        (boot / "console.log").write_text(f"console {number}")
        tests = {result.test: JOB.tests[result.test]}
        run = store_run(
            share, number, replace(JOB, tests=tests, results=(result,), accel=("kvm", "tcg")[number - 1])
        )
        evidence = share.root / "runs" / run.run_id / "evidence"
        evidence.mkdir()
        (evidence / f"{result.test}.tar.zst").write_text(f"evidence {number}")
    # what is named is the folder that all of them are in
    merged, _ = take_planned(store, [plan(OTHER.test, RESULT.test)], tmp_path / "results")
    assert merged.missing == ()
    folder = store.root / "runs" / merged.merged
    (job,) = load_run(folder / "record.json").jobs
    assert list(job.tests) == [OTHER.test, RESULT.test]
    assert {result.test for result in job.results} == {OTHER.test, RESULT.test}
    assert job.accel == "kvm, tcg"
    assert {path.name for path in (folder / "evidence").iterdir()} == {
        f"{result.test}.tar.zst" for result in (RESULT, OTHER)
    }
    consoles = {path.read_text() for path in store.root.glob("results/*/merged-*/console.log")}
    assert consoles == {"console 1", "console 2"}


def test_nothing_came_at_all(store: Store, tmp_path: Path) -> None:
    merged, notes = take_planned(store, [plan("never.run")], tmp_path / "results")
    assert notes == [f"{tmp_path}/results: there is no such folder; its results are missing"]
    assert merged.missing == (f"{JOB.row}/{JOB.variant}",)
    assert (store.root / "runs" / merged.merged / "record.json").exists()
    # that is a mistake of who says so, where nothing was planned
    with pytest.raises(ExceptionGroup, match="bad input"):
        take(store, tmp_path / "results")


def test_a_row_on_the_command_line_is_planned(theirs: Store, tmp_path: Path) -> None:
    """The last run is then the one that was made; a row's kernels are known though nothing is fetched."""
    words = [
        "ROW=demo",
        f"KERNEL={tmp_path}/absent:topic",
        "SERIES=none",
        "TESTS=fork.basic-cow,odirect.rd-control",
    ]
    merged = cowbell("merge", *words, str(theirs.root))
    assert merged.returncode == 0, merged.stderr
    assert "missing or incomplete: demo/plain\n" in merged.stdout
    shown = cowbell("report", f"DIR={tmp_path}/public")
    assert shown.returncode == 1
    assert re.search(r"^ odirect.rd-control +BROKEN ", shown.stdout, re.M)
    assert f"{tmp_path}/public: files, index.html, junit.xml" in shown.stdout
    assert {path.name for path in (tmp_path / "public").iterdir()} >= {
        "index.html",
        "junit.xml",
        "report.json",
    }
    assert 'name="demo/plain"' in (tmp_path / "public" / "junit.xml").read_text()
