# SPDX-License-Identifier: GPL-2.0-or-later
"""What a stage tells of its progress; who shows it, and how, is not the stage's business."""

from typing import Protocol


class Progress(Protocol):
    def stage(self, name: str, subject: str) -> None:
        """A stage begins: its name (source, kconfig, build ...) and what it works on."""

    def count(self, done: int, about: int | None) -> None:
        """Pieces of the current stage done, of about how many in all."""

    def note(self, text: str) -> None:
        """Something a person wants to know, once."""
