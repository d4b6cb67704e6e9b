# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference of the targets as Markdown, made of their declarations: a section per target."""

from collections.abc import Iterable, Iterator

from orchestrator.cli.helptext import list_variables
from orchestrator.cli.registry import list_groups
from orchestrator.cli.target import Target


def render_reference() -> str:
    """All targets by task; headings begin at level 2."""
    parts: list[str] = []
    for group, targets in list_groups().items():
        parts.append(f"## {group[0].upper()}{group[1:]}\n")
        parts += map(render_target, targets)
    return "\n".join(parts)


def render_target(target: Target) -> str:
    return "\n".join(_render(target))


def _render(target: Target) -> Iterator[str]:
    yield from (f"### cowbell {target.name}", "", "```text", target.usage, "```", "")
    yield from (f"{target.about[0].upper()}{target.about[1:]}. {_escape(target.more)}".rstrip(), "")
    if target.variables:
        yield from _render_table("variable", ((f"{name}=", text) for name, text in list_variables(target)))
    if target.own_options:
        yield from _render_table("option", ((option.usage, option.about) for option in target.own_options))
    yield "```text"
    for command, about in target.examples:
        yield f"{command}    # {about}"
    yield from ("```", "")


def _render_table(title: str, entries: Iterable[tuple[str, str]]) -> Iterator[str]:
    yield from (f"| {title} | meaning |", "|---|---|")
    yield from (f"| `{name}` | {_escape(text)} |" for name, text in entries)
    yield ""


def _escape(text: str) -> str:
    return text.replace("|", "\\|").replace("*", "\\*").replace("<", "\\<")
