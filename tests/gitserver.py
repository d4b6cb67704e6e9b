# SPDX-License-Identifier: GPL-2.0-or-later
"""A git server on loopback, and the small history that it serves.

``main`` has the tags v5.10 (annotated) and v5.11. ``stack`` is 70 commits on v5.10, a file each; ``stack-y``
merges its older self into it, as a branch that is rebased and never forced does; ``other`` is v5.10 with the
file of the 35th commit changed; ``knot`` merges two lines that both count.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.source import repository
from tests.conftest import FAKELINUX, wait_for

COMMITS = 70


def run_git(place: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words],
        cwd=place,
        env=os.environ | repository._ENV,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def commit_file(place: Path, file: str, text: str, message: str) -> str:
    (place / file).parent.mkdir(exist_ok=True)
    (place / file).write_text(text)
    run_git(place, "add", "-f", file)
    run_git(place, "commit", "-q", "-m", message)
    return run_git(place, "rev-parse", "HEAD")


def make_history(place: Path) -> None:
    """A checkout with the branches and tags that this module describes."""
    shutil.copytree(FAKELINUX, place)
    (place / "many").mkdir()
    for number in range(1, COMMITS + 1):
        (place / f"many/{number:02}.c").write_text("".join(f"int line{i};\n" for i in range(20)))
    run_git(place, "init", "-q", "-b", "main")
    run_git(place, "add", "-A", "-f")
    run_git(place, "commit", "-q", "-m", "first")
    run_git(place, "tag", "-a", "-m", "five ten", "v5.10")
    commit_file(place, "mm/late.c", "int late;\n", "late")
    run_git(place, "tag", "v5.11")
    run_git(place, "checkout", "-q", "-b", "older", "v5.10")
    commit_file(place, "mm/older.c", "int older;\n", "an older self")
    run_git(place, "checkout", "-q", "-b", "stack", "v5.10")
    for number in range(1, COMMITS + 1):
        text = (place / f"many/{number:02}.c").read_text().replace("line9;", f"line9 = {number};")
        commit_file(place, f"many/{number:02}.c", text, f"many: change {number}\n\nBecause.")
    run_git(place, "checkout", "-q", "-b", "stack-y")
    run_git(place, "merge", "-q", "-s", "ours", "-m", "over its older self", "older")
    run_git(place, "checkout", "-q", "-b", "knot", "v5.11")
    run_git(place, "merge", "-q", "-m", "both count", "older")
    run_git(place, "checkout", "-q", "-b", "other", "v5.10")
    text = (place / "many/35.c").read_text().replace("line9;", "line9 = -1;")
    commit_file(place, "many/35.c", text, "in the way")
    run_git(place, "checkout", "-q", "main")


@dataclass
class GitServer:
    """``git daemon`` behind a door that counts connections and can be shut."""

    repo: Path
    port: int
    connections: int = 0
    allowed: int = 1 << 30

    @property
    def url(self) -> str:
        return f"git://127.0.0.1:{self.port}/{self.repo.name}"

    def set(self, name: str, value: str) -> None:
        run_git(self.repo, "config", name, value)


@contextlib.contextmanager
def serve(repo: Path) -> Iterator[GitServer]:
    with contextlib.ExitStack() as stack:
        door = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        behind = find_port()
        daemon = stack.enter_context(
            subprocess.Popen(
                ["git", "daemon", "--export-all", "--listen=127.0.0.1", f"--port={behind}", "--reuseaddr",
                 f"--base-path={repo.parent}", str(repo)],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        )  # fmt: skip
        stack.callback(os.killpg, daemon.pid, 15)
        wait_for(lambda: is_listening(behind))
        server = GitServer(repo, door.getsockname()[1])
        keeper = threading.Thread(target=keep_door, args=(door, behind, server), daemon=True)
        keeper.start()
        yield server
        # closing alone would leave the keeper waiting at whatever has this descriptor next
        door.shutdown(socket.SHUT_RDWR)
        keeper.join()


def keep_door(door: socket.socket, behind: int, server: GitServer) -> None:
    with contextlib.suppress(OSError):
        while True:
            guest, _ = door.accept()
            server.connections += 1
            if server.connections > server.allowed:
                guest.close()
                continue
            host = socket.create_connection(("127.0.0.1", behind))
            for one, two in ((guest, host), (host, guest)):
                threading.Thread(target=carry, args=(one, two), daemon=True).start()


def carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while block := source.recv(1 << 16):
            # a server that has gone must not cost its client what was still on the way: read on
            with contextlib.suppress(OSError):
                target.sendall(block)
        target.shutdown(socket.SHUT_WR)


def find_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
        return port


def is_listening(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
        return True
    return False
