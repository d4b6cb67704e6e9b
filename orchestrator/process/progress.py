# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface by which jobs report their progress; how it is displayed is decided elsewhere."""

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str, subject: str) -> None:
        """A stage begins: its name (source, kconfig, build ...) and what it works on."""

    def count(self, done: int, about: int | None) -> None:
        """The progress of the current stage: steps done, and their approximate total."""

    def note(self, text: str) -> None:
        """A message for the user."""

    def detail(self, text: str) -> None:
        """A message that is shown only in verbose mode."""

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
