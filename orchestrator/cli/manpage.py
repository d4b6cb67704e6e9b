# SPDX-License-Identifier: GPL-2.0-or-later
"""Renders the manual page in man(7) macros."""

from collections.abc import Iterable, Iterator

from orchestrator.cli.glossary import EXITS, VERDICTS
from orchestrator.cli.helptext import ABOUT, BARE, ORIGINS
from orchestrator.cli.options import OPTIONS
from orchestrator.cli.target import TARGETS
from orchestrator.cli.variables import VARIABLES

_ENVIRONMENT = {
    "COWBELL_STORE": "The store of trees, images and results, instead of ~/.cache/cowbell.",
    "COWBELL_RESULTS": "The folder of results, runs and history, instead of the store.",
    "MAKEFLAGS": "Set by make: its jobserver is used, and its options -n, -k, -s and -B.",
    "NO_COLOR": "No colours.",
}


def render(version: str) -> str:
    """The whole page as roff."""
    return "\n".join(_render(version)) + "\n"


def _render(version: str) -> Iterator[str]:
    yield f'.TH COWBELL 1 "" "Cowbell {version}" "User Commands"'
    yield from (".SH NAME", "cowbell \\- test kernels for coherence of pinned pages under copy\\-on\\-write")
    yield ".SH SYNOPSIS"
    yield ".B cowbell"
    yield "[\\fIOPTIONS\\fR] [\\fITARGET\\fR...] [\\fIVAR\\fR=\\fIvalue\\fR...]"
    yield from (".SH DESCRIPTION", _escape(ABOUT), _escape(BARE))
    yield from (
        "Targets depend on each other, and up\\-to\\-date steps are not repeated, as in",
        ".BR make (1).",
    )
    yield ".SH TARGETS"
    for target in TARGETS.values():
        uses = f" Variables: {', '.join(target.variables)}." if target.variables else ""
        options = ", ".join(option.usage for option in target.own_options)
        uses += f" Options: {options}." if options else ""
        about = f"{target.about[0].upper()}{target.about[1:]}. {target.more}".rstrip()
        yield from _list([(f"{target.name} {target.takes}".rstrip(), f"{about}{uses}")])
    yield from (".SH VARIABLES", _escape(f"A value comes from the first of {ORIGINS}."))
    yield from _list(
        (
            f"{name}{'' if variable.is_inherited else ' *'}",
            f"{variable.about}. {variable.more}".rstrip(),
        )
        for name, variable in VARIABLES.items()
    )
    yield ".SH OPTIONS"
    yield from _list((option.usage, option.about) for option in OPTIONS.values())
    yield ".SH VERDICTS"
    yield from _list(VERDICTS.items())
    yield ".SH EXIT STATUS"
    yield from _list((str(status), meaning) for status, meaning in EXITS.items())
    yield ".SH ENVIRONMENT"
    yield from _list(_ENVIRONMENT.items())
    yield ".SH EXAMPLES"
    for target in TARGETS.values():
        for line, about in target.examples:
            yield from (_escape(f"{about[0].upper()}{about[1:]}:"), ".PP", ".RS", ".nf", _escape(line))
            yield from (".fi", ".RE", ".PP")
    yield from (".SH SEE ALSO", ".BR make (1),", ".BR vng (1),", ".BR git\\-bisect (1)")


def _list(entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, about in entries:
        yield from (".TP", f".B {_escape(name)}", _escape(about))


def _escape(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-")
    # a dot or a quote at the start of a line would begin a macro
    return f"\\&{text}" if text.startswith((".", "'")) else text
