# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and checks a single patch, and exports a commit as a patch."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.source.repository import git

_SUBJECT = re.compile(rb"^Subject: *((?:.*\n)(?:[ \t].*\n)*)", re.M)
_TAG = re.compile(r"^(?:\s*\[[^]]*\])+\s*")
_HUNK = re.compile(rb"@@ -(\d+)(?:,(\d+))? \+\d+(?:,(\d+))? @@")
_DIFF = re.compile(rb"^(?:diff --git |--- )", re.M)


@dataclass(frozen=True, slots=True)
class Hunk:
    """One ``@@`` of a patch: file, line number, header, and lines with their signs."""

    file: str
    line: int
    header: str
    text: tuple[str, ...]


def make_mail(mail: bytes, title: str) -> bytes:
    """Add mail headers for ``git am`` to a plain diff; text before the diff becomes the description."""
    if _SUBJECT.search(mail.split(b"\ndiff --git ")[0]):
        return mail
    found = _DIFF.search(mail)
    about, diff = (mail[: found.start()], mail[found.start() :]) if found else (b"", mail)
    head = f"From: Cowbell <cowbell>\nDate: Sun, 9 Sep 2001 01:46:40 +0000\nSubject: [PATCH] {title}\n\n"
    return head.encode() + about + b"\n---\n" + diff


def read_subject(path: Path) -> str:
    """The title of a patch without its ``[PATCH n/m]``, or the name of its file."""
    return parse_subject(path.read_bytes()) or path.name


def parse_subject(mail: bytes, *, keep_tags: bool = False) -> str:
    """The subject of a mail in one line, empty if it has none."""
    match = _SUBJECT.search(mail)
    text = " ".join(match[1].decode(errors="replace").split()) if match else ""
    return text if keep_tags else _TAG.sub("", text)


def has_diff(mail: bytes) -> bool:
    return bool(_DIFF.search(mail))


def check_patch(path: Path) -> list[UsageError]:
    """Check a patch for damage; returns errors with file and line."""
    return check_mail(path.read_bytes(), str(path), 1)


def check_mail(mail: bytes, where: str, first: int) -> list[UsageError]:
    """Like ``check_patch``, for a mail that starts at line ``first`` of a file."""
    if mail.strip() and not mail.endswith(b"\n"):
        last = first + mail.count(b"\n")
        return [UsageError("ends in the middle of a line: truncated?", where=f"{where}:{last}")]
    lines = mail.split(b"\n")[:-1]
    marks = (b"diff --git ", b"--- a/", b"+++ b/", b"@@ -", b"Subject:", b"From ")
    first_crlf = next(
        (n for n, line in enumerate(lines) if line.endswith(b"\r") and line.startswith(marks)), None
    )
    if first_crlf is not None:
        hint = "convert it with dos2unix"
        return [UsageError("has CRLF line endings", where=f"{where}:{first + first_crlf}", hint=hint)]
    hunks = 0
    for number, line in enumerate(lines):
        if not (match := _HUNK.match(line)):
            continue
        hunks += 1
        old, new = int(match[2] or 1), int(match[3] or 1)
        got = list(_read_hunk(lines, number + 1, old, new))
        if sum(text[:1] != b"+" for text in got) < old or sum(text[:1] != b"-" for text in got) < new:
            what = (
                f"this hunk is shorter than its header says ({len(got)} lines): truncated or edited by hand?"
            )
            return [UsageError(what, where=f"{where}:{first + number}")]
    if not hunks and not re.search(
        rb"^(?:GIT binary patch|(?:old|new|deleted file) mode|rename from)", mail, re.M
    ):
        return [UsageError("contains no diff", where=f"{where}:{first}")]
    return []


def parse_hunks(patch: bytes) -> dict[str, list[Hunk]]:
    """Hunks by file, in order; the patch must be valid (``check_patch``)."""
    hunks: dict[str, list[Hunk]] = {}
    lines = patch.split(b"\n")
    file = ""
    for number, line in enumerate(lines):
        if line.startswith((b"--- a/", b"+++ b/")):
            file = line[6:].split(b"\t")[0].decode(errors="replace")
        elif file and (match := _HUNK.match(line)):
            text = _read_hunk(lines, number + 1, int(match[2] or 1), int(match[3] or 1))
            decoded = tuple(part.decode(errors="replace") for part in text)
            hunks.setdefault(file, []).append(
                Hunk(file, int(match[1]), line.decode(errors="replace"), decoded)
            )
    return hunks


def _read_hunk(lines: Sequence[bytes], start: int, old: int, new: int) -> Iterator[bytes]:
    """The lines of a hunk, at most as many as its header says."""
    for number, line in enumerate(lines[start:], start):
        # the signature of a mail looks like a removed line
        if (old <= 0 and new <= 0) or (line == b"-- " and len(lines) - number <= 4):
            return
        sign = line[:1] or b" "
        if sign not in b" +-\\":
            return
        old -= sign in b" -"
        new -= sign in b" +"
        yield line


def export_commit(repo: Path, commit: str, folder: Path, number: int) -> Path:
    """Write a commit as a patch. The bytes do not depend on the version and configuration of git."""
    # exclude the git version, abbreviations that depend on the repository, and user configuration
    stable = (
        "--zero-commit",
        "--no-signature",
        "--full-index",
        "--no-renames",
        "--binary",
        "-N",
    )
    fixed = ("--diff-algorithm=myers", "--no-ext-diff", "--no-textconv", "--src-prefix=a/", "--dst-prefix=b/")
    numbered = ("--filename-max-length=100", f"--start-number={number}", "-o", str(folder), "-1", commit)
    git(repo, "format-patch", "-q", *stable, *fixed, *numbered)
    return next(folder.glob(f"{number:04}-*"))
