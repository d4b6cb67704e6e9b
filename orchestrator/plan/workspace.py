# SPDX-License-Identifier: GPL-2.0-or-later
"""The root folder, the store and the options that all jobs of a command share."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.kernel.build import Toolchain, find_toolchain
from orchestrator.process.budget import WHOLE_HOST, Budget
from orchestrator.process.progress import Board
from orchestrator.process.workers import Limits
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.root import IS_CHECKOUT, LIB, SHIPPED, list_layers
from orchestrator.project.trace import TraceRequest
from orchestrator.result.repeat import Repeat
from orchestrator.run.compile import make_program_id
from orchestrator.store.store import Store


@dataclass(frozen=True, slots=True)
class Workspace:
    """Where everything is: the project's files, the store, and who is told of progress.

    ``root`` is the user's own folder, or ours, and alone may be written to. ``keep_going`` is make's ``-k``;
    ``cc`` and ``llvm`` choose the compiler; ``keep_core`` keeps the memory of guests that crash or hang;
    ``trace`` is what is recorded around each test.
    ``budget`` is what builds and guests may use of the host, ``limits`` what the jobs of the whole request
    may; ``what_if`` names files that are taken as changed; ``repeat`` is how often tests are run.
    """

    root: Path
    store: Store
    progress: Board
    keep_going: bool = False
    cc: str = ""
    llvm: str = ""
    keep_core: bool = False
    trace: TraceRequest = TraceRequest()
    budget: Budget = WHOLE_HOST
    limits: Limits = Limits()
    what_if: tuple[str, ...] = ()
    repeat: Repeat = Repeat()

    def find_toolchain(self, arch: Arch) -> Toolchain:
        return find_toolchain(arch, self.cc, self.llvm)

    def list_modules(self) -> tuple[Path, ...]:
        """The sources of the guest tests' modules; the user's own file takes the place of one of its name."""
        folders = [layer / "guest-tests" / "module" for layer in list_layers(self.root)]
        files = {path.name: path for folder in folders for path in folder.glob("*") if path.is_file()}
        return tuple(path for _, path in sorted(files.items()))

    def list_program_ids(self, tests: Sequence[GuestTest]) -> dict[tuple[str, str], str]:
        """What each test is as a program, by (test, architecture), where there is a compiler for it."""
        ids: dict[tuple[str, str], str] = {}
        for arch in ARCHES.values():
            with contextlib.suppress(InfraError):
                toolchain = self.find_toolchain(arch)
                ids |= {(test.id, arch.name): make_program_id(test, toolchain) for test in tests}
        return ids

    @property
    def is_own(self) -> bool:
        """Whether ``root`` is the user's: a checkout is, what was installed is not."""
        return IS_CHECKOUT or self.root != SHIPPED

    @property
    def changelogs(self) -> list[Path]:
        return [layer / "guest-tests" / "changelog.yaml" for layer in list_layers(self.root)]

    @property
    def lib_dir(self) -> Path:
        """The library that is shipped; a test knows of one beside it."""
        return LIB
