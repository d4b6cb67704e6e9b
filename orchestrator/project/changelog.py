# SPDX-License-Identifier: GPL-2.0-or-later
"""The changelog of the aa tree as numbered entries, to which tests refer."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.guesttest import GuestTest


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of the changelog. ``uncovered`` is the reason why it cannot be tested, if it cannot."""

    id: str
    says: str
    uncovered: str


def load_changelog(files: Sequence[Path], tests: Sequence[GuestTest]) -> tuple[Statement, ...]:
    """The entries of all existing files, in order; a later file replaces entries by number.

    Raises ``UsageError`` for each error of a file and for each test that names an unknown entry.
    """
    text = doc.scalar(doc.text)
    entry = doc.record(
        lambda place, id, says, uncovered="": (place, Statement(id, says, uncovered)),
        {"id": text, "says": text},
        {"uncovered": text},
    )
    shape: doc.Shape[tuple[tuple[doc.Place, Statement], ...]] = doc.record(
        lambda place, entries: entries, {"entries": doc.list_of(entry)}
    )
    found: dict[str, Statement] = {}
    errors: list[UsageError] = []
    present = [file for file in files if file.exists()]
    for file in present:
        places: dict[str, doc.Place] = {}
        for place, one in doc.load_document(file, shape):
            if places.setdefault(one.id, place) is not place:
                what = f"duplicate entry {one.id}, the first is in line {places[one.id].line}"
                errors.append(UsageError(what, where=f"{file}:{place.line}"))
            found[one.id] = one
    for test in tests if present else ():
        for name in test.changelog.split():
            if name not in found:
                what = f"changelog: {present[0].name} has no entry {name}"
                errors.append(UsageError(what, where=str(test.path)))
    raise_all(errors)
    return tuple(found.values())
