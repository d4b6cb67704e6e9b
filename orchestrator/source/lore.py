# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches the series of a message-id or a URL of a public-inbox archive, such as lore, with b4.

b4 downloads the thread, chooses the version and adds the trailers of the replies. The result is an mbox in
the store, which is read like any other one.
"""

import email.parser
import email.policy
import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.process.packages import make_install_command
from orchestrator.process.progress import Progress
from orchestrator.source.mail import (
    clean_title,
    find_base,
    has_diff,
    parse_numbering,
    parse_subject,
    split_mbox,
)
from orchestrator.source.repository import make_config
from orchestrator.source.series import Series, find_series
from orchestrator.store.store import Store, make_id, write_atomic

# by the line length of RFC 5322, and without what a shell or a log would take for something else
_ID = re.compile(r"[!-;=?-~]{1,240}@[!-;=?-~]{1,240}")
# without < and >, a word must not look like a path or a range of commits
_BARE_ID = re.compile(r"[^\s/:,<>-][^\s/:,<>]*@[^\s/:,<>]+")
_VERSION = re.compile(r"(.*[^:]):(newest|v([1-9][0-9]{0,3}))")
_REPLY = re.compile(r"\s*(?:\w{2,4}\s*:\s*)+(?=\[)")
# names of the kernel's archive; b4's configuration has the address from which it is fetched
_KERNEL_ORG = ("lore.kernel.org", "lkml.kernel.org", "patch.msgid.link", "msgid.link")
_LIMIT_S = 300
# a thread of 1,000 mails is about 10 MiB
_LIMIT = 256 << 20
_FROM_LINE = "From cowbell Thu Jan  1 00:00:00 1970"


@dataclass(frozen=True, slots=True)
class Message:
    """A message-id without its angle brackets, and the version of its series.

    ``archive`` is the URL of the list on a server other than kernel.org's. ``version`` 0 is the version to
    which the mail itself belongs; ``is_newest``: the newest one that the archive has.
    """

    id: str
    archive: str = ""
    version: int = 0
    is_newest: bool = False

    def __str__(self) -> str:
        version = ":newest" if self.is_newest else f":v{self.version}" if self.version else ""
        return f"{self.archive}/{quote(self.id)}{version}" if self.archive else f"<{self.id}>{version}"


def parse_message(word: str) -> Message | None:
    """The message that a word of ``SERIES=`` names by its id or URL; None for any other word."""
    match = _VERSION.fullmatch(word)
    name = match[1] if match else word
    version, is_newest = int(match[3] or 0) if match else 0, bool(match and match[2] == "newest")
    if name.startswith("<") and name.endswith(">"):
        found: Message | None = Message(name[1:-1])
    elif re.match(r"https?://", name):
        found = _parse_url(name)
    else:
        found = Message(name) if _BARE_ID.fullmatch(name) else None
    if not found or not _ID.fullmatch(found.id):
        return None
    return replace(found, version=version, is_newest=is_newest)


def _parse_url(url: str) -> Message | None:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return None
    words = [unquote(word) for word in parts.path.split("/")]
    at = next((number for number, word in enumerate(words) if "@" in word), 0)
    if not at or not host or "@" in parts.netloc:
        return None
    if host.removeprefix("www.") in _KERNEL_ORG:
        return Message(words[at])
    folder = "/".join(quote(word) for word in words[:at])
    return Message(words[at], f"{parts.scheme}://{parts.netloc}{folder}") if folder else None


def find_cover(data: bytes) -> Message | None:
    """The message of a single mail without a patch, as a mail program pipes a cover letter or a reply."""
    mails = split_mbox(data)
    if len(mails) != 1 or has_diff(mails[0][1]):
        return None
    headers = email.parser.BytesHeaderParser(policy=email.policy.compat32).parsebytes(mails[0][1])
    return parse_message(str(headers.get("Message-ID", "")).strip())


def fetch_series(message: Message, store: Store, progress: Progress, *, redo: bool = False) -> Series:
    """The series of a message, from the store or, if it is not there or with ``redo``, from the archive.

    Raises ``UsageError`` if the archive does not have it, ``InfraError`` if the archive cannot be reached or
    b4 is not installed.
    """
    place = store.path("threads", f"{make_id(str(message))}.mbox")
    # gc takes the lock, too
    with store.lock(f"thread-{place.stem}"):
        if redo or not place.exists():
            with store.scratch(f"thread-{place.stem}") as scratch:
                write_atomic(place, _fetch(message, scratch, progress))
        elif message.is_newest:
            progress.note(f"{message} is from the store; cowbell -B source looks for a newer version")
        data = place.read_bytes()
    series = find_series(place, store, data)
    return replace(series, name=str(message), title=_read_title(data))


def _read_title(data: bytes) -> str:
    """The title of the cover letter or of the first patch, with the version."""
    subject = parse_subject(split_mbox(data)[0][1])
    numbering = parse_numbering(subject)
    return clean_title(subject) + (f" (v{numbering.version})" if numbering.version > 1 else "")


def _fetch(message: Message, scratch: Path, progress: Progress) -> bytes:
    """The cover letter and the patches of one version, as an mbox."""
    b4 = _B4(message, scratch)
    progress.stage("source", f"the thread of {message}")
    newer = ("--check-newer-revisions",) if message.is_newest else ("--no-cache",)
    done = b4.run("mbox", *newer, "--save-as-maildir", "-o", str(scratch), "-n", "thread", "--", message.id)
    found = (path.read_bytes() for path in sorted(scratch.glob("thread/*/*")))
    mails = [mail for mail in found if _is_readable(mail)]
    if done.returncode or not mails:
        raise _make_error(message, done)
    if sum(map(len, mails)) > _LIMIT:
        raise UsageError(f"has more than {_LIMIT >> 20} MiB: that is no series", where=str(message))
    versions = set(_list_versions(filter(has_diff, mails)))
    version = message.version or (max(versions) if message.is_newest else _find_own(message, mails))
    others = f"the thread has {', '.join(f'v{one}' for one in sorted(versions)) or 'no patch'}"
    if version not in versions:
        what = f"there is no v{version} in the thread" if version else "is not in its thread"
        hint = f"{others}; another version may have a thread and a message-id of its own"
        raise UsageError(what, where=str(message), hint=hint)
    words = ("am", "--use-version", str(version), "-o", str(scratch), "-n", "series")
    done = b4.run(*words, "--use-local-mbox", str(scratch / "thread"), is_offline=True)
    made = scratch / "series.mbx"
    if done.returncode or not made.exists():
        raise UsageError("b4 finds no series in the thread", where=str(message), hint=_find_last(done))
    if version < max(versions) and not message.version:
        progress.note(f"{message}: v{version}; {others}")
    return _make_cover(version, mails) + made.read_bytes()


def _is_readable(mail: bytes) -> bool:
    """Whether git can decode a mail: a thread may have a reply that is damaged."""
    try:
        parse_subject(mail)
    except UsageError:
        return False
    return True


def _make_cover(version: int, mails: Iterable[bytes]) -> bytes:
    """A mail with the title and the base of a version: b4 leaves out a cover letter that is a reply."""
    own = [mail for mail in mails if _list_versions([mail]) == [version]]
    base, needed = find_base(own)
    titles = [subject for subject in map(parse_subject, own) if _is_cover(subject)]
    if not titles:
        return b""
    lines = [f"base-commit: {base}"] if base else []
    lines += [f"prerequisite-patch-id: {one}" for one in needed]
    return "\n".join(
        [_FROM_LINE, "From: Cowbell <cowbell>", f"Subject: {titles[0]}", "", *lines, "", ""]
    ).encode()


def _is_cover(subject: str) -> bool:
    numbering = parse_numbering(subject)
    return numbering.total > 0 and numbering.number == 0


def _list_versions(mails: Iterable[bytes]) -> list[int]:
    """The version of each mail that is no reply to one."""
    subjects = [subject for subject in map(parse_subject, mails) if not _REPLY.match(subject)]
    return [parse_numbering(subject).version for subject in subjects]


def _find_own(message: Message, mails: Iterable[bytes]) -> int:
    """The version that a mail or a reply to it names in its subject; 0 if it is not there."""
    parser = email.parser.BytesHeaderParser(policy=email.policy.compat32)
    for mail in mails:
        if str(parser.parsebytes(mail).get("Message-ID", "")).strip().strip("<>") == message.id:
            return parse_numbering(_REPLY.sub("", parse_subject(mail))).version
    return 0


class _B4:
    """b4 with the user's git configuration, but with data and caches of its own.

    Else ``b4 ty`` would thank for what was only tested.
    """

    def __init__(self, message: Message, scratch: Path) -> None:
        # installed beside this Python, which need not be in PATH
        beside = Path(sys.executable).with_name("b4")
        if not beside.exists() and not command.is_installed("b4"):
            what = f"b4 is not installed, which fetches {message}"
            raise InfraError(what, hint=f"pip install 'cowbell[b4]', or {make_install_command(['b4'])}")
        self._tool = str(beside) if beside.exists() else command.find_tool("b4", "b4")
        self._scratch = scratch
        self._config = ["save-maildirs=no", *([f"midmask={message.archive}/%s"] if message.archive else [])]

    def run(self, *words: str, is_offline: bool = False) -> command.Completed:
        config = [word for setting in self._config for word in ("-c", f"b4.{setting}")]
        own = {
            # a repository around the store may have a .b4-config
            "GIT_CEILING_DIRECTORIES": str(self._scratch.parent),
            "XDG_CACHE_HOME": str(self._scratch / "cache"),
            "XDG_DATA_HOME": str(self._scratch / "data"),
        }
        return command.run(
            [self._tool, "--no-stdin", *(["--offline-mode"] if is_offline else []), *config, *words],
            cwd=self._scratch,
            env={**make_config(is_users=True), **own},
            deadline=command.Deadline.after(_LIMIT_S),
            check=False,
        )


def _make_error(message: Message, done: command.Completed) -> UsageError | InfraError:
    """The error of a thread that was not fetched; only an archive that answers can lack it."""
    if re.search(r"returned an error: (?:300|404|410)\b|No messages found", done.output):
        where = message.archive or "lore, or the archive of b4.midmask"
        return UsageError("there is no such message", where=str(message), hint=f"{where} does not have it")
    if error := command.find_host_error(done, done.output.splitlines()):
        return error
    return InfraError("cannot be fetched", where=str(message), hint=_find_last(done))


def _find_last(done: command.Completed) -> str:
    lines = [line.strip() for line in done.output.splitlines() if line.strip(" -")]
    return "\n  ".join(line[:300] for line in lines[-3:]) or f"b4 ended with status {done.returncode}"
