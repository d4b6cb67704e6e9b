# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the declarations of mutants: ``ci/mutants.yaml`` and ``patches/mutants/*.yaml``."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.project import yamlfile as doc
from orchestrator.project.condition import Condition


@dataclass(frozen=True, slots=True)
class CodeChange:
    """In one function, ``code`` becomes another, in which ``MUTANT`` is whether the mutant is on.

    ``code`` must be there once; how it is broken into lines and indented does not matter. ``series`` names
    the series that the code is of, if it is not the tree's.
    """

    when: Condition
    series: str
    file: str
    function: str
    code: str
    becomes: str
    where: str


@dataclass(frozen=True, slots=True)
class WrittenMutant:
    """A mutant written by hand: the rule that it breaks, what a user loses, and its changes by kernel."""

    name: str
    rule: str
    loses: str
    changes: tuple[CodeChange, ...]


@dataclass(frozen=True, slots=True)
class MutantSpec:
    """``functions`` are globs by file; ``equivalent`` has by mutant (a glob) why no program can notice it.

    ``unreached`` has by line (a glob of ``FILE:FUNCTION:N: CODE``) why no test reaches it.
    """

    functions: Mapping[str, tuple[str, ...]]
    equivalent: Mapping[str, str] = field(default_factory=dict)
    unreached: Mapping[str, str] = field(default_factory=dict)
    written: tuple[WrittenMutant, ...] = ()


def _make_change(
    place: doc.Place,
    file: str,
    function: str,
    code: str,
    becomes: str,
    when: Condition | None = None,
    series: str = "",
) -> CodeChange:
    if "MUTANT" not in becomes:
        raise ValueError("expected MUTANT in becomes: whether the mutant is on")
    return CodeChange(when or Condition(), series, file, function, code, becomes, str(place))


_TEXT = doc.scalar(doc.text)
_SPEC: doc.Shape[MutantSpec] = doc.record(
    lambda place, functions, equivalent=None, unreached=None: MutantSpec(
        functions, equivalent or {}, unreached or {}
    ),
    {"functions": doc.mapping_of(doc.list_of(_TEXT))},
    {"equivalent": doc.mapping_of(_TEXT), "unreached": doc.mapping_of(_TEXT)},
)
_CHANGE = doc.record(
    _make_change,
    {"file": _TEXT, "function": _TEXT, "code": _TEXT, "becomes": _TEXT},
    {"when": doc.condition, "series": _TEXT},
)
_WRITTEN: doc.Shape[tuple[WrittenMutant, ...]] = doc.record(
    lambda place, mutants: mutants,
    {
        "mutants": doc.list_of(
            doc.record(
                lambda place, **fields: WrittenMutant(**fields),
                {"name": doc.name, "rule": _TEXT, "loses": _TEXT, "changes": doc.list_of(_CHANGE)},
            )
        )
    },
)


def load_mutants(file: Path) -> MutantSpec:
    """Raises ``UsageError`` for each thing wrong with the file, all at once."""
    return doc.load_document(file, _SPEC)


def load_written(file: Path) -> tuple[WrittenMutant, ...]:
    """Raises ``UsageError`` for each thing wrong with the file, all at once."""
    return doc.load_document(file, _WRITTEN)
