# SPDX-License-Identifier: GPL-2.0-or-later
"""The share of the host's cores and memory that a stage may use."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class MakeShare:
    """How many compilers a make may start: words for it, its environment, descriptors that it inherits."""

    words: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Budget(Protocol):
    def build(self) -> AbstractContextManager[MakeShare]:
        """Held while a kernel is built; waits until a core is free."""

    def guest(self, cpus: int, memory_mib: int) -> AbstractContextManager[None]:
        """Held while guests of this size run, one at a time; waits until there is room for one."""


class Whole:
    """The budget of who is alone: all the cores, and nothing to wait for."""

    @contextlib.contextmanager
    def build(self) -> Iterator[MakeShare]:
        # one more than there are cores: somebody always waits for the disk
        yield MakeShare((f"-j{(os.cpu_count() or 1) + 1}",))

    @contextlib.contextmanager
    def guest(self, cpus: int, memory_mib: int) -> Iterator[None]:
        yield


WHOLE = Whole()
