# SPDX-License-Identifier: GPL-2.0-or-later
"""Evidence of failing trials: what is in it, always the same, and nothing that is missing stops it."""

import contextlib
import hashlib
import io
import json
import os
import shlex
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path
from unittest import mock

import pytest

from orchestrator.cli.call import Call
from orchestrator.cli.commandline import read_command_line
from orchestrator.cli.preferences import load_preferences
from orchestrator.report.bundle import MEMBER_LIMIT, make_bundles, name_bundle, write_files
from orchestrator.report.replay import make_command, make_repetition
from orchestrator.result.record import JobRecord, LocalFile, RunRecord, TrialResult, save_result
from orchestrator.source.tree import name_folder
from orchestrator.store.store import Store
from tests.records import JOB, make_run
from tests.samples import FAILED, GOOD


def read_bundle(path: Path) -> dict[str, bytes]:
    done = subprocess.run(["zstd", "-dc", path], capture_output=True, check=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        found = {}
        for member in archive.getmembers():
            folder, _, piece = member.name.partition("/")
            assert folder == path.name.removesuffix(".tar.zst")
            file = archive.extractfile(member)
            assert file
            found[piece] = file.read()
    return found


def run_of(job: JobRecord, *results: TrialResult) -> RunRecord:
    tests = {result.test: (result.test,) for result in results}
    return replace(make_run(), jobs=(replace(job, tests=tests, results=results, build_id="aaaabbbbcccc"),))


@pytest.fixture
def job() -> JobRecord:
    return make_run().jobs[0]


def test_all_that_a_failure_rests_on(job: JobRecord, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    kernel = store.path("kernels", "aaaabbbbcccc")
    kernel.mkdir(parents=True)
    (kernel / "config").write_text("CONFIG_KSM=y\n")
    (kernel / "build.json").write_text("{}\n")
    other, variant = store.path("results", "variant1"), store.path("results", "variant2")
    for folder, result in ((other, GOOD), (variant, FAILED)):
        (folder / "boot-1").mkdir(parents=True)
        save_result(result, folder / f"{result.test}.{result.content_id}.json")
        (folder / "boot-1/console.log").write_text(f"{folder.name}\n")
        (folder / "boot-1/qemu.json").write_text('["qemu"]\n')
        (folder / "boot-1/qemu.log").write_bytes(b"x" * (MEMBER_LIMIT + 100))
        (folder / "boot-1/keys.tar").write_text("secret")
    (path,) = make_bundles(run_of(job, FAILED), store, tmp_path / "evidence")
    assert path.name == "odirect.rd-mprotect.demo.plain.tar.zst"
    pieces = read_bundle(path)
    assert pieces["kernel/config"] == b"CONFIG_KSM=y\n"
    # of two boots with the same number, the one that the result is of
    assert pieces["boot/console.log"] == b"variant2\n"
    assert pieces["stdout"].decode() == FAILED.stdout
    assert json.loads(pieces["verdicts.json"])[0]["raw"] == "fail"
    assert json.loads(pieces["result.json"])["test"] == FAILED.test
    assert json.loads(pieces["job.json"])["build_id"] == "aaaabbbbcccc"
    assert pieces["REPLAY"].decode().splitlines()[1].startswith("cowbell -B test ROW=demo ")
    assert b"[100 bytes left out]" in pieces["boot/qemu.log"]
    assert len(pieces["boot/qemu.log"]) < MEMBER_LIMIT + 100
    assert "MISSING" not in pieces
    assert b"secret" not in b"".join(pieces.values())
    # the page links to the same files as text, which stay when the store has them no more
    run = run_of(job, FAILED, replace(GOOD, test="x.lost", boot="boot-9"))
    for _ in range(2):
        write_files(run, store, tmp_path / "files")
        assert {path.name: path.read_text() for path in (tmp_path / "files").iterdir()} == {
            "demo.plain.config.txt": "CONFIG_KSM=y\n",
            "demo.plain.boot-1.txt": "variant2\n",
        }
        (kernel / "config").unlink(missing_ok=True)


def test_a_program_of_the_command_line_is_in_it(job: JobRecord, tmp_path: Path) -> None:
    """Its text is that of the run; a binary is there as long as it is the same."""
    binary = tmp_path / "a b"
    binary.write_bytes(b"\x7fELF")
    digest = hashlib.sha256(b"\x7fELF").hexdigest()
    files = {FAILED.test: LocalFile(str(binary), digest), "local.other": LocalFile("/x", digest, "int x;")}
    store = Store(tmp_path / "store")
    run = run_of(replace(job, files=files), FAILED)
    (path,) = make_bundles(run, store, tmp_path / "evidence")
    members = read_bundle(path)
    assert members["program/a b"] == b"\x7fELF"
    assert f"TESTS={binary}" in shlex.split(members["REPLAY"].decode().splitlines()[1])
    words = make_repetition(run, ["demo"], [FAILED.test, "x.y"])
    assert words[-1] == f"TESTS={binary},x.y"
    binary.write_bytes(b"\x7fELF, but another")
    (path,) = make_bundles(run, store, tmp_path / "later")
    assert "program/a b" in read_bundle(path)["MISSING"].decode().splitlines()
    text = LocalFile("/gone/a.c", digest, "int main;")
    (path,) = make_bundles(run_of(replace(job, files={FAILED.test: text}), FAILED), store, tmp_path / "e")
    assert read_bundle(path)["program/a.c"] == b"int main;"


def test_a_folder_of_the_command_line_is_in_it(job: JobRecord, tmp_path: Path) -> None:
    """Its texts are those of the run, and so are the arguments."""
    folder = tmp_path / "f"
    (folder / "sub").mkdir(parents=True)
    digests = {}
    for name, content in (("run.sh", b"exit 1\n"), ("sub/data", b"\xff"), ("empty", b"")):
        (folder / name).write_bytes(content)
        digests[name] = hashlib.sha256(content).hexdigest()
    parts = tuple(
        LocalFile(name, digest, "exit 1\n" if name == "run.sh" else "") for name, digest in digests.items()
    )
    file = LocalFile(str(folder), "0" * 12, arguments=("-x", "A=b c"), parts=parts)
    run = run_of(replace(job, files={FAILED.test: file}), FAILED)
    run = replace(run, command="cowbell test APPEND+=quiet -- -x 'A=b c'")
    (folder / "run.sh").unlink()
    (path,) = make_bundles(run, Store(tmp_path / "store"), tmp_path / "evidence")
    members = read_bundle(path)
    assert members["program/f/run.sh"] == b"exit 1\n"
    assert members["program/f/sub/data"] == b"\xff" and members["program/f/empty"] == b""
    words = shlex.split(members["REPLAY"].decode().splitlines()[1])
    assert words[-3:] == ["--", "-x", "A=b c"] and "APPEND+=quiet" in words and f"TESTS={folder}" in words
    again = make_repetition(run, ["demo"], [FAILED.test])
    assert again[-4:] == [f"TESTS={folder}", "--", "-x", "A=b c"]
    assert "A=b c" not in make_repetition(run, ["demo"], ["x.y"])


def test_the_same_bytes_each_time(job: JobRecord, tmp_path: Path) -> None:
    run, store = run_of(job, FAILED), Store(tmp_path / "store")
    (first,) = make_bundles(run, store, tmp_path / "one")
    (second,) = make_bundles(run, store, tmp_path / "two")
    assert first.read_bytes() == second.read_bytes()
    make_bundles(run, store, tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").iterdir()] == [first.name]


def test_what_is_gone_is_listed(job: JobRecord, tmp_path: Path) -> None:
    run = run_of(replace(job, base="1" * 40, commit="2" * 40), FAILED)
    (path,) = make_bundles(run, Store(tmp_path / "store"), tmp_path / "evidence")
    assert read_bundle(path)["MISSING"].decode().split() == [
        "boot/console.log", "boot/qemu.json", "boot/qemu.log", "kernel/build.json", "kernel/config",
        "patches.mbox",
    ]  # fmt: skip


def test_only_trials_that_failed_leave_one(job: JobRecord, tmp_path: Path) -> None:
    trials = (GOOD, replace(FAILED, trial=2), replace(GOOD, trial=3), replace(FAILED, trial=4))
    made = make_bundles(run_of(job, *trials), Store(tmp_path / "store"), tmp_path / "evidence")
    assert [path.name for path in made] == [name_bundle(job, trials[1]), name_bundle(job, trials[3])]
    assert make_bundles(run_of(job, GOOD), Store(tmp_path / "store"), tmp_path / "none") == []
    assert not (tmp_path / "none").exists()


def test_names_stay_in_their_folder(job: JobRecord, tmp_path: Path) -> None:
    selftest = replace(FAILED, test="kselftest/mm/cow")
    (path,) = make_bundles(run_of(job, selftest), Store(tmp_path / "store"), tmp_path / "evidence")
    assert path == tmp_path / "evidence/kselftest-mm-cow.demo.plain.tar.zst"


@pytest.mark.parametrize(
    ("command", "series", "expected"),
    [
        ("cowbell test ROW=demo", "", "cowbell -B test ROW=demo KERNEL=debian-5.10 SERIES=none TESTS=x.y"),
        ("cowbell test", "cow", "cowbell -B test ROW=demo KERNEL=debian-5.10 SERIES=cow TESTS=x.y"),
        (
            "cowbell -C '/a b' test 'KERNEL=/my linux:topic' DIRTY=1 SERIES=cow,/fix.mbox TESTS=*",
            "fix",
            "cowbell -C '/a b' -B test ROW=demo 'KERNEL=/my linux:topic' SERIES=/fix.mbox TESTS=x.y DIRTY=1",
        ),
        (
            "cowbell test 'CONFIG=a b'",
            "",
            "cowbell -B test ROW=demo KERNEL=debian-5.10 SERIES=none TESTS=x.y 'CONFIG=a b'",
        ),
    ],
)
def test_the_command_that_does_it_again(command: str, series: str, expected: str, job: JobRecord) -> None:
    run = replace(make_run(), command=command)
    told = make_command(run, replace(job, series=series), "x.y")
    assert told == expected
    assert shlex.split(told)[0] == "cowbell"


def test_replay_has_the_base_that_a_series_took(job: JobRecord, tmp_path: Path) -> None:
    """KERNEL= alone is the HEAD of the checkout, which is another commit."""
    run = replace(make_run(), command=f"cowbell test KERNEL={tmp_path} SERIES='<a@x.org>'")
    base = "0123456789abcdef"
    job = replace(
        job, tree=f"{name_folder(tmp_path)}:{base[:12]}", origin=str(tmp_path), base=base, series="<a@x.org>"
    )
    told = shlex.split(make_command(run, job, "x.y"))
    assert f"KERNEL={tmp_path}:{base[:12]}" in told
    assert "SERIES=<a@x.org>" in told
    assert f"KERNEL={tmp_path}" in make_command(run, replace(job, tree=name_folder(tmp_path)), "x.y").split()


def test_replay_has_what_the_environment_has_set(tmp_path: Path) -> None:
    """And every CONFIG+=, of which there may be several."""
    (tmp_path / "cowbell.yaml").write_text("LLVM: '-15'\nSIZE: 5G\n")
    with mock.patch.dict(os.environ, {"ARCH": "arm64"}):
        line = read_command_line(
            ["CONFIG+=kasan", "CONFIG+=KSM=y", "KERNEL=x"], load_preferences(tmp_path / "cowbell.yaml")
        )
    command = Call(line, contextlib.ExitStack(), print, len).command
    told = make_command(replace(make_run(), command=command), JOB, "x.y")
    for word in ("ARCH=arm64", "CONFIG+=kasan", "CONFIG+=KSM=y", "LLVM=-15", "KERNEL=x"):
        assert f" {word}" in told
    assert "SIZE=" not in told
