# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface by which jobs report their progress; how it is displayed is decided elsewhere."""

from typing import Protocol

from orchestrator.status import Status


class Progress(Protocol):
    def stage(self, name: str, subject: str) -> None:
        """A stage begins: its name (source, kconfig, build ...) and what it works on."""

    def count(self, done: int, about: int | None, unit: str) -> None:
        """The progress of the current stage: how much is done, the approximate total, and of what."""

    def verdict(self, status: Status, text: str) -> None:
        """A test has ended: its worst verdict, and the test as text."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def detail(self, text: str) -> None:
        """A message that is shown only with ``-v``."""

    def command(self, line: str) -> None:
        """The command line of a program that is started; shown only with ``-vv``."""

    def expect(self, seconds: float) -> None:
        """The expected remaining time of the job, from earlier runs."""


class Board(Progress, Protocol):
    """The progress of several jobs; its own messages belong to no job."""

    def for_job(self, name: str) -> Progress:
        """The progress of one job."""

    def end_job(self, name: str, outcome: str) -> None:
        """A job has ended; ``outcome`` is a short text."""

    def overall(self, done: int, total: int, left_s: float | None) -> None:
        """The number of finished jobs, and the expected time for the rest. Called several times a second."""
