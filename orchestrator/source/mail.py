# SPDX-License-Identifier: GPL-2.0-or-later
"""Splits an mbox into mails, and makes of each the plain mail that ``git am`` applies.

git decodes every mail that is not plain text: base64, quoted-printable, several parts, encoded headers.
"""

import email.utils
import functools
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.source.repository import git

_DATE = "Sun, 9 Sep 2001 01:46:40 +0000"
_AUTHOR = "Cowbell <cowbell>"
# as git mailsplit finds them, and with a header after them: text may contain the line
_FROM_LINE = re.compile(rb"^From [^\n]*\n(?=[!-9;-~]+:)", re.M)
_TIME = re.compile(rb"\d:\d\d:\d\d +(?:[^\s\d]\S* +)?\d{4}\b")
_HEADERS = re.compile(rb"(?:[!-9;-~]+:[^\n]*(?:\n|\Z)(?:[ \t][^\n]*(?:\n|\Z))*)*")
_FIELD = re.compile(rb"([!-9;-~]+):[ \t]*((?:[^\n]*(?:\n|\Z))(?:[ \t][^\n]*(?:\n|\Z))*)")
_DIFF = re.compile(rb"^(?:diff --git \S|--- \S[^\n]*\n\+\+\+ \S[^\n]*\n@@ -)", re.M)
_ADDRESS = re.compile(r"[^<>]*<[^<>\s]+>[^<>]*|[^<>@\s]+@[^<>@\s]+")
# what git am removes from the front of a title
_TAGS = re.compile(r"(?:[rR][eE]:|[ \t:]|\[[^\]]*\])*")
# as b4: the prefixes of mail programs, and any other short word before the tags
_REPLY = re.compile(r"\s*(?:(?:re|aw|sv|fwd?|antw)\s*(?:\[\d+\])?\s*:|\w{2,3}:\s*\[)", re.I)
_LEADING = re.compile(r"(?:\s*\[[^\]]*\])*")
_NUMBER = re.compile(r"(?<![\d.])([0-9]{1,4})\s*/\s*([0-9]{1,4})(?!\d)")
_VERSION = re.compile(r"(?:\b|PATCH)v([0-9]{1,4})\b(?![.\d])", re.I)
_BASE = re.compile(rb"^base-commit: ([0-9a-f]{40}(?:[0-9a-f]{24})?)\s*$", re.M)
_NEEDED = re.compile(rb"^prerequisite-patch-id: ([0-9a-f]{40})\s*$", re.M)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A mail in plain UTF-8 text. ``shift`` is the number of lines that are left out before ``body``, None
    if git has decoded the mail, whose lines are others then. Without headers it is a mere diff.
    """

    headers: dict[str, str]
    body: bytes
    shift: int | None
    text: bytes

    @property
    def is_complete(self) -> bool:
        """Whether git am takes it as it is; it wants an author, a valid date and a title."""
        date = self.headers.get("date", "")
        author = self.headers.get("from", "")
        return bool(
            self.shift is not None
            and clean_title(self.headers.get("subject", ""))
            and _ADDRESS.fullmatch(author)
            and email.utils.parsedate_tz(date)
        )


@dataclass(frozen=True, slots=True)
class Numbering:
    """The tags before a title: ``[PATCH v2 1/3]``. Without a number it is 0 of 0."""

    number: int = 0
    total: int = 0
    version: int = 1
    is_patch: bool = False


def split_mbox(data: bytes) -> list[tuple[int, bytes]]:
    """The mails of an mbox with their first line. A diff without headers counts as a mail."""
    starts = [match.start() for match in _FROM_LINE.finditer(data) if _TIME.search(match[0])]
    if not starts or data[: starts[0]].strip(b"\xef\xbb\xbf \t\r\n"):
        starts = [0, *starts]
    mails = []
    line = 1 + data.count(b"\n", 0, starts[0])
    for start, end in zip(starts, [*starts[1:], len(data)], strict=True):
        mails.append((line, data[start:end]))
        line += data.count(b"\n", start, end)
    return [(line, mail) for line, mail in mails if mail.strip()]


@functools.lru_cache(maxsize=128)
def decode_mail(data: bytes) -> Decoded:
    """Read a mail; raises ``UsageError`` if git cannot decode it."""
    data = _convert_lines(data.removeprefix(b"\xef\xbb\xbf"))
    text = data.lstrip(b" \t\r\n")
    if match := _FROM_LINE.match(text):
        text = text[match.end() :]
    shift = data.count(b"\n", 0, len(data) - len(text))
    found = _HEADERS.match(text)
    raw = found[0] if found else b""
    try:
        raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("latin-1").encode() + text[len(raw) :]
        raw = raw.decode("latin-1").encode()
    fields = {match[1].lower(): match[2] for match in reversed(list(_FIELD.finditer(raw)))}
    if not {b"from", b"subject"} & fields.keys():
        return Decoded({}, data, 0, data)
    named = b"".join(fields.get(name, b"") for name in (b"from", b"subject", b"date"))
    coding = fields.get(b"content-transfer-encoding", b"").strip().lower()
    kind = fields.get(b"content-type", b"").lower()
    is_plain = (
        b"=?" not in named and coding in (b"", b"7bit", b"8bit", b"binary") and b"multipart/" not in kind
    )
    if not is_plain:
        return _decode_by_git(text)
    headers = {
        name.decode(): " ".join(value.decode().split())
        for name, value in fields.items()
        if name in (b"from", b"subject", b"date", b"in-reply-to", b"references")
    }
    return Decoded(headers, text[len(raw) :], shift, text)


def _convert_lines(data: bytes) -> bytes:
    """Without the CR of every line that a mail program or an editor added; those of the tree are kept."""
    if re.search(rb"^(?:diff --git |@@ -\d)[^\n]*\r\n", data, re.M) or re.match(rb"[^\n]*\r\n", data):
        return data.replace(b"\r\n", b"\n")
    return data


def _decode_by_git(text: bytes) -> Decoded:
    with tempfile.TemporaryDirectory(prefix="cowbell-mail-") as name:
        folder = Path(name)
        words = ("mailinfo", "-k", "-u", "msg", "patch")
        done = git(folder, *words, stdin=text, check=False)
        if done.returncode:
            raise UsageError("git cannot decode this mail", hint=done.output.strip()[-500:])
        message, patch = (folder / "msg").read_bytes(), (folder / "patch").read_bytes()
    read = dict(re.findall(r"^(Author|Email|Subject|Date): (.*)$", done.output, re.M))
    own = _HEADERS.match(text)
    fields = {match[1].lower() for match in _FIELD.finditer(own[0] if own else b"")}
    headers = {
        "from": f"{read.get('Author', '')} <{read.get('Email', '')}>".strip(),
        "subject": read.get("Subject", "").strip(),
        "date": read.get("Date", "").strip(),
        **{name.decode(): "yes" for name in fields & {b"in-reply-to", b"references"}},
    }
    body = _convert_lines(message + patch)
    return Decoded(headers, b"\n" + body, None, body)


def make_mail(data: bytes, title: str) -> bytes:
    """The plain mail for ``git am``; ``title`` is that of a mail or diff that has none.

    The text before a mere diff becomes the description.
    """
    mail = decode_mail(data)
    if mail.is_complete:
        return mail.text
    author, subject, date = (mail.headers.get(name, "") for name in ("from", "subject", "date"))
    body = mail.body
    if not mail.headers:
        found = _DIFF.search(body)
        about, diff = (body[: found.start()], body[found.start() :]) if found else (b"", body)
        body = b"\n" + about + b"\n---\n" + diff
    head = (
        f"From: {author if _ADDRESS.fullmatch(author) else _make_author(author)}\n"
        f"Date: {date if email.utils.parsedate_tz(date) else _DATE}\n"
        f"Subject: {subject if clean_title(subject) else f'[PATCH] {title}'}\n"
    )
    return head.encode() + body


def _make_author(name: str) -> str:
    """An author with an address, which git requires."""
    name = re.sub(r"[<>]", "", name).strip()
    return f"{name} <cowbell>" if name else _AUTHOR


def read_subject(path: Path) -> str:
    """The title of a patch as git am gives it to the commit, or the name of its file."""
    try:
        return clean_title(parse_subject(path.read_bytes())) or path.stem
    except (UsageError, OSError):
        return path.stem


def parse_subject(data: bytes) -> str:
    """The subject of a mail in one line with its tags, empty if it has none."""
    return decode_mail(data).headers.get("subject", "")


def clean_title(subject: str) -> str:
    """A subject without its tags."""
    match = _TAGS.match(subject)
    return subject[match.end() if match else 0 :].strip()


def parse_numbering(subject: str) -> Numbering:
    """The number of a patch in its series, from the tags at the front only: a title may have a fraction."""
    match = _LEADING.match(subject)
    tags = match[0] if match else ""
    number, version = _NUMBER.search(tags), _VERSION.search(tags)
    return Numbering(
        int(number[1]) if number else 0,
        int(number[2]) if number else 0,
        int(version[1]) if version else 1,
        bool(re.search(r"PATCH|RFC", tags, re.I)),
    )


def is_reply(data: bytes) -> bool:
    """Whether a mail answers another one, perhaps with a diff that is not meant to be applied."""
    headers = decode_mail(data).headers
    subject = headers.get("subject", "")
    if _REPLY.match(subject):
        return True
    return bool({"in-reply-to", "references"} & headers.keys()) and not subject.lstrip().startswith("[")


def has_diff(data: bytes) -> bool:
    return bool(_DIFF.search(decode_mail(data).body))


def find_base(mails: list[bytes]) -> tuple[str, tuple[str, ...]]:
    """The base commit that git format-patch --base names, and the ids of the patches needed before."""
    bodies = [decode_mail(mail).body for mail in mails]
    bases = [match[1].decode() for body in bodies for match in _BASE.finditer(body)]
    needed = [match[1].decode() for body in bodies for match in _NEEDED.finditer(body)]
    return (bases[0] if bases else ""), tuple(dict.fromkeys(needed))
