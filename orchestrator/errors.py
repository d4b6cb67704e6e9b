# SPDX-License-Identifier: GPL-2.0-or-later
"""The exceptions of Cowbell: usage errors, infrastructure errors and kernel failures.

They are separate because they are handled differently: a bisection must not blame a commit for a full disk.
Several errors of one kind are raised as an ``ExceptionGroup``. Any other exception is a bug in Cowbell.
"""

from collections.abc import Sequence
from pathlib import Path
from textwrap import indent


class CowbellError(Exception):
    """What went wrong, where, what to do about it, and the log with the details.

    ``what`` is one sentence without a full stop. ``where`` is ``file:line``, a job or a stage.
    """

    exit_code = 3

    def __init__(self, what: str, *, where: str = "", hint: str = "", log: Path | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.hint = hint
        self.log = log

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.hint:
            text += "\n" + indent(self.hint, "  ")
        if self.log:
            text += f"\n  log: {self.log}"
        return text


class UsageError(CowbellError):
    """A usage error: a wrong argument, file or value. Nothing was run."""

    exit_code = 2


class InfraError(CowbellError):
    """An infrastructure error: a tool, the disk, the network. Says nothing about the kernel."""

    exit_code = 3


class MissingToolError(InfraError):
    """A program, header or library is not installed; ``packages`` are the ones of Debian 12 that have it."""

    def __init__(self, what: str, packages: Sequence[str], *, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.packages = tuple(packages)
        # the arguments that pickle uses to create it again in another process
        self.args = (what, self.packages)


class StageFailure(CowbellError):
    """A kernel failure: the series does not apply, or the kernel does not configure, build or boot.

    It becomes a verdict.
    """

    exit_code = 1

    def __init__(
        self, stage: str, what: str, *, where: str = "", hint: str = "", log: Path | None = None
    ) -> None:
        super().__init__(what, where=where, hint=hint, log=log)
        # the arguments that pickle uses to create it again in another process
        self.args = (stage, what)
        self.stage = stage


def raise_all(errors: Sequence[UsageError]) -> None:
    """Raise every error at once; return when there is none."""
    if errors:
        raise ExceptionGroup("bad input", errors)
