# SPDX-License-Identifier: GPL-2.0-or-later
"""Progress as people see it: one live line on a terminal, a time-stamped line a stage elsewhere.

Everything goes to stderr; stdout belongs to the product.
"""

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Live


class Terminal:
    """A ``Progress`` on stderr. ``is_silent`` keeps everything but errors to itself."""

    def __init__(self, *, is_silent: bool = False) -> None:
        self.console = Console(stderr=True, quiet=is_silent, highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._live = Live(
            TextColumn("{task.fields[stage]:<8}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or is_silent,
        )
        self._task: TaskID | None = None
        self._said = 0.0

    def __enter__(self) -> "Terminal":
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Leave the terminal to somebody else."""
        self._live.stop()

    def stage(self, name: str, subject: str) -> None:
        if self._live.disable:
            self._print(f"{name:<8} {subject}")
            return
        if self._task is not None:
            self._live.remove_task(self._task)
        self._task = self._live.add_task(subject, stage=name, total=None)

    def count(self, done: int, about: int | None) -> None:
        if self._task is not None:
            self._live.update(self._task, completed=done, total=about)
        elif time.monotonic() - self._said > 30:
            self._print(f"         {done}{f' of about {about}' if about else ''}")

    def note(self, text: str) -> None:
        self._print(f"         {text}")

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        elapsed = int(self._said - self._began)
        self.console.print(f"{elapsed // 60:3d}:{elapsed % 60:02d}  {text}", markup=False)
