# SPDX-License-Identifier: GPL-2.0-or-later
"""Compresses files with zstd, and decompresses them."""

import tempfile
from pathlib import Path

from orchestrator.process import command
from orchestrator.store.store import convert_disk_errors


def pack(source: Path, path: Path) -> None:
    """Compress a file, atomically; equal files give equal ones. Raises ``InfraError`` without zstd."""
    with convert_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=path.parent) as place:
            draft = Path(place) / path.name
            # --long: statically linked programs have the same library in common
            words = ("-q", "-9", "-T1", "--long=27", str(source), "-o", str(draft))
            command.run([command.find_tool("zstd", "zstd"), *words])
            # zstd copies the mode of the source
            draft.chmod(0o644)
            draft.replace(path)


def unpack(path: Path, target: Path) -> None:
    """Decompress a file, with holes for its zeros; raises ``InfraError`` if it is damaged."""
    words = ("-q", "-d", "--sparse", str(path), "-o", str(target))
    command.run([command.find_tool("zstd", "zstd"), *words])
