# SPDX-License-Identifier: GPL-2.0-or-later
"""Tab in a real shell, and the manual page in a real formatter."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.test_cli import cowbell

ROOT = Path(__file__).parents[1]


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the command on it."""
    script = tmp_path / "bin" / "cowbell"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m orchestrator "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


@pytest.fixture
def bash(path: str) -> "Iterator[pexpect.spawn[str]]":
    child = pexpect.spawn(
        "bash", ["--norc", "--noprofile", "-i"], cwd=str(ROOT), encoding="utf-8", timeout=30,
        env=os.environ | {"PATH": path, "PS1": "$ ", "TERM": "dumb"}, dimensions=(24, 200),
    )  # fmt: skip
    child.sendline(
        "bind 'set bell-style none'; bind 'set completion-query-items 0'; bind 'set page-completions off'"
    )
    child.sendline('eval "$(cowbell completion bash)"; echo read""y')
    child.expect("ready")
    child.expect(r"\$ ")
    yield child
    child.close(force=True)


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("cowbell bui", "cowbell build "),
        ("cowbell KERN", "cowbell KERNEL="),
        ("cowbell test ROW=dem", "cowbell test ROW=demo"),
        ("cowbell test ROW=demo,x86_64-ra", "cowbell test ROW=demo,x86_64-raid5"),
        ("cowbell KERNEL=debian-5", "cowbell KERNEL=debian-5.10"),
        ("cowbell TESTS=odirect.rd-mp", "cowbell TESTS=odirect.rd-mprotect"),
        ("cowbell test CONFIG=base,kas", "cowbell test CONFIG=base,kasan"),
        ("cowbell ACCEL=t", "cowbell ACCEL=tcg"),
        ("cowbell --keep", "cowbell --keep-going"),
        ("cowbell explain odirect.rd-ma", "cowbell explain odirect.rd-madvfree"),
        ("cowbell list fr", "cowbell list fragments"),
        ("cowbell completion f", "cowbell completion fish"),
    ],
)
def test_bash_completes(bash: "pexpect.spawn[str]", typed: str, completed: str) -> None:
    bash.send(f"{typed}\t")
    bash.expect_exact(completed)
    bash.sendintr()


def test_bash_shows_what_there_is_to_choose(bash: "pexpect.spawn[str]") -> None:
    bash.send("cowbell ROW=aarch64\t")
    bash.expect("aarch64-")
    bash.send("\t\t")
    bash.expect("aarch64-4k +ROW=aarch64-64k|aarch64-4k +aarch64-64k")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_of_their_shells(shell: str) -> None:
    done = cowbell("completion", shell)
    assert done.returncode == 0
    if interpreter := shutil.which(shell):
        subprocess.run([interpreter, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["completion"], "expected bash, zsh, fish"), (["completion", "tcsh"], "there is no tcsh")],
)
def test_other_shells_are_refused(words: list[str], told: str) -> None:
    done = cowbell(*words)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_manual_page(tmp_path: Path) -> None:
    from orchestrator.glossary import EXITS, VERDICTS
    from orchestrator.grammar import TARGETS, VARIABLES

    page = tmp_path / "cowbell.1"
    page.write_text(cowbell("manpage").stdout)
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-cbou", str(page)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for name in (*TARGETS, *VARIABLES, *VERDICTS, *map(str, EXITS), "--what-if FILE", "COWBELL_STORE"):
        assert name in done.stdout
