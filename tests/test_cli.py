# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line as it is typed: words, exit status, and everything wrong told at once."""

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, cowbell


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["tset"], ["no target tset; did you mean test?"]),
        (
            ["KERNLE=x", "buld"],
            ["no variable KERNLE; did you mean KERNEL?", "no target buld; did you mean build?"],
        ),
        (
            ["ROW=demmo", "KERNEL=debian-5.1", "TESTS=odirect.rd-mprotct", "SERIES=cwo"],
            ["did you mean demo?", "did you mean debian-5.10?", "odirect.rd-mprotect", "did you mean cow?"],
        ),
        (["ACCEL=hvf"], ["expected auto, kvm or tcg, got hvf"]),
        (["-C", "/nonexistent"], ["/nonexistent", "ci/matrix.yaml"]),
        (["report"], ["there is no run yet"]),
        (["report", "RUN=x"], ["there is no run x"]),
        (["--frobnicate", "--jsn", "tset"], ["--frobnicate", "did you mean --json?", "did you mean test?"]),
        (["-j=x"], ["-j/--jobs: expected a number from 0 to 4096, got x"]),
        (["proof", "ROW=dmo"], ["there is no row dmo; did you mean demo?"]),
        (["history", "ROW=dmo"], ["there is no row dmo; did you mean demo?"]),
        (["history", "RWO=demo"], ["there is no variable RWO; did you mean ROW?"]),
        (
            ["report", "KERNEL=/nonexistent"],
            ["report: does not use KERNEL=", "its variables: RUN, FORMAT, ORIGIN, DIR"],
        ),
        (["test", "ROW=demo", "TESTS=odirect.rd-nonsense"], ["odirect.rd-nonsense"]),
        (["help", "tset"], ["there is no target tset; did you mean test?"]),
        (["bisect", "RESUME=1", "GOOD=a"], ["GOOD: has no effect with RESUME=1"]),
    ],
)
def test_wrong_words_exit_2_and_are_told_at_once(words: list[str], told: list[str]) -> None:
    done = cowbell(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    for text in told:
        assert text in done.stderr


def test_every_fault_of_every_file_at_once(tmp_path: Path) -> None:
    for name in ("ci", "kconfigs", "patches", "guest-tests"):
        shutil.copytree(ROOT / name, tmp_path / name)

    def spoil(path: str, old: str, new: str) -> None:
        file = tmp_path / path
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new, 1))

    spoil("ci/matrix.yaml", "memory: 1G", "memory: 1024")
    spoil("patches/trees.yaml", "suite: trixie ", "siute: trixie ")
    spoil("kconfigs/cow.config", "CONFIG_SWAP=y", "CONFIG_SWAP")
    spoil("guest-tests/odirect/rd-control.c", ".kind ", ".knid ")
    line = (tmp_path / "patches/trees.yaml").read_text().partition("siute")[0].count("\n") + 1
    done = cowbell(cwd=tmp_path)
    assert done.returncode == 2
    for text in ("matrix.yaml:10", f"trees.yaml:{line}", "cow.config:", "rd-control.c:"):
        assert text in done.stderr


def test_environment_is_taken_and_the_command_line_wins() -> None:
    told = json.loads(cowbell("-p", "--json", "ROW=a", ROW="b", KERNEL="c").stdout)["variables"]
    assert told["ROW"] == {"value": "a", "origin": "command line"}
    assert told["KERNEL"] == {"value": "c", "origin": "environment"}
    assert told["ACCEL"] == {"value": "auto", "origin": "default"}


def test_words_of_other_tools_are_not_taken_from_the_environment() -> None:
    told = json.loads(cowbell("-p", "--json", CC="tcc", SIZE="1", DIR="/").stdout)["variables"]
    assert {told[name]["origin"] for name in ("CC", "SIZE", "DIR")} == {"default"}


def test_some_targets_are_done_alone() -> None:
    done = cowbell("gc", "series", "test")
    assert done.returncode == 2
    for target in ("gc", "series"):
        assert f"{target}: cannot be combined with other targets" in done.stderr


def test_list_names_what_there_is() -> None:
    told = json.loads(cowbell("list", "--json").stdout)
    assert "demo" in told["rows"]
    assert "debian-5.10" in told["trees"]
    assert "cow" in told["series"]
    assert "odirect.rd-mprotect" in told["tests"]


def test_dry_run_does_nothing(tmp_path: Path) -> None:
    store = tmp_path / "empty"
    done = cowbell("-n", "--json", "ROW=demo", COWBELL_STORE=str(store))
    assert done.returncode == 0
    stages = [step["stage"] for step in json.loads(done.stdout)["steps"]]
    assert stages[:6] == ["source", "source", "config", "build", "rootfs", "run"]
    assert "has not been fetched" in done.stdout
    assert not list(store.glob("kernels/*"))
    assert not list(store.glob("trees/*"))


def test_unwritable_store_is_the_hosts_trouble(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = cowbell("-n", "ROW=demo", COWBELL_STORE=str(file / "store"))
    assert done.returncode == 3
    assert str(file) in done.stderr
