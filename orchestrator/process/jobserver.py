# SPDX-License-Identifier: GPL-2.0-or-later
"""Shares cores between compilers and guests by GNU make's jobserver protocol: a pipe with a byte per core.

The first core belongs to this process; the others are in the pipe, which may be that of an outer make.
Source: GNU make's manual, "POSIX Jobserver Interaction".
"""

import contextlib
import os
import re
import stat
from collections.abc import Mapping

from orchestrator.process.budget import MakeShare

_AUTH = re.compile(r"--jobserver-(?:auth|fds)=(?:fifo:(?P<fifo>\S+)|(?P<read>\d+),(?P<write>\d+))")
_JOBS = re.compile(r"(?:^|\s)-j\s*(\d+)")


class Jobserver:
    """``cores`` is the total number of cores, including the one of this process."""

    def __init__(self, read: int, write: int, cores: int, *, is_inherited: bool = False) -> None:
        self.cores, self.is_inherited = cores, is_inherited
        self._read, self._write = read, write
        # a separate open file description, so that O_NONBLOCK does not affect other processes
        self._look = os.open(f"/proc/self/fd/{read}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._is_own_free = True
        self._taken: list[bytes] = []

    @classmethod
    def make(cls, cores: int) -> "Jobserver":
        read, write = os.pipe()
        os.write(write, b"+" * (cores - 1))
        return cls(read, write, cores)

    @classmethod
    def inherit(cls, environ: Mapping[str, str]) -> "Jobserver | None":
        """The jobserver of the calling make; None if there is none or it is not inherited."""
        flags = environ.get("MAKEFLAGS", "")
        if not (found := _AUTH.search(flags)):
            return None
        jobs = _JOBS.search(flags)
        cores = int(jobs[1]) if jobs else os.cpu_count() or 1
        with contextlib.suppress(OSError):
            if found["fifo"]:
                fd = os.open(found["fifo"], os.O_RDWR | os.O_CLOEXEC)
                return cls(fd, fd, cores, is_inherited=True)
            read, write = int(found["read"]), int(found["write"])
            # without + in the recipe the pipe is not inherited, and the numbers may be other files
            if all(stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in (read, write)):
                return cls(read, write, cores, is_inherited=True)
        return None

    def try_take(self, count: int) -> bool:
        """Take ``count`` cores if all of them are free, or none."""
        taken: list[bytes] = []
        own = self._is_own_free
        with contextlib.suppress(BlockingIOError):
            while len(taken) + own < count:
                if not (byte := os.read(self._look, 1)):
                    break
                taken.append(byte)
        if len(taken) + own < count:
            self._write_back(taken)
            return False
        if own:
            self._is_own_free = False
        self._taken += taken
        return True

    def give(self, count: int) -> None:
        """Give back cores that were taken."""
        back = [self._taken.pop() for _ in range(min(count, len(self._taken)))]
        self._write_back(back)
        if len(back) < count:
            self._is_own_free = True

    def share(self) -> MakeShare:
        """The settings for a make that takes further cores from here; its first core must be taken before."""
        flags = f" -j{self.cores} --jobserver-auth={self._read},{self._write}"
        return MakeShare((), {"MAKEFLAGS": flags}, tuple({self._read, self._write}))

    def close(self) -> None:
        """Give back everything."""
        self.give(len(self._taken))
        for fd in {self._look, self._read, self._write}:
            os.close(fd)

    def _write_back(self, taken: list[bytes]) -> None:
        for byte in taken:
            os.write(self._write, byte)


def read_options(environ: Mapping[str, str]) -> list[str]:
    """The options of the calling make that Cowbell has as well."""
    flags = environ.get("MAKEFLAGS", "")
    # single letters come first, without a dash
    letters = flags.split(" ")[0] if environ.get("MAKELEVEL") and not flags.startswith(("-", " ")) else ""
    return [f"-{letter}" for letter in "nksB" if letter in letters and "=" not in letters]
