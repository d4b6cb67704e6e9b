# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads all YAML files and tests of the project, with the user overlay on top."""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from orchestrator.errors import UsageError, raise_all
from orchestrator.kernel.fragment import read_fragments
from orchestrator.plan.plan import Declarations, check_machine
from orchestrator.project.guesttest import GuestTest, is_match, load_tests
from orchestrator.project.knownissues import load_known_issues
from orchestrator.project.matrix import load_expectations, load_matrix
from orchestrator.project.root import SHIPPED, list_layers
from orchestrator.project.selftest import is_selftest, make_placeholders
from orchestrator.project.yamlfile import suggest
from orchestrator.source.fixup import load_fixups
from orchestrator.source.series import Series, load_series
from orchestrator.source.tree import Tree, find_tree, load_trees, split_word
from orchestrator.store.name import RULE, is_name

T = TypeVar("T")


def load_declarations(root: Path, shipped: Path = SHIPPED) -> Declarations:
    """Read all that is shipped and, in its place or added to it, what is declared below ``root``.

    Of ``root`` any part may be missing. Raises every ``UsageError`` of every file at once; those of fragments
    and series are kept for the commands that use them.
    """
    errors: list[Exception] = []
    layers = [_load_layer(folder, shipped, errors) for folder in list_layers(root, shipped)]
    if errors:
        errors += [error for layer in layers for faults in layer.faults.values() for error in faults]
    raise_all([error for error in errors if isinstance(error, UsageError)])
    # what is shipped speaks of the shipped tests, also where one of the user's own has taken a name
    tests = [test for layer in layers for test in layer.tests]
    declared = functools.reduce(_lay_over, layers)
    declared = replace(declared, trees={**declared.trees, **_find_versions(declared)})
    named = [word for row in declared.rows.values() for word in row.tests]
    selftests = make_placeholders(named, shipped / "guest-tests" / "lib", "matrix.yaml")
    declared = replace(declared, tests=(*declared.tests, *selftests))
    faults = {name: list(errors) for name, errors in declared.faults.items()}
    for name, error in _check_flips(declared, tests):
        faults.setdefault(f"series/{name}", []).append(error)
    declared = replace(declared, faults={name: tuple(errors) for name, errors in faults.items()})
    machines = (check_machine(declared.rows[name], declared) for name in declared.usual_rows)
    raise_all([*_check_expectations(declared, tests), *itertools.chain(*machines)])
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

    fragments, found = read_fragments(root / "kconfigs", needs_about=root == shipped)
    faults = {f"fragments/{name}": tuple(told) for name, told in found.items()}
    series: dict[str, Series] = {}
    for folder in sorted({path.parent for path in (root / "patches").glob("*/series*")}):
        try:
            if not is_name(folder.name):
                raise UsageError(f"is not a name of a series: use {RULE}", where=str(folder))
            series[folder.name] = load_series(folder)
        except* UsageError as group:
            series[folder.name] = Series(folder.name)
            told = tuple(error for error in group.exceptions if isinstance(error, UsageError))
            faults[f"series/{folder.name}"] = told
    lib = shipped / "guest-tests" / "lib"
    tests: tuple[GuestTest, ...] = load(lambda path: load_tests(path, lib), root / "guest-tests", ())
    return Declarations(
        rows=load(load_matrix, root / "ci" / "matrix.yaml", {}),
        expectations=load(load_expectations, root / "ci" / "expectations.yaml", ()),
        trees=load(load_trees, root / "patches" / "trees.yaml", {}),
        series=series,
        fragments=fragments,
        faults=faults,
        tests=tests,
        fixups=load(load_fixups, root / "patches" / "fixups.yaml", ()),
        known_splats=load(load_known_issues, root / "ci" / "known-splats.yaml", ()),
    )


def _lay_over(below: Declarations, own: Declarations) -> Declarations:
    """What is shipped with the user's own over it; one of the same name takes the place."""
    tests = {test.id: test for test in (*below.tests, *own.tests)}
    fixups = {fixup.name: fixup for fixup in (*below.fixups, *own.fixups)}
    return Declarations(
        rows={**below.rows, **own.rows},
        expectations=(*own.expectations, *below.expectations),
        trees={**below.trees, **own.trees},
        series={**below.series, **own.series},
        fragments={**below.fragments, **own.fragments},
        tests=tuple(test for _, test in sorted(tests.items())),
        fixups=tuple(fixups.values()),
        known_splats=(*own.known_splats, *below.known_splats),
        faults={
            **{
                name: errors
                for name, errors in below.faults.items()
                if name.partition("/")[2] not in (own.series if name.startswith("series/") else own.fragments)
            },
            **own.faults,
        },
        own={
            "rows": frozenset(own.rows),
            "trees": frozenset(own.trees),
            "series": frozenset(own.series),
            "fragments": frozenset(own.fragments),
            "tests": frozenset(test.id for test in own.tests),
        },
    )


def _find_versions(declared: Declarations) -> dict[str, Tree]:
    """The trees of rows that name a version, as in ``debian-image-6.1:6.1.170-3``."""
    trees: dict[str, Tree] = {}
    errors: list[UsageError] = []
    for row in declared.rows.values():
        for word in dict.fromkeys((row.tree, *(variant.tree for variant in row.variants))):
            name, version = split_word(word)
            if not version or name not in declared.trees:
                continue
            try:
                trees[word] = find_tree(word, declared.trees)
            except UsageError as error:
                where = f"{row.where or 'matrix.yaml'}: row {row.name}"
                errors.append(UsageError(error.what, where=where, hint=error.hint))
    raise_all(errors)
    return trees


def _check_flips(declared: Declarations, tests: Sequence[GuestTest]) -> Iterator[tuple[str, UsageError]]:
    known = {test.id for test in tests}
    for series in declared.series.values():
        for patch in series.patches:
            for test in sorted(patch.flips.keys() - known):
                what = f"{patch.name} flips {test}, and there is no such test{suggest(test, known)}"
                yield series.name, UsageError(what, where=patch.where)


def _check_expectations(declared: Declarations, tests: Sequence[GuestTest]) -> Iterator[UsageError]:
    """One that speaks of no test is a misspelt one, and the failure that it excuses would come as news."""
    known = dict.fromkeys(name for test in tests for name in (test.id, *test.subtests))
    undeclared = tuple(f"{test.id}/" for test in tests if not test.subtests)
    listed = [
        (expected, f"{row.name}/{variant.name} expects")
        for row in declared.rows.values()
        for variant in row.variants
        for expected in variant.expect
    ]
    for expected, who in [*listed, *((expected, "expects") for expected in declared.expectations)]:
        word = expected.test
        is_declared = word in known or is_selftest(word) or word.startswith(undeclared)
        if not is_declared and not any(is_match(word, name) for name in known):
            what = f"{who} something of {word}, and there is no such test{suggest(word, known)}"
            yield UsageError(what, where=expected.where)
        for name in sorted(expected.series - declared.series.keys() - {""}):
            what = f"{word}: there is no series {name}{suggest(name, declared.series)}"
            yield UsageError(what, where=expected.where)
