# SPDX-License-Identifier: GPL-2.0-or-later
"""The interface by which jobs report their progress; how it is displayed is decided elsewhere."""

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str, subject: str) -> None:
        """A stage begins: its name (source, kconfig, build ...) and what it works on."""

    def count(self, done: int, about: int | None) -> None:
        """Pieces of the current stage done, of about how many in all."""

    def note(self, text: str) -> None:
        """Something a person wants to know, once."""

    def detail(self, text: str) -> None:
        """Something that only a person who asked for everything wants to know."""

    def expect(self, seconds: float) -> None:
        """About how long the job will take from here, from how long it took before."""


class Board(Progress, Protocol):
    """The progress of several jobs at a time; its own is that of no job."""

    def for_job(self, name: str) -> Progress:
        """Where one job tells of itself."""

    def end_job(self, name: str, outcome: str) -> None:
        """A job is over; ``outcome`` in a few words."""

    def overall(self, done: int, total: int, left_s: float | None) -> None:
        """Jobs done of all, and about how long the rest will take. Called some times a second."""
