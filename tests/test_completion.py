# SPDX-License-Identifier: GPL-2.0-or-later
"""Tab in a real shell, and the manual page in a real formatter."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pexpect
import pytest

from tests.conftest import ROOT, Mirror, cowbell


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A PATH with the command on it."""
    script = tmp_path / "bin" / "cowbell"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m orchestrator "$@"\n')
    script.chmod(0o755)
    return f"{script.parent}:{os.environ['PATH']}"


@contextmanager
def open_shell(path: str, argv: list[str], setup: str) -> "Iterator[pexpect.spawn[str]]":
    child = pexpect.spawn(
        argv[0], argv[1:], cwd=str(ROOT), encoding="utf-8", timeout=120,
        env=os.environ | {"PATH": path, "PS1": "$ ", "TERM": "dumb"}, dimensions=(24, 200),
    )  # fmt: skip
    child.sendline(setup)
    child.sendline(f'eval "$(cowbell completion {argv[0]})"; echo read""y')
    child.expect("ready")
    child.expect(r"\$ ")
    yield child
    child.close(force=True)


@pytest.fixture
def bash(path: str) -> "Iterator[pexpect.spawn[str]]":
    quiet = "bind 'set bell-style none'; bind 'set completion-query-items 0'; bind 'set page-completions off'"
    with open_shell(path, ["bash", "--norc", "--noprofile", "-i"], quiet) as child:
        yield child


@pytest.fixture
def zsh(path: str) -> "Iterator[pexpect.spawn[str]]":
    load = "unsetopt beep; autoload -Uz compinit; compinit -u -D"
    with open_shell(path, ["zsh", "-f", "-i"], load) as child:
        yield child


TYPED = pytest.mark.parametrize(
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
        ("cowbell help bisect-", "cowbell help bisect-step"),
        ("cowbell gc S", "cowbell gc SIZE="),
    ],
)


def complete_in_fish(typed: str, path: str, home: Path) -> list[str]:
    ask = f"cowbell completion fish | source; complete -C '{typed}'"
    env = os.environ | {"PATH": path, "HOME": str(home)}
    done = subprocess.run(
        ["fish", "-N", "-c", ask], cwd=ROOT, env=env, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


@TYPED
def test_fish_completes(path: str, tmp_path: Path, typed: str, completed: str) -> None:
    assert complete_in_fish(typed, path, tmp_path) == [completed.split()[-1]]


@TYPED
def test_zsh_completes(zsh: "pexpect.spawn[str]", typed: str, completed: str) -> None:
    zsh.send(f"{typed}\t")
    zsh.expect_exact(completed)
    zsh.sendintr()


@TYPED
def test_bash_completes(bash: "pexpect.spawn[str]", typed: str, completed: str) -> None:
    bash.send(f"{typed}\t")
    bash.expect_exact(completed)
    bash.sendintr()


@pytest.fixture
def listed(mirror: Mirror) -> None:
    """The versions are known that the pretended mirror has."""
    assert cowbell("list", "trees", "-v").returncode == 0


VERSION = pytest.mark.parametrize(
    "typed", ["cowbell KERNEL=debian-5.10:", "cowbell KERNEL=debian-5.10:5.10.2"]
)
COMPLETED = "KERNEL=debian-5.10:5.10.226-1"


@VERSION
def test_bash_completes_a_version(listed: None, bash: "pexpect.spawn[str]", typed: str) -> None:
    bash.send(f"{typed}\t")
    bash.expect_exact(COMPLETED)
    bash.sendintr()


@VERSION
def test_zsh_completes_a_version(listed: None, zsh: "pexpect.spawn[str]", typed: str) -> None:
    zsh.send(f"{typed}\t")
    zsh.expect_exact(COMPLETED)
    zsh.sendintr()


@VERSION
def test_fish_completes_a_version(listed: None, path: str, tmp_path: Path, typed: str) -> None:
    assert complete_in_fish(typed, path, tmp_path) == [COMPLETED]


def test_bash_shows_what_there_is_to_choose(bash: "pexpect.spawn[str]") -> None:
    bash.send("cowbell ROW=aarch64\t")
    bash.expect("aarch64-")
    bash.send("\t\t")
    bash.expect("aarch64-4k +ROW=aarch64-64k|aarch64-4k +aarch64-64k")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts_are_of_their_shells(shell: str) -> None:
    done = cowbell("completion", shell)
    assert done.returncode == 0
    subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [(["completion"], "expected bash, zsh, fish"), (["completion", "tcsh"], "there is no tcsh")],
)
def test_other_shells_are_refused(words: list[str], told: str) -> None:
    done = cowbell(*words)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_manual_page(tmp_path: Path) -> None:
    from orchestrator.cli.glossary import EXITS, VERDICTS
    from orchestrator.cli.registry import TARGETS
    from orchestrator.cli.variables import VARIABLES

    page = tmp_path / "cowbell.1"
    page.write_text(cowbell("manpage").stdout)
    done = subprocess.run(
        ["groff", "-man", "-Tascii", "-ww", "-P-cbou", str(page)], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    for name in (*TARGETS, *VARIABLES, *VERDICTS, *map(str, EXITS), "--what-if FILE", "COWBELL_STORE"):
        assert name in done.stdout
