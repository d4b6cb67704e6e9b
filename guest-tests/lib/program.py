# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a program that does not use our library in the guest, and writes to a file how it ended.

The argument is JSON: argv, the time limit, the user, the requirements. Whatever the program has started is
killed when it ends. A process that cannot be killed keeps us here, until the host's limit ends the test.
Python 3.9, standard library only.
"""

import contextlib
import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from guesttest import GuestTest, libc

PR_SET_CHILD_SUBREAPER = 36
IDS = {"root": 0, "nobody": 65534}
ENDING = Path("/work/program-end")
POLL_S = 0.01
# the host writes there why a module was not compiled
NO_MODULE = ".cowbell-no-module"


def list_descendants() -> "list[int]":
    """All processes below this one; orphans are its children."""
    parents = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            fields = (place / "stat").read_text(errors="replace").rpartition(")")[2].split()
            parents[int(place.name)] = int(fields[1])
    found, waiting = [], [os.getpid()]
    while waiting:
        parent = waiting.pop()
        children = [pid for pid, its_parent in parents.items() if its_parent == parent]
        found += children
        waiting += children
    return found


def reap() -> "dict[int, int]":
    """The wait status of each child that has ended."""
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                break
            ended[pid] = status
    return ended


def kill_descendants() -> None:
    while pids := list_descendants():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL_S)
        reap()


def name_signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def run(argv: "list[str]", limit_s: float, user: str) -> "dict[str, object]":
    """How the program ended."""
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.chown(".", IDS[user], IDS[user])
    environment = {"PATH": os.environ["PATH"], "HOME": str(Path.cwd()), "USER": user}
    began = time.monotonic()
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            user=IDS[user],
            group=IDS[user],
            extra_groups=[],
        )
    except OSError as error:
        return {"problem": f"cannot be started: {error.strerror}"}
    status = None
    while status is None and time.monotonic() - began < limit_s:
        time.sleep(POLL_S)
        status = reap().get(process.pid)
    kill_descendants()
    if status is None:
        return {"running_s": limit_s}
    if os.WIFSIGNALED(status):
        return {"signal": name_signal(os.WTERMSIG(status))}
    return {"status": os.WEXITSTATUS(status)}


def take_folder(folder: Path) -> str:
    """Copy the folder of a program here; returns why it cannot be started, or an empty string."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / NO_MODULE).read_text().strip()
    shutil.copytree(folder, ".", dirs_exist_ok=True)
    return ""


def main() -> None:
    asked = json.loads(sys.argv[1])
    needs = GuestTest(
        "", "", 1, ctypes.c_void_p, needs_kconfig=asked["needs_kconfig"], cpus=asked["cpus"],
        memory_mib=asked["memory_mib"],
    )  # fmt: skip
    unmet = needs.find_unmet()
    problem = take_folder(Path(asked["folder"])) if asked["folder"] else ""
    if unmet or problem:
        ended = {"lacks": unmet} if unmet else {"problem": problem}
    else:
        ended = run(asked["argv"] + sys.argv[2:], asked["limit_s"], asked["user"])
    draft = ENDING.with_suffix(".new")
    draft.write_text(json.dumps(ended))
    draft.rename(ENDING)
    sys.exit(ended.get("status", 1))


if __name__ == "__main__":
    main()
