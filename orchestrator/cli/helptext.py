# SPDX-License-Identifier: GPL-2.0-or-later
"""Help for people: an overview, and a page per target, both at most 80 columns wide."""

import importlib.metadata
import textwrap
from collections.abc import Iterable, Iterator

from orchestrator.cli.glossary import EXITS
from orchestrator.cli.options import OPTIONS, Option
from orchestrator.cli.target import Target, list_groups
from orchestrator.cli.variables import VARIABLES

USAGE = "cowbell [OPTIONS] [TARGET...] [VAR=value...]"
ABOUT = (
    "Cowbell tests that pinned pages stay coherent under copy-on-write: it builds kernels, boots them "
    "under QEMU, runs tests in the guests, and reports a verdict for each test."
)
BARE = (
    "Without a target and variables, cowbell tests the first row of the nearest user overlay that has "
    "rows of its own; elsewhere it prints this help."
)
ORIGINS = "the command line, the environment (except those marked *), ~/.config/cowbell.yaml, the row"
_WIDTH = 80


def find_version() -> str:
    try:
        return importlib.metadata.version("cowbell")
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def render_overview() -> str:
    parts = [f"usage: {USAGE}", _wrap(ABOUT), _wrap(BARE)]
    for group, targets in list_groups().items():
        parts.append(_render(f"{group}:", ((target.name, target.about) for target in targets), 17))
    variables = ((name + ("" if one.is_inherited else " *"), one.about) for name, one in VARIABLES.items())
    parts.append(_render(_wrap(f"variables; a value comes from the first of {ORIGINS}:"), variables, 17))
    parts.append(_render("options:", _list_options(OPTIONS.values()), 26))
    parts.append(_render("exit status:", ((str(key), text) for key, text in EXITS.items()), 17))
    parts.append("cowbell help TARGET shows the variables, options and examples of a target.")
    return "\n\n".join(parts) + "\n"


def render_target(target: Target) -> str:
    """What it does, its variables, options and examples."""
    about = f"{target.about[0].upper()}{target.about[1:]}. {target.more}".rstrip()
    parts = [f"usage: {target.usage}", _wrap(about)]
    if target.variables:
        parts.append(_render("variables:", list_variables(target), 17))
    if target.own_options:
        parts.append(_render("options:", _list_options(target.own_options), 26))
    common = ", ".join(option.flags[0] for option in target.options if option.is_common)
    parts.append(_wrap(f"Every target also takes {common}; see cowbell help."))
    examples = "\n".join(f"  {command}\n      {text}" for command, text in target.examples)
    parts.append(f"examples:\n{examples}")
    return "\n\n".join(parts) + "\n"


def list_variables(target: Target) -> Iterator[tuple[str, str]]:
    """Each variable of a target with all about it."""
    for name in target.variables:
        variable = VARIABLES[name]
        default = target.default_row if name == "ROW" else variable.default
        default = f" (default: {default})" if default else ""
        more = f". {variable.more}" if variable.more else ""
        yield name, f"{variable.about}{default}{more}"


def _list_options(options: Iterable[Option]) -> Iterator[tuple[str, str]]:
    return ((option.usage, option.about) for option in options)


def _wrap(text: str) -> str:
    return textwrap.fill(text, _WIDTH, break_on_hyphens=False)


def _render(title: str, entries: Iterable[tuple[str, str]], indent: int) -> str:
    """A title, and entries in two columns, the second one wrapped."""
    lines = [title]
    for name, about in entries:
        first = f"  {name}".ljust(indent)
        wrapped = textwrap.wrap(about, _WIDTH - indent, break_on_hyphens=False)
        if len(first.rstrip()) >= indent:
            lines.append(first)
            first = " " * indent
        lines += [first + wrapped[0], *(" " * indent + line for line in wrapped[1:])]
    return "\n".join(lines)
