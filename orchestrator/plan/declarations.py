# SPDX-License-Identifier: GPL-2.0-or-later
"""All that the project's files declare, the user's own over what is shipped."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from orchestrator.project.yamlfile import suggest
from orchestrator.project.guesttest import GuestCase, is_match, load_cases
from orchestrator.project.knownissues import load_known_splats
from orchestrator.project.matrix import load_expectations, load_matrix
from orchestrator.project.selftest import CASES
from orchestrator.errors import UsageError, raise_all
from orchestrator.project.root import SHIPPED, list_layers
from orchestrator.plan.plan import Declarations, check_machine
from orchestrator.kernel.fragment import load_fragments
from orchestrator.source.fixup import load_fixups
from orchestrator.source.series import Series, load_series
from orchestrator.source.tree import load_trees

T = TypeVar("T")


def load_declarations(root: Path, shipped: Path = SHIPPED) -> Declarations:
    """Read all that is shipped and, in its place or added to it, what is declared below ``root``.

    Of ``root`` any part may be missing. Raises every ``UsageError`` of every file at once.
    """
    errors: list[Exception] = []
    layers = [_load_layer(folder, shipped, errors) for folder in list_layers(root, shipped)]
    raise_all([error for error in errors if isinstance(error, UsageError)])
    # what is shipped speaks of the shipped cases, also where one of the user's own has taken a name
    cases = [case for layer in layers for case in layer.cases]
    declared = functools.reduce(_lay_over, layers)
    machines = (check_machine(declared.rows[name], declared.fragments) for name in declared.usual_rows)
    raise_all(
        [*_check_flips(declared, cases), *_check_expectations(declared, cases), *itertools.chain(*machines)]
    )
    return declared


def _load_layer(root: Path, shipped: Path, errors: list[Exception]) -> Declarations:
    """What one folder declares; whatever it has not got is empty."""

    def load(read: Callable[[Path], T], path: Path, otherwise: T) -> T:
        try:
            # of a link that leads nowhere the reader tells
            is_there = path.exists() or path.is_symlink()
            return read(path) if is_there or root == shipped else otherwise
        except* UsageError as group:
            errors.extend(group.exceptions)
        return otherwise

    folders = sorted({path.parent for path in (root / "patches").glob("*/series*")})
    lib = shipped / "guest-tests" / "lib"
    cases: tuple[GuestCase, ...] = load(lambda path: load_cases(path, lib), root / "guest-tests", ())
    return Declarations(
        rows=load(load_matrix, root / "ci" / "matrix.yaml", {}),
        expectations=load(load_expectations, root / "ci" / "expectations.yaml", ()),
        trees=load(load_trees, root / "patches" / "trees.yaml", {}),
        series={folder.name: load(load_series, folder, Series(folder.name)) for folder in folders},
        fragments=load(load_fragments, root / "kconfigs", {}),
        # the kernel's own are not files of ours
        cases=(*cases, *(CASES if root == shipped else ())),
        fixups=load(load_fixups, root / "patches" / "fixups.yaml", ()),
        known_splats=load(load_known_splats, root / "ci" / "known-splats.yaml", ()),
    )


def _lay_over(below: Declarations, own: Declarations) -> Declarations:
    """What is shipped with the user's own over it; one of the same name takes the place."""
    cases = {case.id: case for case in (*below.cases, *own.cases)}
    fixups = {fixup.name: fixup for fixup in (*below.fixups, *own.fixups)}
    return Declarations(
        rows={**below.rows, **own.rows},
        expectations=(*own.expectations, *below.expectations),
        trees={**below.trees, **own.trees},
        series={**below.series, **own.series},
        fragments={**below.fragments, **own.fragments},
        cases=tuple(case for _, case in sorted(cases.items())),
        fixups=tuple(fixups.values()),
        known_splats=(*own.known_splats, *below.known_splats),
        own={
            "rows": frozenset(own.rows),
            "trees": frozenset(own.trees),
            "series": frozenset(own.series),
            "fragments": frozenset(own.fragments),
            "cases": frozenset(case.id for case in own.cases),
        },
    )


def _check_flips(declared: Declarations, cases: Sequence[GuestCase]) -> Iterator[UsageError]:
    known = {case.id for case in cases}
    for series in declared.series.values():
        for patch in series.patches:
            for case in sorted(patch.flips.keys() - known):
                yield UsageError(
                    f"{patch.name} flips {case}, and there is no such case{suggest(case, known)}",
                    where=patch.where,
                )


def _check_expectations(declared: Declarations, cases: Sequence[GuestCase]) -> Iterator[UsageError]:
    """One that speaks of no case is a misspelt one, and the failure that it excuses would come as news."""
    known = [name for case in cases for name in (case.id, *case.subtests)]
    undeclared = tuple(f"{case.id}/" for case in cases if not case.subtests)
    listed = [
        (expected, f"{row.name}/{cell.name} expects")
        for row in declared.rows.values()
        for cell in row.cells
        for expected in cell.expect
    ]
    for expected, who in [*listed, *((expected, "expects") for expected in declared.expectations)]:
        word = expected.test
        if not (word.startswith(undeclared) or any(is_match(word, name) for name in known)):
            what = f"{who} something of {word}, and there is no such case{suggest(word, known)}"
            yield UsageError(what, where=expected.where)
        for name in sorted(expected.series - declared.series.keys() - {""}):
            what = f"{word}: there is no series {name}{suggest(name, declared.series)}"
            yield UsageError(what, where=expected.where)
