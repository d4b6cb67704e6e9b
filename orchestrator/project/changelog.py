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
    """One statement. ``uncovered`` says why there can be no test for it; empty when there can."""

    id: str
    says: str
    uncovered: str


def load_changelog(files: Sequence[Path], tests: Sequence[GuestTest]) -> tuple[Statement, ...]:
    """Every entry of the files that there are, in order; a later file's takes the place of its number.

    Raises ``UsageError`` for each thing wrong with a file and for each test that names an unknown entry.
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
                what = f"an entry is numbered {one.id} already, in line {places[one.id].line}"
                errors.append(UsageError(what, where=f"{file}:{place.line}"))
            found[one.id] = one
    for test in tests if present else ():
        for name in test.changelog.split():
            if name not in found:
                what = f"changelog: {present[0].name} has no entry {name}"
                errors.append(UsageError(what, where=str(test.path)))
    raise_all(errors)
    return tuple(found.values())
