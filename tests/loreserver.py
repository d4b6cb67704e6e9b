# SPDX-License-Identifier: GPL-2.0-or-later
"""A server on loopback that answers b4 as a public-inbox archive does, and the mails that it serves.

``GET /LIST/MESSAGE-ID/t.mbox.gz`` is a thread, ``HEAD /MESSAGE-ID/`` leads to its list, and ``POST
/LIST/?x=m&q=QUERY`` is the threads whose subjects have the quoted text.
"""

import contextlib
import gzip
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email import message_from_string
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from tests.conftest import render_patch

LIST = "all"


def make_mail(
    subject: str, message_id: str, text: str, *, parent: str = "", author: str = "A Developer <a@example.org>"
) -> str:
    """A mail of a thread; ``text`` is its body."""
    references = f"In-Reply-To: <{parent}>\nReferences: <{parent}>\n" if parent else ""
    return (
        f"From: {author}\nTo: linux-mm@example.org\nDate: Mon, 5 Jan 2026 10:00:00 +0000\n"
        f"Subject: {subject}\nMessage-ID: <{message_id}>\n{references}\n{text}\n"
    )


def make_series(
    version: int, *edits: Mapping[str, tuple[str, str]], base: str = "", parent: str = ""
) -> list[str]:
    """The mails of a version of the series "swap: count": a cover letter and a patch for each edit.

    The patches have the ids ``v2-1@x.org``, the cover letter ``v2-0@x.org``, which may answer ``parent``.
    """
    tag = f"PATCH v{version}" if version > 1 else "PATCH"
    cover = f"v{version}-0@x.org"
    foot = f"\nbase-commit: {base}\n" if base else ""
    about = f"Count better.\n\nA Developer ({len(edits)}):\n  swap: count\n{foot}"
    mails = [make_mail(f"[{tag} 0/{len(edits)}] swap: count", cover, f"{about}-- \n2.39.5\n", parent=parent)]
    for number, edit in enumerate(edits, 1):
        _, _, body = render_patch("", edit).partition("\n\n")
        body = body.replace("Because.\n---", "Because.\n\nSigned-off-by: A Developer <a@example.org>\n---")
        title = f"[{tag} {number}/{len(edits)}] swap: count {number}"
        mails.append(make_mail(title, f"v{version}-{number}@x.org", body, parent=cover))
    return mails


def make_review(version: int, number: int, trailer: str, author: str) -> str:
    """A reply with a trailer."""
    parent = f"v{version}-{number}@x.org"
    text = f"> Because.\n\nGood.\n\n{trailer}: {author}\n"
    subject = f"Re: [PATCH v{version} {number}/2] swap: count {number}"
    return make_mail(subject, f"re-{version}-{number}@y.org", text, parent=parent, author=author)


@dataclass
class Archive:
    """The threads of the server, and what it was asked. ``broken`` is the status of every answer."""

    url: str
    threads: list[list[str]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    broken: int = 0

    def find(self, message_id: str) -> list[str]:
        """The thread of a message; empty if there is none."""
        line = f"\nMessage-ID: <{message_id}>\n"
        return next((thread for thread in self.threads if any(line in mail for mail in thread)), [])

    def search(self, query: str) -> list[str]:
        words = re.findall(r's:"([^"]+)"', query)
        return [
            mail
            for thread in self.threads
            if any(word in str(message_from_string(mail)["Subject"]) for mail in thread for word in words)
            for mail in thread
        ]

    def configure(self, home: Path) -> None:
        """Let b4 take it for lore."""
        (home / ".gitconfig").write_text(f"[b4]\n\tmidmask = {self.url}/{LIST}/%s\n")


@contextlib.contextmanager
def serve() -> Iterator[Archive]:
    archive = Archive("")

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self, mails: list[str]) -> None:
            archive.asked.append(f"{self.command} {self.path}")
            content = gzip.compress(
                "".join(f"From mboxrd@z Thu Jan  1 00:00:00 1970\n{m}\n" for m in mails).encode()
            )
            status = archive.broken or (200 if mails else 404)
            self.send_response(status)
            self.send_header("Content-Length", str(len(content) if status == 200 else 0))
            self.end_headers()
            if status == 200 and self.command != "HEAD":
                self.wfile.write(content)

        def do_GET(self) -> None:
            parts = urlsplit(self.path).path.split("/")
            is_thread = len(parts) == 4 and parts[1] == LIST and parts[3] == "t.mbox.gz"
            self.answer(archive.find(unquote(parts[2])) if is_thread else [])

        def do_HEAD(self) -> None:
            self.answer([])

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(archive.search(parse_qs(urlsplit(self.path).query).get("q", [""])[0]))

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        archive.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield archive
        finally:
            server.shutdown()
            thread.join()
