# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixups that old trees need to build with new compilers: ``patches/fixups.yaml``.

A fixup has a reason, and either make variables or a patch. Patches are applied before any series and are not
part of it.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.condition import Condition, Version
from orchestrator.source.patch import check_patch


@dataclass(frozen=True, slots=True)
class Fixup:
    """A fixup for kernels that match ``when``. ``make_words`` are passed to make."""

    name: str
    when: Condition
    why: str
    make_words: tuple[str, ...] = ()
    patch: Path | None = None


def load_fixups(file: Path) -> tuple[Fixup, ...]:
    """The fixups of a file, none if it does not exist.

    Raises all errors of the file and its patches at once as ``UsageError``.
    """
    if not file.exists():
        return ()

    def make(
        place: doc.Place,
        name: str,
        when: Condition,
        why: str,
        make: Mapping[str, str] | None = None,
        patch: str = "",
    ) -> Fixup:
        if bool(make) == bool(patch):
            raise ValueError("expected either make: {NAME: VALUE} or patch: FILE")
        if when.names_arch or not when.bounds:
            raise ValueError(f"when: expected a range of kernels, got {when.text!r}")
        if wrong := [key for key in make or {} if not re.fullmatch(r"[A-Z]\w*", key)]:
            raise ValueError(f"make: {wrong[0]} is not a make variable")
        if patch and not (file.parent / patch).is_file():
            raise ValueError(f"patch: {patch} does not exist")
        words = tuple(f"{key}={value}" for key, value in sorted((make or {}).items()))
        return Fixup(name, when, why, words, file.parent / patch if patch else None)

    text = doc.scalar(doc.text)
    entry = doc.record(
        make,
        {"name": doc.name, "when": doc.condition, "why": text},
        {"make": doc.mapping_of(text), "patch": text},
    )
    shape: doc.Shape[tuple[Fixup, ...]] = doc.record(
        lambda place, fixups: fixups, {"fixups": doc.list_of(entry)}
    )
    fixups = doc.load_document(file, shape)
    names = [fixup.name for fixup in fixups]
    errors = [
        UsageError(f"two fixups are named {name}", where=str(file), hint="rename one of them")
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    errors += [error for fixup in fixups if fixup.patch for error in check_patch(fixup.patch)]
    raise_all(errors)
    return fixups


def choose_fixups(fixups: Sequence[Fixup], version: Version) -> tuple[Fixup, ...]:
    return tuple(fixup for fixup in fixups if fixup.when.holds_for(version))
