# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads ``ci/mutants.yaml``: the functions to mutate, and the mutants that change nothing."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.project import yamlfile as doc


@dataclass(frozen=True, slots=True)
class MutantSpec:
    """``functions`` are globs by file; ``equivalent`` has by mutant (a glob) why nobody can notice it."""

    functions: Mapping[str, tuple[str, ...]]
    equivalent: Mapping[str, str] = field(default_factory=dict)


_TEXT = doc.scalar(doc.text)
_SHAPE: doc.Shape[MutantSpec] = doc.record(
    lambda place, functions, equivalent=None: MutantSpec(functions, equivalent or {}),
    {"functions": doc.mapping_of(doc.list_of(_TEXT))},
    {"equivalent": doc.mapping_of(_TEXT)},
)


def load_mutants(file: Path) -> MutantSpec:
    """Raises ``UsageError`` for each thing wrong with the file, all at once."""
    return doc.load_document(file, _SHAPE)
