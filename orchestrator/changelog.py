# SPDX-License-Identifier: GPL-2.0-or-later
"""The changelog that the catalogue covers: what its author says of each snapshot, as numbered statements."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator import document as doc
from orchestrator.errors import UsageError, raise_all
from orchestrator.guesttest import GuestCase


@dataclass(frozen=True, slots=True)
class Entry:
    """One statement. ``uncovered`` says why there can be no case for it; empty when there can."""

    id: str
    says: str
    uncovered: str


def load_changelog(file: Path, cases: Sequence[GuestCase]) -> tuple[Entry, ...]:
    """Every entry in order; no file, no entries.

    Raises ``UsageError`` for each thing wrong with the file and for each case that names an unknown entry.
    """
    if not file.exists():
        return ()
    text = doc.scalar(doc.text)
    entry = doc.record(
        lambda place, id, says, uncovered="": Entry(id, says, uncovered),
        {"id": text, "says": text},
        {"uncovered": text},
    )
    shape: doc.Shape[tuple[Entry, ...]] = doc.record(
        lambda place, entries: entries, {"entries": doc.list_of(entry)}
    )
    entries = doc.load_document(file, shape)
    raise_all(list(_check(entries, cases, file)))
    return entries


def _check(entries: Sequence[Entry], cases: Sequence[GuestCase], file: Path) -> Iterator[UsageError]:
    ids = [entry.id for entry in entries]
    for name in sorted({name for name in ids if ids.count(name) > 1}):
        yield UsageError(f"two entries are numbered {name}", where=str(file))
    for case in cases:
        for name in case.changelog.split():
            if name not in ids:
                yield UsageError(f"changelog: {file.name} has no entry {name}", where=str(case.path))
