# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the files of users: any path may be a folder, a pipe that nobody writes to, or a link in a circle."""

import os
import stat
from pathlib import Path

from orchestrator.errors import UsageError


def read_file(path: Path) -> bytes:
    """The content of a regular file; raises ``UsageError`` for anything else."""
    try:
        # opening a pipe would wait for its writer
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return file.read()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    raise UsageError("is not a regular file", where=str(path))


def read_text(path: Path) -> str:
    """The content of a regular file with UTF-8 text; raises ``UsageError`` for anything else."""
    data = read_file(path)
    try:
        return data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = 1 + data[: error.start].count(b"\n")
        raise UsageError("is not UTF-8 text", where=f"{path}:{line}") from None
