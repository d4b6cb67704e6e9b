# SPDX-License-Identifier: GPL-2.0-or-later
"""Renders the manual page in man(7) macros."""

import argparse
from collections.abc import Iterable, Iterator

from orchestrator.cli.glossary import EXITS, VERDICTS
from orchestrator.cli.grammar import TARGETS, VARIABLES

_EXAMPLES = {
    "cowbell test ROW=demo": "Build the kernels of a row, boot them, run its tests, and report.",
    "cowbell \\-n test ROW=demo KERNEL=/path/to/linux": "What that would do with another tree, and why.",
    "cowbell \\-j test": "All rows, as many at a time as there are cores.",
    "cowbell explain BROKEN": "What a verdict means.",
}


def render(parser: argparse.ArgumentParser, version: str) -> str:
    """The whole page as roff."""
    return "\n".join(_render(parser, version)) + "\n"


def _render(parser: argparse.ArgumentParser, version: str) -> Iterator[str]:
    yield f'.TH COWBELL 1 "" "Cowbell {version}" "User Commands"'
    yield from (
        ".SH NAME",
        "cowbell \\- test that pinned pages stay coherent under copy\\-on\\-write",
    )
    yield from (
        ".SH SYNOPSIS",
        ".B cowbell",
        "[\\fIOPTIONS\\fR] [\\fITARGET\\fR...] [\\fIVAR\\fR=\\fIvalue\\fR...]",
    )
    yield ".SH DESCRIPTION"
    yield "Builds kernels, boots them under QEMU, runs reproducers inside, and judges what they came to."
    yield "Targets depend on each other, and what is up to date is not done again, as in"
    yield ".BR make (1)."
    yield ".SH TARGETS"
    yield from _list((f"{name} {one.takes}".rstrip(), one.about) for name, one in TARGETS.items())
    yield ".SH VARIABLES"
    yield "Taken from the command line, else from the environment, else from"
    yield ".IR ~/.config/cowbell.yaml ,"
    yield "else from the row. CC, DIR and SIZE are not taken from the environment."
    yield from _list((name, one.about) for name, one in VARIABLES.items())
    yield ".SH OPTIONS"
    actions = [action for action in parser._actions if action.option_strings]
    yield from _list(
        (
            ", ".join(action.option_strings) + (f" {action.metavar}" if action.metavar else ""),
            action.help or "",
        )
        for action in actions
    )
    yield ".SH VERDICTS"
    yield from _list(VERDICTS.items())
    yield ".SH EXIT STATUS"
    yield from _list((str(status), meaning) for status, meaning in EXITS.items())
    yield ".SH ENVIRONMENT"
    environment = {
        "COWBELL_STORE": "Where all that is built and earned lies, instead of ~/.cache/cowbell.",
        "MAKEFLAGS": "Of the make that calls: its jobserver's cores are used, and its -n, -k, -s and -B.",
        "NO_COLOR": "No colours.",
    }
    yield from _list(environment.items())
    yield ".SH EXAMPLES"
    for line, about in _EXAMPLES.items():
        yield from (about, ".PP", ".RS", ".nf", line, ".fi", ".RE", ".PP")
    yield from (".SH SEE ALSO", ".BR make (1),", ".BR vng (1),", ".BR git\\-bisect (1)")


def _list(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, about in entries:
        yield from (".TP", f".B {_escape(name)}", _escape(about))


def _escape(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    # a dot or a quote at the start of a line would be a macro
    return f"\\&{text}" if text.startswith((".", "'")) else text
