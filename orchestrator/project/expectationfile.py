# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds entries to ``ci/expectations.yaml`` and removes some; all other bytes, with the comments, stay.

The lines of an entry are found with the YAML parser. Nothing is written here.
"""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from orchestrator.errors import UsageError
from orchestrator.project.condition import Condition
from orchestrator.project.matrix import Expectation, load_expectations
from orchestrator.status import Status

_KEY = "expectations"


@dataclass(frozen=True, slots=True)
class NewEntry:
    """An entry to add. ``series`` are names, an empty one is the tree without series."""

    test: str
    status: Status
    when: str
    why: str
    series: tuple[str, ...] = ("",)
    fingerprint: str = ""

    def render(self, indent: str) -> list[str]:
        """The lines of the file."""
        fields = {"test": self.test, "status": self.status.value, "when": self.when}
        if self.fingerprint:
            fields["fingerprint"] = self.fingerprint
        if self.series != ("",):
            fields["series"] = " ".join(name or "none" for name in self.series)
        fields["why"] = self.why
        lines = yaml.safe_dump([fields], sort_keys=False, width=100, allow_unicode=True).splitlines()
        return [f"{indent}{line}\n" for line in lines]


def edit_expectations(
    file: Path, text: str, added: Sequence[NewEntry], removed: Collection[Expectation]
) -> str:
    """The text of a file with new entries at the top of its list, where they match first.

    ``text`` is valid, or empty if there is no file. Raises ``UsageError`` if the list is on one line.
    """
    lines = text.splitlines(keepends=True) or [f"{_KEY}:\n"]
    root = yaml.compose("".join(lines), Loader=yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    ((key, value),) = [(key, value) for key, value in root.value if key.value == _KEY]
    entries = value.value if isinstance(value, yaml.SequenceNode) else []
    if entries and value.flow_style:
        what = "has its list on one line, where no entry can be added or removed"
        raise UsageError(what, where=f"{file}:{value.start_mark.line + 1}", hint="write one entry per line")
    gone = {int(one.where.rpartition(":")[2]) - 1 for one in removed}
    left = [entry for entry in entries if entry.start_mark.line not in gone]
    indent = " " * (_find_dash(lines, entries[0])[1] if entries else 2)
    head = f"{_KEY}:\n" if left or added else f"{_KEY}: []\n"
    dropped = {
        number
        for entry in entries
        if entry not in left
        for number in range(_find_dash(lines, entry)[0], _find_last(lines, entry) + 1)
    }
    # a list on the line of its key is empty
    lines[key.start_mark.line] = head if not entries or not left else lines[key.start_mark.line]
    made: list[str] = []
    for number, line in enumerate(lines):
        if number not in dropped:
            made.append(line if line.endswith("\n") else f"{line}\n")
        if number == key.start_mark.line:
            made += [rendered for entry in added for rendered in entry.render(indent)]
    edited = "".join(made)
    _check(file, text, edited, added, removed)
    return edited


def _find_dash(lines: Sequence[str], entry: yaml.Node) -> tuple[int, int]:
    """The line and the column of the dash before an entry."""
    number, before = entry.start_mark.line, lines[entry.start_mark.line][: entry.start_mark.column]
    while "-" not in before:
        number -= 1
        before = lines[number]
    return number, before.index("-")


def _find_last(lines: Sequence[str], entry: yaml.Node) -> int:
    """The last line of an entry; its end mark may be at the next entry."""
    mark = entry.end_mark
    number = (
        mark.line if mark.line < len(lines) and lines[mark.line][: mark.column].strip() else mark.line - 1
    )
    while number > entry.start_mark.line and lines[number].strip()[:1] in ("", "#", "-"):
        number -= 1
    return number


def _check(
    file: Path, text: str, edited: str, added: Sequence[NewEntry], removed: Collection[Expectation]
) -> None:
    """The edited file must have exactly the new and the other old entries."""

    def load(content: str) -> list[Expectation]:
        with tempfile.TemporaryDirectory(prefix="cowbell-expect-") as folder:
            draft = Path(folder) / file.name
            draft.write_text(content)
            return [replace(one, where="") for one in load_expectations(draft)]

    gone = {int(one.where.rpartition(":")[2]) for one in removed}
    with tempfile.TemporaryDirectory(prefix="cowbell-expect-") as folder:
        draft = Path(folder) / file.name
        draft.write_text(text or f"{_KEY}: []\n")
        old = [one for one in load_expectations(draft) if int(one.where.rpartition(":")[2]) not in gone]
    new = [
        Expectation(
            one.test,
            one.status,
            one.why,
            Condition.parse(one.when),
            "",
            None,
            one.fingerprint,
            frozenset(one.series),
        )
        for one in added
    ]
    assert load(edited) == [*new, *(replace(one, where="") for one in old)], "the edited file is wrong"
