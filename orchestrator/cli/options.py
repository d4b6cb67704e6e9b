# SPDX-License-Identifier: GPL-2.0-or-later
"""The options of the command line, and the parser made of them."""

import argparse
import contextlib
import math
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from orchestrator.errors import UsageError

_SWITCH: Mapping[str, Any] = {"action": "store_true"}


@dataclass(frozen=True, slots=True)
class Option:
    """``is_common``: every target takes it. ``parsing`` is for ``add_argument``."""

    flags: tuple[str, ...]
    about: str
    is_common: bool = False
    parsing: Mapping[str, Any] = field(default_factory=lambda: _SWITCH)

    @property
    def name(self) -> str:
        return self.flags[-1]

    @property
    def usage(self) -> str:
        metavar = self.parsing.get("metavar", "")
        metavar = f"[{metavar}]" if self.parsing.get("nargs") == "?" else metavar
        return f"{', '.join(self.flags)} {metavar}".rstrip()


def _read_folder(word: str) -> Path | None:
    return Path(word) if word else None


def _read_jobs(word: str) -> int:
    # a byte for each in a pipe, which has at least a page
    if not word.isascii() or not word.isdecimal() or len(word) > 4 or int(word) > 4096:
        raise ArgumentTypeError(f"expected a number from 0 to 4096, got {word}")
    return int(word)


def _read_load(word: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(word) < math.inf:
            return float(word)
    raise ArgumentTypeError(f"expected a number above 0, got {word}")


OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option(("-n", "--dry-run"), "print what would be done and why; do nothing", is_common=True),
        Option(("-k", "--keep-going"), "continue with the other jobs or patches after a failure"),
        Option(("-B", "--always-make"), "redo the named targets although they are up to date"),
        Option(
            ("-C", "--directory"),
            "user overlay; default: the nearest one upwards from here",
            is_common=True,
            parsing={"type": _read_folder, "metavar": "DIR"},
        ),
        Option(
            ("-j", "--jobs"),
            "run jobs in parallel on N cores; on all cores without N",
            parsing={"type": _read_jobs, "nargs": "?", "const": 0, "metavar": "N"},
        ),
        Option(
            ("-l", "--load-average"),
            "with -j: start no job above this load",
            parsing={"type": _read_load, "metavar": "LOAD"},
        ),
        Option(
            ("-W", "--what-if"),
            "treat FILE as changed; may be repeated",
            parsing={"action": "append", "default": [], "metavar": "FILE"},
        ),
        Option(("--changelog",), "list the changelog's entries with their tests and results"),
        Option(("--check",), "report what GitLab would reject, instead of printing the pipeline"),
        Option(("--failed",), "show only the results that are not as expected"),
        Option(("--json",), "print JSON; cowbell schema NAME prints its schema"),
        Option(
            ("-v", "--verbose"),
            "report each subtest on stderr; -vv: each command, too",
            is_common=True,
            parsing={"action": "count", "default": 0},
        ),
        Option(("-s", "--silent"), "no progress on stderr", is_common=True),
        Option(("-p", "--print-variables"), "print variables, values and origins, and stop", is_common=True),
        Option(("-h", "--help"), "print help, of the named targets if any, and stop", is_common=True),
        Option(("--version",), "print the version and stop", is_common=True),
    )
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message.removeprefix("argument "), hint="cowbell --help lists the options")


def parse_options(words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, with all other words as ``words``, and the options that do not exist."""
    parser = _Parser(prog="cowbell", add_help=False)
    parser.add_argument("words", nargs="*")
    for option in OPTIONS.values():
        parser.add_argument(*option.flags, **option.parsing)
    return parser.parse_known_intermixed_args(_settle_jobs(words))


def list_given(options: argparse.Namespace) -> list[Option]:
    """The options that differ from their defaults."""
    return [
        option
        for name, option in OPTIONS.items()
        if getattr(options, name[2:].replace("-", "_")) not in (None, False, [])
    ]


def _settle_jobs(words: Sequence[str]) -> list[str]:
    """Spell ``-j`` as ``-j0`` where no number follows it, as make has it."""
    following = [*words[1:], ""]
    return [
        "-j0" if word in ("-j", "--jobs") and not following[i].isdigit() else word
        for i, word in enumerate(words)
    ]
