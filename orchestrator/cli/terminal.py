# SPDX-License-Identifier: GPL-2.0-or-later
"""Shows progress: a live view on a terminal, otherwise a line with the time per stage.

In the log of a GitLab job each stage is a collapsed section.
"""

import os
import re
import time
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from orchestrator.cli.wrap import wrap_text
from orchestrator.parse.printk import make_printable
from orchestrator.status import Status

_REFRESH_S = 0.2
# interval of the progress lines of a long stage, where stderr is no terminal
_COUNT_S = 30


@dataclass(slots=True)
class _Job:
    """The current stage of one job, or of the command itself."""

    name: str
    began: float
    stage: str = ""
    subject: str = ""
    done: int = 0
    about: int | None = None
    unit: str = ""
    said: float = 0.0

    @property
    def counted(self) -> str:
        """What is done of the stage, with its unit; empty if nothing is counted."""
        of = f"/{self.about}" if self.about else ""
        return f"{self.done}{of} {self.unit}" if self.unit else ""


class _JobProgress:
    """The ``Progress`` of one job of a terminal."""

    def __init__(self, terminal: "Terminal", job: _Job) -> None:
        self._terminal, self._job = terminal, job

    def stage(self, name: str, subject: str) -> None:
        job = self._job
        job.stage, job.subject, job.unit = name, make_printable(subject), ""
        job.done, job.about = 0, None
        self._terminal.show(job, f"{name:<8} {subject}")

    def count(self, done: int, about: int | None, unit: str) -> None:
        job = self._job
        job.done, job.about, job.unit = done, about, unit
        self._terminal.show_count(job)

    def verdict(self, status: Status, text: str) -> None:
        self._terminal.say(self._job, text, status.style)

    def note(self, text: str) -> None:
        self._terminal.say(self._job, f"         {text}")

    def detail(self, text: str) -> None:
        if self._terminal.verbosity:
            self._terminal.say(self._job, f"         {text}")

    def command(self, line: str) -> None:
        if self._terminal.verbosity > 1:
            self._terminal.say(self._job, f"         {line}")

    def expect(self, seconds: float) -> None:
        pass


class Terminal(_JobProgress):
    """A ``Board`` on stderr. ``is_silent`` shows nothing, ``verbosity`` is the number of ``-v``."""

    def __init__(self, *, is_silent: bool = False, verbosity: int = 0) -> None:
        self.console = Console(stderr=True, quiet=is_silent, highlight=False, soft_wrap=True)
        self.verbosity = verbosity
        self._began = self._refreshed = time.monotonic()
        self._jobs: dict[str, _Job] = {}
        self._overall = ""
        self._has_sections = os.environ.get("GITLAB_CI") == "true" and not is_silent
        self._section = ""
        super().__init__(self, _Job("", self._began))
        self._is_live = self.console.is_terminal and not self.console.is_dumb_terminal and not is_silent
        self._live = Live(
            console=self.console,
            get_renderable=self._render,
            # no thread of its own: workers are forked from here
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> "Terminal":
        if self._is_live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """End the live view; the terminal is free for other output."""
        self._end_section()
        self._live.stop()
        self._is_live = False

    def for_job(self, name: str) -> _JobProgress:
        job = self._jobs.setdefault(name, _Job(name, time.monotonic()))
        return _JobProgress(self, job)

    def end_job(self, name: str, outcome: str) -> None:
        job = self._jobs.pop(name, None)
        self._end_section()
        # an up-to-date job has printed nothing
        if job and job.stage:
            self.say(job, f"{outcome:<8} after {_clock(time.monotonic() - job.began)}")

    def overall(self, done: int, total: int, left_s: float | None) -> None:
        rest = f", about {_clock(left_s)} left" if left_s else ""
        self._overall = f"{done} of {total} kernels done{rest}" if total > 1 or rest else ""
        if self._is_live and time.monotonic() - self._refreshed > _REFRESH_S:
            self._refresh()

    def show(self, job: _Job, text: str) -> None:
        """Show a new stage of a job: in the live view, or as a line."""
        if self._is_live:
            self._refresh()
        else:
            self._end_section()
            # sections of parallel jobs would mix their lines
            if self._has_sections and len(self._jobs) < 2:
                self._section = re.sub(r"[^\w.-]+", "_", f"{job.name}.{job.stage}.{time.monotonic_ns()}")
                self._mark_section("start", "[collapsed=true]")
            self.say(job, text)

    def _end_section(self) -> None:
        if self._section:
            self._mark_section("end")
            self._section = ""

    def _mark_section(self, edge: str, options: str = "") -> None:
        """Begin or end a section; the line after its begin is its title."""
        # https://docs.gitlab.com/ci/jobs/job_logs/#custom-collapsible-sections
        mark = f"section_{edge}:{int(time.time())}:{self._section}{options}"
        self.console.file.write(f"\x1b[0K{mark}\r\x1b[0K")
        self.console.file.flush()

    def show_count(self, job: _Job) -> None:
        now = time.monotonic()
        if self._is_live:
            if now - self._refreshed > _REFRESH_S:
                self._refresh()
        elif now - job.said > _COUNT_S:
            self.say(job, f"         {job.counted}")

    def say(self, job: _Job, text: str, style: str = "") -> None:
        """A line of a job with the time. ``style`` is that of the text's first word."""
        job.said = time.monotonic()
        name = f"{job.name:<24} " if job.name else ""
        start = f"{_clock(job.said - self._began):>6}  {name}"
        line = f"{start}{make_printable(text)}"
        if self.console.is_terminal:
            line = wrap_text(line, self.console.width, len(start) + len(text) - len(text.lstrip()))
        shown = Text(line)
        if style:
            shown.stylize(style, len(start), len(start) + len(text.partition(" ")[0]))
        self.console.print(shown)

    def _refresh(self) -> None:
        self._refreshed = time.monotonic()
        self._live.refresh()

    def _render(self) -> RenderableType:
        """A line per job and a summary, at most as many lines as the terminal has."""
        table = Table.grid(padding=(0, 2, 0, 0), expand=False)
        for _ in range(4):
            table.add_column(no_wrap=True, overflow="ellipsis")
        now = time.monotonic()
        jobs = [job for job in (self._job, *self._jobs.values()) if job.stage]
        if self._jobs:
            jobs = [job for job in jobs if job.name]
        room = max(1, self.console.height - 2)
        for job in jobs[:room]:
            counted: RenderableType = Text(job.subject)
            if job.about:
                bar = ProgressBar(total=job.about, completed=min(job.done, job.about), width=12)
                counted = Table.grid(padding=(0, 1, 0, 0))
                counted.add_row(bar, job.counted)
            elif job.unit:
                counted = Text(job.counted)
            table.add_row(Text(job.name), Text(job.stage, style="bold"), _clock(now - job.began), counted)
        left = [f"and {len(jobs) - room} more"] if len(jobs) > room else []
        lines = [text for text in (*left, self._overall) if text]
        return Group(table, *(Text(f"{_clock(now - self._began):>6}  {line}") for line in lines))


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 60}:{whole % 60:02d}"
