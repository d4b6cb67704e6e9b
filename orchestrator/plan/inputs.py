# SPDX-License-Identifier: GPL-2.0-or-later
"""Adds the trees, series and commit ranges of the command line to the declarations."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.errors import InfraError, UsageError, raise_all
from orchestrator.kernel.fragment import load_file, parse_symbol
from orchestrator.kernel.prebuilt import load_prebuilt
from orchestrator.plan.plan import Declarations
from orchestrator.plan.workspace import Workspace
from orchestrator.project.program import NO_LIMITS, ProgramLimits, load_programs
from orchestrator.project.root import LIB
from orchestrator.project.selftest import make_placeholders
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.local import check_local
from orchestrator.source.lore import fetch_series, find_cover, parse_message
from orchestrator.source.remote import fetch_range
from orchestrator.source.repository import find_commit, open_repository
from orchestrator.source.series import (
    Series,
    export_range,
    find_local_range,
    find_series,
    parse_range,
)
from orchestrator.source.thread import is_file
from orchestrator.source.tree import GitTree, LocalTree, Tree, exists, expand, find_tree, is_path, split_word


def add_inputs(
    declared: Declarations,
    kernel: str,
    series: Sequence[str],
    place: Workspace,
    *,
    added: Sequence[str] = (),
    is_dirty: bool = False,
    modules: str = "",
    redo: bool = False,
    built: Sequence[Path] = (),
    programs: Sequence[str] = (),
    limits: ProgramLimits = NO_LIMITS,
    arguments: Sequence[str] = (),
    selftests: Sequence[str] = (),
) -> Declarations:
    """The declarations with what the command line brings along: trees and series that are not ours.

    Each is known by the word that names it, and so are symbols of ``added``; ``built`` are folders with
    kernels that were built elsewhere, ``programs`` paths of tests, with their time ``limits`` and
    the ``arguments`` of one, ``selftests`` words for those of the kernel.
    Raises ``UsageError`` for all that are wrong, at once.
    """
    errors: list[UsageError] = []
    declared = _add_fragments(declared, added, errors)
    try:
        known_ids = [test.id for test in declared.tests]
        files = load_programs([expand(word) for word in programs], LIB, limits, known_ids, arguments)
        declared = replace(declared, tests=(*declared.tests, *files))
    except* UsageError as group:
        errors += (error for error in group.exceptions if isinstance(error, UsageError))
    try:
        named = {test.id: test for test in (*declared.tests, *make_placeholders(selftests, LIB))}
        declared = replace(declared, tests=tuple(named.values()))
    except* UsageError as group:
        errors += (error for error in group.exceptions if isinstance(error, UsageError))
    if built:
        raise_all(errors)
        raise_all(
            [
                UsageError("is of the build, and kernels of BUILT= are built", where=name)
                for name, value in (("KERNEL", kernel), ("SERIES", series), ("DIRTY", is_dirty))
                if value
            ]
        )
        if not (handovers := load_prebuilt(built)):
            where = f"BUILT={','.join(map(str, built))}"
            raise InfraError("there is no kernel", where=where, hint="cowbell build DIR= puts kernels there")
        return replace(declared, built=handovers)
    trees, known = dict(declared.trees), dict(declared.series)
    try:
        # a plain name that is unknown is told with the other wrong words of the request
        if kernel in trees or ":" in kernel or is_path(kernel):
            trees[kernel] = find_tree(kernel, trees, is_dirty=is_dirty, modules=modules)
        elif modules:
            errors.append(UsageError("is for KERNEL= with the path of a kernel image", where="MODULES"))
        chosen = trees.get(kernel)
        if isinstance(chosen, LocalTree):
            check_local(chosen)
        if is_dirty and not (isinstance(chosen, LocalTree) and chosen.is_dirty):
            errors.append(UsageError("is for KERNEL=/path/to/checkout, at what lies there", where="DIRTY"))
    except UsageError as error:
        errors.append(error)
    for word in series:
        try:
            if _is_brought(word, declared):
                known[word] = _load_brought(word, declared, place, redo=redo)
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
    raise_all(errors)
    if isinstance(tree := trees.get(kernel), LocalTree):
        trees[kernel] = _take_base(tree, kernel, [known[word] for word in series if word in known], place)
    return replace(declared, trees=trees, series=known)


def _take_base(tree: LocalTree, word: str, series: Iterable[Series], place: Workspace) -> LocalTree:
    """The tree at the commit for which the mails of the series were made, if ``KERNEL=`` names no other one.

    It stays at HEAD if the checkout does not have that commit, or if the series needs more than it.
    """
    bases = {one.base: one for one in series if one.base and not one.needed}
    if len(bases) != 1 or tree.ref or tree.is_dirty or not tree.is_checkout:
        return tree
    ((base, one),) = bases.items()
    head = find_commit(Path(tree.path), "HEAD", is_users=True)
    if base == head or not find_commit(Path(tree.path), base, is_users=True):
        return tree
    told = f"{one.title} was made for {base[:12]} (base-commit): taking {word}:{base[:12]}"
    place.progress.note(f"{told}; {word}:HEAD is {head[:12]}")
    return replace(tree, name=f"{tree.name}:{base[:12]}", ref=base)


def _add_fragments(declared: Declarations, words: Sequence[str], errors: list[UsageError]) -> Declarations:
    """With the symbols and files among the words of ``CONFIG+=``."""
    found = {word: fragment for word in words if (fragment := parse_symbol(word))}
    for word in words:
        path = expand(word)
        if word in found or word in declared.fragments or not ("/" in word or path.is_file()):
            continue
        try:
            found[word] = load_file(path, word)
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
    return replace(declared, fragments={**declared.fragments, **found})


def add_names(
    declared: Declarations, kernel: str, series: Sequence[str], added: Sequence[str] = ()
) -> Declarations:
    """The declarations with the command line's own tree, series and symbols, by their words alone."""
    declared = _add_fragments(declared, added, [])
    trees: dict[str, Tree] = {}
    name, ref = split_word(kernel)
    if is_path(name):
        # it may be on another machine only
        trees[kernel] = LocalTree(kernel, name, ref)
    elif ref:
        trees[kernel] = find_tree(kernel, declared.trees)
    known = {
        word: Series(str(parse_message(word) or Path(word).stem))
        for word in series
        if _is_brought(word, declared)
    }
    return replace(declared, trees={**declared.trees, **trees}, series={**declared.series, **known})


def _is_brought(word: str, declared: Declarations) -> bool:
    """Whether a word of ``SERIES=`` is no name, but brings a series along."""
    is_named = word == "-" or bool(parse_range(word)) or bool(parse_message(word))
    return (
        is_named or "/" in word or word.startswith("<") or is_file(Path(word))
    ) and word not in declared.series


def _load_brought(word: str, declared: Declarations, place: Workspace, *, redo: bool) -> Series:
    """The series of a word that is no name: a path, a range of commits, a message, or ``-`` for stdin."""
    data = sys.stdin.buffer.read() if word == "-" else None
    message = find_cover(data) if data is not None else parse_message(word)
    if message and not exists(word):
        return fetch_series(message, place.store, place.progress, redo=redo)
    if (parts := parse_range(word)) and not exists(word):
        return _load_range(word, *parts, declared, place, redo=redo)
    if word.startswith(("http://", "https://", "<")):
        hint = "such as https://lore.kernel.org/r/MESSAGE-ID or <MESSAGE-ID>, also with :v2 or :newest"
        raise UsageError("names no mail: it has no message-id", where=word[:200], hint=hint)
    return find_series(Path(word) if data is not None else expand(word), place.store, data)


def _load_range(
    word: str, name: str, base: str, tip: str, declared: Declarations, place: Workspace, *, redo: bool
) -> Series:
    """``TREE:BASE..TIP``, fetched where need be."""
    tree = find_tree(name, declared.trees)
    if isinstance(tree, LocalTree) and tree.is_checkout:
        return find_local_range(word, tree, base, tip, place.store)
    if not isinstance(tree, GitTree):
        raise UsageError(f"{name} is not of git, so it has no range of commits", where=word)
    start, end = (
        fetch_tree(find_tree(f"{name}:{ref}", declared.trees), place.store, place.progress, redo=redo)
        for ref in (base, tip)
    )
    fetch_range(start, end, place.store, place.progress)
    return export_range(word, start.commit, end.commit, open_repository(place.store), place.store)
