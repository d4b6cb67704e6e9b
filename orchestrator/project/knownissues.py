# SPDX-License-Identifier: GPL-2.0-or-later
"""Known issues: splats that do not count against the kernel under test (``ci/known-splats.yaml``).

Each has a reason, and optionally a date after which it counts again. They are still reported.
"""

import datetime
from dataclasses import dataclass
from pathlib import Path

from orchestrator.parse.splat import SplatKind
from orchestrator.project import yamlfile as doc
from orchestrator.project.condition import Condition


@dataclass(frozen=True, slots=True)
class KnownIssue:
    """Splats with a ``fingerprint`` (or glob), on kernels that match ``when``, until a day."""

    fingerprint: str
    why: str
    when: Condition
    until: datetime.date | None
    where: str


def _make(
    place: doc.Place,
    fingerprint: str,
    why: str,
    when: Condition | None = None,
    until: datetime.date | None = None,
) -> KnownIssue:
    kind, _, names = fingerprint.partition(":")
    faults = sorted(kind for kind in SplatKind if kind.is_fault)
    if kind not in faults or not names.strip("*?/"):
        expected = f"one of {', '.join(faults)}, then a colon and functions, as in reports"
        raise ValueError(f"fingerprint: expected {expected}; got {fingerprint}")
    return KnownIssue(fingerprint, why, when or Condition(), until, f"{place.file}:{place.line}")


_TEXT = doc.scalar(doc.text)
_SHAPE: doc.Shape[tuple[KnownIssue, ...]] = doc.record(
    lambda place, splats: splats,
    {
        "splats": doc.list_of(
            doc.record(
                _make,
                {"fingerprint": _TEXT, "why": _TEXT},
                {"when": doc.condition, "until": doc.scalar(doc.day)},
            )
        )
    },
)


def load_known_issues(file: Path) -> tuple[KnownIssue, ...]:
    """The known issues of a file, none if it does not exist; raises all errors at once as ``UsageError``."""
    return doc.load_document(file, _SHAPE) if file.exists() else ()
