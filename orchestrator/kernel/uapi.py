# SPDX-License-Identifier: GPL-2.0-or-later
"""Installs the headers of a tree for user space, for programs that need newer ones than the host has."""

from pathlib import Path

from orchestrator.kernel.build import Toolchain
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch
from orchestrator.source.repository import Source, checkout
from orchestrator.store.store import Store, make_id

KIND = "headers"
_INSTALL_S = 600.0


def make_headers(source: Source, arch: Arch, toolchain: Toolchain, store: Store, progress: Progress) -> Path:
    """The include folder of a source, installed once; raises ``InfraError`` if that fails."""

    def fill(draft: Path) -> None:
        progress.stage("build", f"headers of {source.tree} {source.version} for programs")
        make = [command.find_tool("make", "make"), *toolchain.make_words, *source.make_words]
        with checkout(source, store) as worktree, store.scratch("headers") as scratch:
            words = [*make, "-s", f"O={scratch}", f"INSTALL_HDR_PATH={draft}", "headers_install"]
            command.run(words, cwd=worktree, deadline=command.Deadline.after(_INSTALL_S))

    return store.publish(KIND, make_id(source.source_id, arch.name), fill) / "include"
