# SPDX-License-Identifier: GPL-2.0-or-later
"""The parsed command line together with the declarations and the store: the input of every target."""

import argparse
import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.cli.variables import Setting, find_llvm, read_limit, read_repeat
from orchestrator.cli.wrap import wrap_text
from orchestrator.errors import UsageError, raise_all
from orchestrator.parse.printk import make_printable
from orchestrator.project.root import find_root
from orchestrator.project.trace import TraceRequest, parse_trace
from orchestrator.project.yamlfile import suggest
from orchestrator.store.store import Store, open_default

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    # imported where they are used: cowbell --help must not wait for paramiko
    from orchestrator.cli.terminal import Terminal
    from orchestrator.plan.plan import Declarations, Request
    from orchestrator.plan.workspace import Workspace
    from orchestrator.process.workers import Limits

T = TypeVar("T")
# the targets that take in TESTS= the path of a program, or selftests of the kernel
WITH_PROGRAMS = {"source", "config", "build", "test", "shell", "bisect", "bisect-step"}


@dataclass(frozen=True, slots=True)
class CommandLine:
    """``typed`` are all words, ``targets`` the names of the targets, ``subjects`` the words after one.

    ``settings`` of variables that the targets do not use have their defaults, with ``-p`` they are left out.
    ``is_bare``: neither a target nor a row was chosen, nor any variable set on the command line.
    ``is_first_row``: without ROW= the first row is selected. ``arguments`` are the words after ``--``.
    """

    typed: tuple[str, ...]
    targets: tuple[str, ...]
    subjects: tuple[str, ...]
    settings: Mapping[str, Setting]
    options: argparse.Namespace
    is_bare: bool
    is_first_row: bool
    arguments: tuple[str, ...] = ()


@dataclass
class Call:
    """``show`` prints text on stdout, ``note`` on stderr; ``again`` runs other words in place of these."""

    line: CommandLine
    stack: contextlib.ExitStack
    show: Callable[[str], None]
    again: Callable[[Sequence[str]], int]

    @property
    def command(self) -> str:
        """The command line, ready to be pasted, with what the environment and the preferences have added."""
        others = {name: setting for name, setting in self.settings.items() if setting.is_inherited}
        added = [f"{name}={setting.value}" for name, setting in others.items()]
        end = self.line.typed.index("--") if "--" in self.line.typed else len(self.line.typed)
        return shlex.join(["cowbell", *self.line.typed[:end], *added, *self.line.typed[end:]])

    @property
    def settings(self) -> Mapping[str, Setting]:
        return self.line.settings

    def value(self, name: str) -> str:
        return self.settings[name].value

    @property
    def subjects(self) -> tuple[str, ...]:
        return self.line.subjects

    @property
    def redo(self) -> bool:
        return bool(self.line.options.always_make)

    @property
    def is_dry_run(self) -> bool:
        return bool(self.line.options.dry_run)

    @property
    def folder(self) -> Path | None:
        """``DIR=``, if it is given."""
        return Path(self.value("DIR")).expanduser() if self.value("DIR") else None

    @cached_property
    def root(self) -> Path:
        return find_root(self.line.options.directory)

    @cached_property
    def store(self) -> Store:
        return open_default()

    @cached_property
    def declared(self) -> "Declarations":
        """The project's declarations alone."""
        from orchestrator.plan.declarations import load_declarations

        return load_declarations(self.root)

    @cached_property
    def known(self) -> "Declarations":
        """With the trees, series and prebuilt images of the command line."""
        from orchestrator.plan.inputs import add_inputs
        from orchestrator.project.program import ProgramLimits
        from orchestrator.source.tree import expand

        return add_inputs(
            self.declared,
            self.request.tree,
            self.request.series,
            self.place,
            added=self.request.added,
            is_dirty=self.value("DIRTY") not in ("", "0"),
            modules=self.value("MODULES"),
            redo=self.redo and "source" in self.line.targets,
            built=[expand(word) for word in self.settings["BUILT"].paths],
            programs=self.request.programs,
            limits=ProgramLimits(
                read_limit(self.value("TIMEOUT")),
                read_limit(self.value("FOREVER")),
                self.value("REPEAT") != "1",
            ),
            arguments=self.line.arguments,
            selftests=self.request.tests,
        )

    @cached_property
    def named(self) -> "Declarations":
        """With the tree and series of the command line by name only: they may be on another machine."""
        from orchestrator.plan.inputs import add_names

        return add_names(self.declared, self.request.tree, self.request.series, self.request.added)

    @cached_property
    def rows(self) -> tuple[str, ...]:
        """The rows that ROW= selects, globs and ``all`` expanded; empty for the target's own choice."""
        known = self.declared.rows
        chosen: list[str] = []
        for word in self.settings["ROW"].words:
            found = [name for name in known if fnmatchcase(name, word)]
            if word == "all" and not found:
                found = list(self.declared.usual_rows)
            # an unknown one is reported where the row is looked up
            chosen += found or [word]
        return tuple(dict.fromkeys(chosen))

    def check_rows(self, known: Collection[str] = ()) -> None:
        """Raise for each selected row that is neither declared nor of the ``known`` ones."""
        rows = dict.fromkeys((*self.declared.rows, *known))
        raise_all(
            [
                UsageError(
                    f"there is no row {name}{suggest(name, rows)}",
                    where="ROW",
                    hint=f"there are: {', '.join(rows)}",
                )
                for name in self.rows
                if name not in rows
            ]
        )

    @cached_property
    def request(self) -> "Request":
        from orchestrator.plan.plan import IMAGE_ROW, Request
        from orchestrator.project.arch import find_arch_name
        from orchestrator.project.program import is_program_path, name_program
        from orchestrator.project.selftest import is_selftest
        from orchestrator.source.tree import expand, names_image

        settings = self.settings
        # a shell boots by vng where it can
        is_free = self.line.targets == ("shell",) and settings["BOOT"].origin == "default"
        rows = self.rows
        if self.line.is_first_row and not rows and not self.value("BUILT"):
            is_image = names_image(settings["KERNEL"].value, self.declared.trees)
            rows = (IMAGE_ROW,) if is_image else self.declared.usual_rows[:1]
        tests = settings["TESTS"].paths
        programs = tuple(filter(is_program_path, tests))
        if (selftests := tuple(filter(is_selftest, tests))) and not set(self.line.targets) <= WITH_PROGRAMS:
            what = (
                f"{', '.join(self.line.targets)} does not take the kernel's selftests: {', '.join(selftests)}"
            )
            hint = f"they can be given to {', '.join(sorted(WITH_PROGRAMS))}"
            raise UsageError(what, where="TESTS", hint=hint)
        if programs and not set(self.line.targets) <= WITH_PROGRAMS:
            what = f"{', '.join(self.line.targets)} takes tests by name, not {', '.join(programs)}"
            hint = f"programs can be given to {', '.join(sorted(WITH_PROGRAMS))}"
            raise UsageError(what, where="TESTS", hint=hint)
        return Request(
            rows=rows,
            tree=settings["KERNEL"].value,
            series=settings["SERIES"].paths,
            tests=tuple(name_program(expand(word)) if word in programs else word for word in tests),
            programs=programs,
            arch=find_arch_name(settings["ARCH"].value),
            added=settings["CONFIG+"].paths,
            config=settings["CONFIG"].words,
            accel=settings["ACCEL"].value,
            boot="" if is_free else settings["BOOT"].value,
            debug="1" in [settings[name].value for name in ("DEBUG", "VMCORE", "GDB")],
            trace=self.trace.is_on,
            append=settings["APPEND+"].value,
            qemu=tuple(shlex.split(settings["QEMU+"].value)),
        )

    @cached_property
    def trace(self) -> TraceRequest:
        return parse_trace(self.value("TRACE"))

    @cached_property
    def terminal(self) -> "Terminal":
        from orchestrator.cli.terminal import Terminal

        options = self.line.options
        return self.stack.enter_context(Terminal(is_silent=options.silent, verbosity=options.verbose))

    @cached_property
    def place(self) -> "Workspace":
        from orchestrator.plan.manifest import find_names
        from orchestrator.plan.workspace import Workspace
        from orchestrator.result.repeat import Repeat

        return Workspace(
            self.root,
            self.store,
            self.terminal,
            keep_going=self.line.options.keep_going,
            cc=self.value("CC"),
            llvm=find_llvm(self.value("LLVM")),
            keep_core=self.value("VMCORE") == "1",
            trace=self.trace,
            limits=self._find_limits(),
            what_if=find_names(self.line.options.what_if),
            repeat=Repeat(read_repeat(self.value("REPEAT"))),
        )

    def _find_limits(self) -> "Limits":
        """One job at a time, or as many as -j or the calling make allows."""
        from orchestrator.process.jobserver import Jobserver
        from orchestrator.process.workers import Limits

        options = self.line.options
        if options.jobs is not None:
            jobs = options.jobs or os.cpu_count() or 1
            return Limits(Jobserver.make(jobs), options.load_average, options.keep_going)
        cores = Jobserver.inherit(os.environ)
        if not cores and "--jobserver" in os.environ.get("MAKEFLAGS", ""):
            self.terminal.note("make does not share its jobserver (no + in the recipe): one job at a time")
        return Limits(cores, options.load_average, options.keep_going)

    def choose_subject(self, known: Sequence[str]) -> str:
        """The one word after the target, empty when there is none; raises ``UsageError`` for others."""
        (target,), subjects = self.line.targets, self.subjects
        hint = f"there are: {', '.join(known)}"
        errors = [
            UsageError(f"there is no {word}{suggest(word, known)}", where=target, hint=hint)
            for word in subjects
            if word not in known
        ]
        errors += [UsageError("takes one word", where=target)] if len(subjects) > 1 else []
        raise_all(errors)
        return subjects[0] if subjects else ""

    @property
    def width(self) -> int:
        """The columns of the terminal that shows the product, 0 if stdout is none."""
        return shutil.get_terminal_size().columns if sys.stdout.isatty() else 0

    def fit(self, text: str) -> str:
        """Text with its lines broken at blanks where the terminal would tear a word."""
        return wrap_text(text, self.width) if self.width else text

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            sys.stderr.write(make_printable(f"cowbell: {text}\n"))

    def show_product(self, name: str, as_text: Callable[[T], str], product: T, **parts: object) -> int:
        """Print it as text, or with ``--json`` its parts as product ``name``; always 0, for a status.

        A dataclass has its fields as parts, besides those that are given.
        """
        if self.line.options.json:
            own = vars_of(product) if is_dataclass(product) and not isinstance(product, type) else {}
            self.show(render_product(name, {**own, **parts}))
        else:
            self.show(self.fit(as_text(product)))
        return 0


def vars_of(product: "DataclassInstance") -> dict[str, object]:
    """The fields of a dataclass by name."""
    return {field.name: getattr(product, field.name) for field in fields(product)}


def render_product(name: str, parts: Mapping[str, object]) -> str:
    """Parts of dataclasses and containers as the JSON that ``cowbell schema NAME`` describes."""
    from pydantic_core import to_json

    return to_json({"schema": f"cowbell-{name}-1", **parts}, indent=1, ensure_ascii=True).decode() + "\n"
