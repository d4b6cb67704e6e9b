# SPDX-License-Identifier: GPL-2.0-or-later
"""Selects the next commit of a bisection with ``git bisect``.

``git bisect`` runs in a repository without files that borrows the objects of another one, so its refs and its
log are available to users: ``git -C PLACE bisect log``.
"""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from orchestrator.bisect.answer import Answer
from orchestrator.errors import InfraError, UsageError
from orchestrator.source.repository import git

_FOUND = re.compile(r"^([0-9a-f]{40}) is the first \S+ commit$", re.M)
_SUSPECTS = re.compile(r"^The first \S+ commit could be any of:\n((?:[0-9a-f]{40}\n)+)", re.M)
_LEFT = re.compile(r"^Bisecting: (\d+) revisions? left to test after this \(roughly (\d+) steps?\)", re.M)


class Find(StrEnum):
    """Which change to find: the one that broke the test, or the one that fixed it."""

    BREAK = "break"
    FIX = "fix"

    @property
    def terms(self) -> tuple[str, str]:
        """git's terms for the old and the new state; git accepts "good" only for the old one."""
        return ("good", "bad") if self is Find.BREAK else ("broken", "fixed")

    @property
    def ends(self) -> tuple[Answer, Answer]:
        """The answers at the old end and at the new end."""
        return (Answer.GOOD, Answer.BAD) if self is Find.BREAK else (Answer.BAD, Answer.GOOD)


@dataclass(frozen=True, slots=True)
class BisectState:
    """The state of a bisection: the next commit to test, or the result.

    ``suspects`` is the commit that was found, or all candidates left by skipped commits, newest first.
    ``steps`` is roughly the number of steps left after this one.
    """

    next: str = ""
    suspects: tuple[str, ...] = ()
    steps: int = 0


def start(place: Path, borrowed: Path, old: str, new: str, paths: Sequence[str], find: Find) -> BisectState:
    """Start a bisection in a new repository that borrows the objects of the git directory ``borrowed``.

    Replaces the folder.
    """
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    git(place, "init", "-q", "--bare", ".")
    (place / "objects/info/alternates").write_text(f"{borrowed / 'objects'}\n")
    if (borrowed / "shallow").is_file():
        shutil.copyfile(borrowed / "shallow", place / "shallow")
    git(place, "update-ref", "--no-deref", "HEAD", old)
    term_old, term_new = find.terms
    words = ("--no-checkout", f"--term-old={term_old}", f"--term-new={term_new}")
    return _bisect(place, "start", *words, new, old, *(("--", *paths) if paths else ()))


def add_answer(place: Path, find: Find, commit: str, answer: Answer) -> BisectState:
    """Record the answer for a commit; returns the new state."""
    words = {**dict(zip(find.ends, find.terms, strict=True)), Answer.SKIP: "skip"}
    return _bisect(place, words[answer], commit)


def read_log(place: Path) -> str:
    return git(place, "bisect", "log").output + "\n"


def find_parent(place: Path, commit: str) -> str:
    """The first parent."""
    return git(place, "rev-parse", f"{commit}^").output


def _bisect(place: Path, *words: str) -> BisectState:
    done = git(place, "bisect", *words, check=False)
    output = f"{done.output}\n"
    if found := _FOUND.search(output):
        return BisectState(suspects=(found[1],))
    if left := _SUSPECTS.search(output):
        return BisectState(suspects=tuple(left[1].split()))
    if re.search(r"^The merge base \w+ is ", output, re.M):
        raise UsageError(
            "neither end is an ancestor of the other, and their merge base gives the same result as the new "
            "end",
            where="GOOD, BAD",
            hint="choose an older end, or set FIND= to search for the opposite change",
        )
    if done.returncode:
        raise InfraError(f"git bisect {words[0]} failed", where=str(place), hint=done.output)
    counts = _LEFT.search(output)
    commit = git(place, "rev-parse", "--verify", "BISECT_HEAD").output
    return BisectState(commit, (), int(counts[2]) if counts else 0)
