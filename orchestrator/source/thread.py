# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the patches of a mail thread: an mbox, a patch, or the files of git format-patch, in any order."""

import gzip
import lzma
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.source.mail import (
    clean_title,
    has_diff,
    is_reply,
    parse_numbering,
    parse_subject,
    split_mbox,
)
from orchestrator.source.patch import check_mail

# a thread of 1,000 mails is about 10 MiB
_LIMIT = 256 << 20


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail of a thread: its place, and whether it is a patch, and which."""

    file: Path
    line: int
    data: bytes

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"

    @property
    def subject(self) -> str:
        return parse_subject(self.data)


def find_patches(path: Path, data: bytes | None = None) -> tuple[list[Mail], list[Mail]]:
    """All mails of a file, or of the files of a folder, and those that are patches, in their order.

    ``data`` is the content of the file. Raises all errors at once as ``UsageError``.
    """
    files = sorted(_list_patches(path)) if data is None and path.is_dir() else [path]
    if not files:
        what = "has neither a series file nor patches (*.patch, *.diff, *.eml, *.mbox)"
        raise UsageError(what, where=str(path))
    texts = [_read(file) if data is None else data for file in files]
    found = [
        Mail(file, line, mail)
        for file, text in zip(files, texts, strict=True)
        for line, mail in split_mbox(text)
    ]
    errors: list[UsageError] = []
    try:
        mails = found if len(found) == 1 else _order_mails(path, found, errors)
    except UsageError as error:
        raise UsageError(error.what, where=error.where or str(path), hint=error.hint) from None
    if not mails and not errors:
        errors.append(UsageError("contains no patch", where=str(path)))
    for mail in mails:
        errors += check_mail(mail.data, str(mail.file), mail.line)
    raise_all(errors)
    return found, mails


def is_file(path: Path) -> bool:
    """Whether there is such a file; a name that no file can have is none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def _list_patches(folder: Path) -> list[Path]:
    names = (".patch", ".diff", ".eml", ".mbox", ".mbx")
    return [path for path in folder.iterdir() if path.suffix in names and is_file(path)]


def _read(path: Path) -> bytes:
    """A file, unpacked if it is compressed."""
    if not is_file(path):
        raise UsageError("there is no such series, mbox or patch", where=str(path))
    try:
        with path.open("rb") as file:
            head = file.read(6)
        if head.startswith(b"\x1f\x8b"):
            with gzip.open(path) as packed:
                data = packed.read(_LIMIT + 1)
        elif head == b"\xfd7zXZ\0":
            with lzma.open(path) as packed:
                data = packed.read(_LIMIT + 1)
        else:
            with path.open("rb") as file:
                data = file.read(_LIMIT + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from None
    if len(data) > _LIMIT:
        raise UsageError(f"has more than {_LIMIT >> 20} MiB: that is no series", where=str(path))
    return data


def _order_mails(path: Path, mails: Sequence[Mail], errors: list[UsageError]) -> list[Mail]:
    """The patches of a thread in order; checks that it is complete and has one version.

    Patches without a number keep their place before or after the others.
    """
    numbered: dict[int, Mail] = {}
    before: list[Mail] = []
    after: list[Mail] = []
    totals: dict[tuple[int, int], Mail] = {}
    versions: dict[str, int] = {}
    for mail in mails:
        try:
            tag = parse_numbering(mail.subject)
            is_cover = tag.total > 0 and tag.number == 0
            if is_cover or is_reply(mail.data):
                continue
            is_patch = has_diff(mail.data)
        except UsageError as error:
            errors.append(UsageError(error.what, where=mail.where, hint=error.hint))
            continue
        if not is_patch:
            if tag.number or tag.is_patch:
                what = f"is a mail without a patch: {mail.subject}"
                hint = "b4 am makes an mbox with the patches only"
                errors.append(UsageError(what, where=mail.where, hint=hint))
        elif versions.setdefault(clean_title(mail.subject), tag.version) != tag.version and not tag.number:
            errors.append(UsageError(f"is another version of {clean_title(mail.subject)}", where=mail.where))
        elif not tag.number:
            (after if numbered else before).append(mail)
        elif tag.number in numbered and (tag.version, tag.total) in totals:
            errors.append(UsageError(f"patch {tag.number}/{tag.total} occurs twice", where=mail.where))
        else:
            numbered[tag.number] = mail
            totals.setdefault((tag.version, tag.total), mail)
    if len(totals) > 1:
        found = ", ".join(f"v{version} of {total}" for version, total in totals)
        last = list(totals.values())[-1]
        hint = "b4 am takes one version of a thread; or delete the mails of the others"
        errors.append(UsageError(f"mixes several series: {found}", where=last.where, hint=hint))
    elif totals:
        ((_, total),) = totals
        if lacking := [str(n) for n in range(1, total + 1) if n not in numbered]:
            shown = ", ".join(lacking[:10]) + (" ..." if lacking[10:] else "")
            errors.append(UsageError(f"lacks patch {shown} of {total}", where=str(path)))
    return [*before, *(numbered[n] for n in sorted(numbered)), *after]
