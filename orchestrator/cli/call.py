# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsed command line together with the declarations and the store: the input of every target."""

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.grammar import Setting, read_repeat
from orchestrator.store.store import Store

if TYPE_CHECKING:
    # imported where they are used: cowbell --help must not wait for paramiko
    from orchestrator.cli.terminal import Terminal
    from orchestrator.plan.plan import Declarations, Request
    from orchestrator.plan.workspace import Workspace
    from orchestrator.process.workers import Limits

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the command. ``show`` puts text on stdout.

    ``targets`` are those named, in their order, ``subjects`` what is named after one; ``words`` is all that
    was typed, ``command`` the line as it can be pasted.
    """

    targets: tuple[str, ...]
    subjects: tuple[str, ...]
    settings: Mapping[str, Setting]
    options: argparse.Namespace
    words: Sequence[str]
    command: str
    request: "Request"
    declared: "Declarations"
    place: "Workspace"
    terminal: "Terminal"
    show: Callable[[str], None]

    def value(self, name: str) -> str:
        return self.settings[name].value

    @property
    def folder(self) -> Path | None:
        """``DIR=``, if it is given."""
        return find_folder(self.settings)

    def show_product(self, as_text: Callable[[T], str], as_json: Callable[[T], str], product: T) -> int:
        """Show it as text or as JSON; the exit status of who only shows."""
        self.show((as_json if self.options.json else as_text)(product))
        return 0


def find_folder(settings: Mapping[str, Setting]) -> Path | None:
    return Path(settings["DIR"].value).expanduser() if settings["DIR"].value else None


def make_request(targets: Sequence[str], settings: Mapping[str, Setting]) -> "Request":
    from orchestrator.plan.plan import Request

    # a shell comes by vng where it can
    is_free = tuple(targets) == ("shell",) and settings["BOOT"].origin == "default"
    return Request(
        rows=settings["ROW"].words,
        tree=settings["KERNEL"].value,
        series=settings["SERIES"].words,
        tests=settings["TESTS"].words,
        arch=settings["ARCH"].value,
        config=settings["CONFIG"].words,
        accel=settings["ACCEL"].value,
        boot="" if is_free else settings["BOOT"].value,
    )


def make_place(
    root: Path,
    store: Store,
    settings: Mapping[str, Setting],
    options: argparse.Namespace,
    terminal: "Terminal",
) -> "Workspace":
    from orchestrator.plan.manifest import find_names
    from orchestrator.plan.workspace import Workspace
    from orchestrator.result.repeat import Repeat

    return Workspace(
        root,
        store,
        terminal,
        keep_going=options.keep_going,
        cc=settings["CC"].value,
        use_llvm=settings["LLVM"].value == "1",
        keep_core=settings["VMCORE"].value == "1",
        limits=_find_limits(options, terminal),
        what_if=find_names(options.what_if),
        repeat=Repeat(read_repeat(settings["REPEAT"].value)),
    )


def _find_limits(options: argparse.Namespace, terminal: "Terminal") -> "Limits":
    """One job at a time, or as many as -j or the make that called us allows."""
    from orchestrator.process.jobserver import Jobserver
    from orchestrator.process.workers import Limits

    if options.jobs is not None:
        jobs = options.jobs or os.cpu_count() or 1
        return Limits(Jobserver.make(jobs), options.load_average, options.keep_going)
    cores = Jobserver.inherit(os.environ)
    if not cores and "--jobserver" in os.environ.get("MAKEFLAGS", ""):
        terminal.note("make keeps its jobserver from us, its recipe has no +: one job at a time")
    return Limits(cores, options.load_average, options.keep_going)
