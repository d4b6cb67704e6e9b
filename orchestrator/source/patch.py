# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and checks a single patch, and exports a commit as a patch."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.source.mail import decode_mail, split_mbox
from orchestrator.source.repository import git

_TORN = "ends in the middle of a line: truncated?"
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+\d{1,9}(?:,(\d{1,9}))? @@")
# what git apply takes for a change without hunks
_NO_HUNKS = re.compile(rb"(?:GIT binary patch|(?:old|new|new file|deleted file) mode|(?:rename|copy) from)\b")


@dataclass(frozen=True, slots=True)
class Hunk:
    """One ``@@`` of a patch: file, line number, header, and lines with their signs."""

    file: str
    line: int
    header: str
    text: tuple[str, ...]


def check_patch(path: Path) -> list[UsageError]:
    """Check the file of a patch: whether it can be read, has one mail and is whole."""
    try:
        data = path.read_bytes()
    except OSError as error:
        return [UsageError(f"cannot be read: {error.strerror}", where=str(path))]
    if len(mails := split_mbox(data)) > 1:
        return [
            UsageError(
                f"has {len(mails)} mails, and a patch of a series is one",
                where=f"{path}:{mails[1][0]}",
                hint=f"split it: git mailsplit -d4 -o. {path.name}; or give the mbox itself to SERIES=",
            )
        ]
    return check_mail(data, str(path), 1)


def check_mail(data: bytes, where: str, first: int) -> list[UsageError]:
    """Check a mail that starts at line ``first`` of a file for damage; returns errors with file and line."""
    try:
        mail = decode_mail(data)
    except UsageError as error:
        return [UsageError(error.what, where=f"{where}:{first}", hint=error.hint)]
    text = mail.body
    # of a mail that git has decoded, the lines are not those of the file
    skipped = (
        None if mail.shift is None else mail.shift + mail.text[: len(mail.text) - len(text)].count(b"\n")
    )

    def refuse(what: str, number: int) -> list[UsageError]:
        return [UsageError(what, where=f"{where}:{first if skipped is None else first + skipped + number}")]

    lines = text.split(b"\n")
    hunks = list(_list_hunks(lines))
    end = 0
    for at, (_, old, new), got in hunks:
        end = at + 1 + len(got)
        more_old = sum(part[:1] not in (b"+", b"\\") for part in got) - old
        more_new = sum(part[:1] not in (b"-", b"\\") for part in got) - new
        if end >= len(lines):
            return refuse(_TORN, len(lines) - 1)
        if min(more_old, more_new) < 0:
            what = f"this hunk is shorter than its header says ({len(got)} lines)"
            return refuse(f"{what}: truncated or edited by hand?", at)
        is_more = lines[end][:1] in (b"+", b"-") and not lines[end].startswith((b"--", b"++"))
        if is_more or more_old or more_new:
            return refuse("this hunk is longer than its header says: edited by hand?", at)
    # a signature may end so
    if not end and text.strip() and not text.endswith(b"\n") and b"\n-- \n" not in text:
        return refuse(_TORN, len(lines) - 1)
    starts = [number for number, line in enumerate(lines) if line.startswith(b"diff --git ")]
    for start, stop in itertools.pairwise([*starts, len(lines)]):
        if not any(start < at < stop for at, _, _ in hunks) and not _has_change(lines[start:stop]):
            return refuse("this diff has no change: truncated?", start)
    if not end and not starts:
        return [UsageError("contains no diff", where=f"{where}:{first}")]
    return []


def _has_change(lines: Sequence[bytes]) -> bool:
    """Whether a file's part of a diff without hunks is a change: of a mode, a name, an empty file."""
    if any(line.startswith(b"+++ ") for line in lines):
        return False
    is_empty = any(re.match(rb"index \w+\.\.(?:e69de29|473a0f4)", line) for line in lines)
    is_new = any(line.startswith(b"new file mode") for line in lines)
    is_binary = b"GIT binary patch" in lines
    if is_new and not is_empty and not is_binary and any(line.startswith(b"index ") for line in lines):
        return False
    return any(_NO_HUNKS.match(line) for line in lines)


def parse_hunks(patch: bytes) -> dict[str, list[Hunk]]:
    """Hunks by file, in order; the patch must be valid (``check_patch``)."""
    hunks: dict[str, list[Hunk]] = {}
    lines = patch.split(b"\n")
    for at, (file, _, _), text in _list_hunks(lines):
        match = _HUNK.match(lines[at])
        decoded = tuple(part.decode(errors="replace") for part in text)
        line = int(match[1]) if match else 0
        hunks.setdefault(file, []).append(Hunk(file, line, lines[at].decode(errors="replace"), decoded))
    return hunks


def find_tail(patch: bytes) -> bytes:
    """The signature after the last hunk, and what follows it."""
    lines = patch.split(b"\n")
    ends = [at + 1 + len(text) for at, _, text in _list_hunks(lines)]
    tail = b"\n".join(lines[ends[-1] :]) if ends else b""
    return tail if tail.startswith(b"-- \n") else b""


def _list_hunks(lines: Sequence[bytes]) -> Iterator[tuple[int, tuple[str, int, int], list[bytes]]]:
    """The hunks, each with its line, file and sizes, and its lines: those after the names of a file only.

    A message may quote the rest.
    """
    at = 1
    while at < len(lines):
        names = lines[at - 1], lines[at]
        at += 1
        if not (names[0].startswith(b"--- ") and names[1].startswith(b"+++ ")):
            continue
        old_name, new_name = (name[4:].split(b"\t")[0].rstrip() for name in names)
        name = old_name if new_name == b"/dev/null" else new_name
        file = (name[2:] if name.startswith((b"a/", b"b/")) else name).decode(errors="replace")
        while at < len(lines) and (match := _HUNK.match(lines[at])):
            old, new = int(match[2] or 1), int(match[3] or 1)
            text = list(_read_hunk(lines, at + 1, old, new))
            yield at, (file, old, new), text
            at += 1 + len(text)


def _read_hunk(lines: Sequence[bytes], start: int, old: int, new: int) -> Iterator[bytes]:
    """The lines of a hunk, at most as many as its header says, and the marks of a missing last newline."""
    for number in range(start, len(lines)):
        line = lines[number]
        sign = line[:1]
        if sign == b"\\":
            yield line
            continue
        # the signature of a mail looks like a removed line
        if (old <= 0 and new <= 0) or (line == b"-- " and len(lines) - number <= 4):
            return
        # a mailer may cut the blank of an empty line; the end of the text is no line
        if sign not in (b" ", b"+", b"-") and (line or number == len(lines) - 1):
            return
        old -= sign != b"+"
        new -= sign != b"-"
        yield line


def export_commit(repo: Path, commit: str, folder: Path, number: int) -> Path:
    """Write a commit as a patch. The bytes do not depend on the version and configuration of git."""
    # exclude the git version, abbreviations that depend on the repository, and the repository's configuration
    own = {
        "diff.noprefix": "false",
        "diff.mnemonicPrefix": "false",
        "diff.suppressBlankEmpty": "false",
        "diff.interHunkContext": "0",
        "diff.indentHeuristic": "true",
        "format.suffix": ".patch",
        "i18n.logOutputEncoding": "UTF-8",
        "log.mailmap": "false",
        "core.quotePath": "true",
    }
    config = [word for key, value in own.items() for word in ("-c", f"{key}={value}")]
    mail = ("--no-cover-letter", "--no-base", "--no-thread", "--no-attach", "--no-to", "--no-cc", "--no-from")
    more = (
        "--no-signoff",
        "--no-notes",
        "--no-add-header",
        "--encode-email-headers",
        "--subject-prefix=PATCH",
    )
    stable = (
        "--zero-commit",
        "--no-signature",
        "--full-index",
        "--no-renames",
        "--binary",
        "-N",
    )
    fixed = (
        "--unified=3",
        "-O/dev/null",
        "--diff-algorithm=myers",
        "--no-ext-diff",
        "--no-textconv",
        "--src-prefix=a/",
        "--dst-prefix=b/",
    )
    numbered = ("--filename-max-length=100", f"--start-number={number}", "-o", str(folder), "-1", commit)
    git(repo, *config, "format-patch", "-q", *mail, *more, *stable, *fixed, *numbered)
    return next(folder.glob(f"{number:04}-*"))
