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
    """The cores that a make may use, as arguments, environment, and inherited file descriptors."""

    words: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    fds: tuple[int, ...] = ()


class Budget(Protocol):
    def build(self) -> AbstractContextManager[MakeShare]:
        """Hold this while a kernel is built; waits until a core is free."""

    def guest(self, cpus: int, memory_mib: int) -> AbstractContextManager[None]:
        """Hold this while a guest of this size runs; waits until cores and memory are free."""


class WholeHost:
    """The budget of a single task: all cores, without waiting."""

    @contextlib.contextmanager
    def build(self) -> Iterator[MakeShare]:
        # one more than the number of cores, as some compilers wait for the disk
        yield MakeShare((f"-j{(os.cpu_count() or 1) + 1}",))

    @contextlib.contextmanager
    def guest(self, cpus: int, memory_mib: int) -> Iterator[None]:
        yield


WHOLE_HOST = WholeHost()
