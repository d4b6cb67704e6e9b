# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the rows of ``ci/matrix.yaml`` and the expectations of ``ci/expectations.yaml``.

The ``variants`` of a row are its tree without and with series, or several trees. The expectations of a
variant override those of ``ci/expectations.yaml``. All other tests are expected to pass.
"""

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Condition
from orchestrator.project.guest import Declared, GuestShape, guest
from orchestrator.project.yamlfile import Place, Shape
from orchestrator.status import Status

_EXPECTED = (Status.FAIL, Status.TIMEOUT, Status.CRASH, Status.SKIP)


@dataclass(frozen=True, slots=True)
class Expectation:
    """The expected status of a test (an id, or a glob with ``*`` and ``?``), and why, if ``when`` holds.

    ``series`` are the series that it applies to; an empty name is the tree without series. It ends after the
    day ``until``. With ``fingerprint`` (or a glob), only that crash is expected. ``where`` is its line.
    """

    test: str
    status: Status
    why: str
    when: Condition
    where: str = ""
    until: datetime.date | None = None
    fingerprint: str = ""
    series: frozenset[str] = frozenset([""])


@dataclass(frozen=True, slots=True)
class Variant:
    """One variant of a row: its tree with a series, or without one (``series`` empty).

    A variant may have another ``tree`` and ``arch`` than its row.
    """

    name: str
    series: str
    expect: tuple[Expectation, ...]
    tree: str = ""
    arch: str = ""


@dataclass(frozen=True, slots=True)
class TimeLimits:
    """Wall time in seconds on native hardware; those of the guest are scaled for emulation."""

    build_s: int
    boot_s: int


@dataclass(frozen=True, slots=True)
class Runner:
    """The CI runner for a row: its ``tags``, and a ``resource`` that one job at a time may use."""

    tags: tuple[str, ...] = ()
    resource: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A row. ``where`` is its line, ``places`` has the lines of the keys of ``guest:``."""

    name: str
    about: str
    arch: str
    tree: str
    kconfig: tuple[str, ...]
    guest: GuestShape
    tests: tuple[str, ...]
    limits: TimeLimits
    variants: tuple[Variant, ...]
    runner: Runner = Runner()
    places: Mapping[str, Place] = field(default_factory=dict)
    where: str = ""


def _make_expectation(
    place: Place,
    test: str,
    status: str,
    why: str,
    when: Condition | None = None,
    until: datetime.date | None = None,
    fingerprint: str = "",
    series: str = "none",
) -> Expectation:
    if fingerprint and status != Status.CRASH:
        raise ValueError(f"fingerprint: only valid with status: crash, got {status}")
    where = f"{place.file}:{place.line}"
    names = frozenset("" if name == "none" else name for name in series.split())
    return Expectation(test, Status(status), why, when or Condition(), where, until, fingerprint, names)


def _make_variant(
    place: Place,
    name: str,
    series: str = "",
    expect: tuple[Expectation, ...] = (),
    tree: str = "",
    arch: str = "",
) -> Variant:
    return Variant(name, series, expect, tree, arch)


def _make_row(
    place: Place,
    name: str,
    about: str,
    arch: str,
    tree: str,
    kconfig: tuple[str, ...],
    guest: Declared,
    tests: tuple[str, ...],
    limits: TimeLimits,
    variants: tuple[Variant, ...],
    runner: Runner | None = None,
    expect: tuple[Expectation, ...] = (),
) -> Row:
    if not variants or not tests:
        raise ValueError(f"{'tests' if variants else 'variants'}: expected at least one")
    names = [variant.name for variant in variants]
    if len(set(names)) != len(names):
        raise ValueError(f"variants: names must differ, got {', '.join(names)}")
    return Row(
        name=name,
        about=about,
        arch=arch,
        tree=tree,
        kconfig=kconfig,
        guest=guest.shape,
        tests=tests,
        limits=limits,
        variants=tuple(replace(one, expect=(*one.expect, *expect)) for one in variants),
        runner=runner or Runner(),
        places=guest.places,
        where=f"{place.file}:{place.line}",
    )


_TEXT = doc.scalar(doc.text)
_EXPECTATION = {"test": _TEXT, "status": doc.scalar(doc.one_of([s.value for s in _EXPECTED])), "why": _TEXT}
_OPTIONAL = {"when": doc.condition, "until": doc.scalar(doc.day), "fingerprint": _TEXT}
_EXPECTATIONS: Shape[tuple[Expectation, ...]] = doc.record(
    lambda place, expectations: expectations,
    {
        "expectations": doc.list_of(
            doc.record(_make_expectation, _EXPECTATION, {**_OPTIONAL, "series": _TEXT})
        )
    },
)
_ROW_EXPECTATIONS = doc.list_of(doc.record(_make_expectation, _EXPECTATION, _OPTIONAL))
_MATRIX: Shape[tuple[Row, ...]] = doc.record(
    lambda place, rows: rows,
    {
        "rows": doc.list_of(
            doc.record(
                _make_row,
                {
                    "name": doc.name,
                    "about": _TEXT,
                    "arch": doc.scalar(doc.one_of(ARCHES)),
                    "tree": _TEXT,
                    "kconfig": doc.list_of(_TEXT),
                    "guest": guest,
                    "tests": doc.list_of(_TEXT),
                    "limits": doc.record(
                        lambda place, build, boot: TimeLimits(build, boot),
                        {"build": doc.scalar(doc.time_s), "boot": doc.scalar(doc.time_s)},
                    ),
                    "variants": doc.list_of(
                        doc.record(
                            _make_variant,
                            {"name": doc.name},
                            {
                                "series": _TEXT,
                                "tree": _TEXT,
                                "arch": doc.scalar(doc.one_of(ARCHES)),
                                "expect": _ROW_EXPECTATIONS,
                            },
                        )
                    ),
                },
                {
                    "expect": _ROW_EXPECTATIONS,
                    "runner": doc.record(
                        lambda place, tags=(), resource="": Runner(tags, resource),
                        {},
                        {"tags": doc.list_of(_TEXT), "resource": _TEXT},
                    ),
                },
            )
        )
    },
)


def load_matrix(file: Path) -> dict[str, Row]:
    """The rows by name; raises all errors of the file at once as ``UsageError``."""
    rows = doc.load_document(file, _MATRIX)
    found: dict[str, Row] = {}
    errors: list[UsageError] = []
    for row in rows:
        if found.setdefault(row.name, row) is not row:
            what = f"two rows are named {row.name}, the first is {found[row.name].where}"
            errors.append(UsageError(what, where=row.where, hint="rename one of them"))
    raise_all(errors)
    return found


def load_expectations(file: Path) -> tuple[Expectation, ...]:
    """The expectations for all rows; raises all errors of the file at once as ``UsageError``."""
    return doc.load_document(file, _EXPECTATIONS)
