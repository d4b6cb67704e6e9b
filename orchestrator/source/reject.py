# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains why a patch does not apply: rejected hunks, the nearest code, or already applied."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.source.mail import read_subject
from orchestrator.source.patch import Hunk, parse_hunks
from orchestrator.source.repository import git

_SHOWN_LINES = 60
_LOG_LIMIT_S = 20


@dataclass(frozen=True, slots=True)
class Reject:
    """``where`` is ``file:line`` in the tree. ``present_as`` names the commit or place of a patch that is
    already in the tree.
    """

    where: str
    text: str
    present_as: str = ""


def explain_reject(place: Path, mail: Path, history: Sequence[tuple[Path, str]]) -> Reject:
    """Why a patch does not apply to the HEAD of a worktree, which is reset to HEAD.

    ``history`` are repositories and commits that are searched for a commit of the same title.
    """
    git(place, "reset", "-q", "--hard")
    hunks = parse_hunks(mail.read_bytes())
    if git(place, "apply", "--check", "--reverse", str(mail), check=False).returncode == 0:
        first = next((hunk for listed in hunks.values() for hunk in listed), None)
        spot = _find_place(place, first) if first else ""
        return Reject(
            spot, "", _find_in_history(read_subject(mail), history) or spot or "every file it touches"
        )
    tried = git(place, "apply", "--reject", "--verbose", str(mail), check=False).output
    git(place, "reset", "-q", "--hard")
    git(place, "clean", "-q", "-ffdx")
    return _describe_rejects(place, hunks, tried)


def _describe_rejects(place: Path, hunks: dict[str, list[Hunk]], tried: str) -> Reject:
    """Parse the output of ``git apply --reject --verbose``."""
    where: list[str] = []
    parts: list[str] = []
    file = ""
    for line in tried.splitlines():
        if match := re.match(r"Applying patch (\S+) with \d+ reject", line):
            file = match[1]
        elif (match := re.match(r"Rejected hunk #(\d+)\.", line)) and len(hunks.get(file, ())) >= int(
            match[1]
        ):
            hunk = hunks[file][int(match[1]) - 1]
            spot, nearest = _show_nearest(_read_lines(place, file), hunk)
            where.append(f"{file}:{spot}")
            parts.append(f"{file}: hunk {match[1]} of {len(hunks[file])} is rejected:")
            parts += _indent([hunk.header, *hunk.text])
            parts += nearest
        elif match := re.match(r"error: (\S+): (No such file|already exists|does not exist)", line):
            where.append(match[1])
            parts.append(f"{match[1]}: {_explain_missing(place, match[1], match[2])}")
    if not parts:
        parts = ["output of git:", *_indent(tried.splitlines()[-_SHOWN_LINES:])]
    return Reject(where[0] if where else "", "\n".join(parts))


def _explain_missing(place: Path, file: str, message: str) -> str:
    if message == "already exists":
        return "the patch creates this file, but it exists in the tree"
    moved = git(place, "ls-files", f":(glob)**/{Path(file).name}", check=False).output.splitlines()
    near = (
        f"; there is {', '.join(moved[:3])}"
        if moved and Path(file).name not in ("Makefile", "Kconfig")
        else ""
    )
    return f"is not in the tree{near}"


def _show_nearest(lines: Sequence[str], hunk: Hunk) -> tuple[int, list[str]]:
    """The place in a file that is most similar to the lines a hunk expects: its line and its text."""
    expected = [text[1:] for text in hunk.text if text[:1] in (" ", "-", "")]
    start = _find_nearest(lines, expected, hunk.line)
    if start is None:
        return hunk.line, ["    nothing in the file resembles the expected lines"]
    found = lines[start : start + len(expected)]
    matcher = SequenceMatcher(None, expected, found, autojunk=False)
    same = {b + i for _, b, size in matcher.get_matching_blocks() for i in range(size)}
    shown = [
        f"{start + i + 1:6} {' ' if i in same else '>'} {line}" for i, line in enumerate(found[:_SHOWN_LINES])
    ]
    agree = f"{len(same)} of {len(expected)} lines match, '>' marks the others"
    return start + 1, [f"  nearest in the tree, {hunk.file}:{start + 1}: {agree}", *shown]


def _find_nearest(lines: Sequence[str], expected: Sequence[str], near: int) -> int | None:
    """The 0-based index of the most similar block: each line votes for a start, rare lines count more."""
    counts = Counter(lines)
    places: dict[str, list[int]] = {}
    wanted = set(expected)
    for i, line in enumerate(lines):
        if line in wanted and line.strip():
            places.setdefault(line, []).append(i)
    votes: dict[int, float] = {}
    for offset, line in enumerate(expected):
        for i in places.get(line, ()):
            start = max(0, i - offset)
            votes[start] = votes.get(start, 0.0) + 1 / counts[line]
    if not votes:
        return None
    return max(votes, key=lambda start: (round(votes[start], 6), -abs(start + 1 - near)))


def _find_place(place: Path, hunk: Hunk) -> str:
    """The place in the tree of the lines that a hunk adds."""
    added = [text[1:] for text in hunk.text if text[:1] in (" ", "+", "")]
    start = _find_nearest(_read_lines(place, hunk.file), added, hunk.line)
    return hunk.file if start is None else f"{hunk.file}:{start + 1}"


def _read_lines(place: Path, file: str) -> list[str]:
    path = place / file
    return path.read_text(errors="replace").splitlines() if path.is_file() else []


def _find_in_history(subject: str, history: Sequence[tuple[Path, str]]) -> str:
    """The commit with this title in the available history, or an empty string."""
    for repo, commit in history:
        words = ("log", "-1", '--format=%h ("%s")', "--fixed-strings", f"--grep={subject}", commit)
        try:
            found = git(repo, *words, check=False, limit_s=_LOG_LIMIT_S)
        except InfraError:
            continue
        if found.returncode == 0 and found.output:
            return found.output
    return ""


def _indent(lines: Sequence[str]) -> list[str]:
    shown = [f"    {line}" for line in lines[:_SHOWN_LINES]]
    return shown + ([f"    ... {len(lines) - _SHOWN_LINES} more lines"] if len(lines) > _SHOWN_LINES else [])
