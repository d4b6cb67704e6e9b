# SPDX-License-Identifier: GPL-2.0-or-later
"""Strict YAML: reads a file into typed values, and reports all errors at once with file:line.

PyYAML composes the nodes, and a shape describes their valid content. Unknown and duplicate keys are errors,
sizes and times need their unit, and nothing is converted implicitly.
"""

import contextlib
import datetime
import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import yaml

from orchestrator.errors import UsageError, raise_all
from orchestrator.project.condition import Condition
from orchestrator.store.name import check_name
from orchestrator.store.userfile import read_text

T = TypeVar("T")

_SIZES_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_TIMES_S = {"s": 1, "m": 60, "h": 3600}
_MOST_S = 7 * 24 * 3600
# of a wrong value
_SHOWN = 80


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a value: file, line, and path in the document."""

    file: Path
    line: int
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f": {self.path}" if self.path else "")


class Invalid(Exception):
    """A value is invalid; the error is in ``Reading.errors``."""


@dataclass(slots=True)
class Reading:
    """One pass over one file."""

    file: Path
    errors: list[UsageError]

    def place(self, node: yaml.Node, path: str) -> Place:
        return Place(self.file, node.start_mark.line + 1, path)

    def refuse(self, node: yaml.Node, path: str, what: str) -> Invalid:
        """Add an error; the caller raises the result, or continues to find more errors."""
        self.errors.append(UsageError(what, where=str(self.place(node, path))))
        return Invalid()


# five times as fast, if PyYAML was built with libyaml
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Shape = Callable[[Reading, yaml.Node, str], T]


def load_document(file: Path, shape: Shape[T]) -> T:
    """Read a file with one YAML document; raises all errors at once as ``UsageError``."""
    try:
        node = yaml.compose(read_text(file), Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"is not YAML: {error.problem}", where=f"{file}:{line}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML: {error}", where=str(file)) from None
    if node is None:
        raise UsageError("is empty", where=str(file))
    reading = Reading(file, [])
    with contextlib.suppress(Invalid):
        value = shape(reading, node, "")
    raise_all(reading.errors)
    return value


def scalar(convert: Callable[[str], T]) -> Shape[T]:
    """A shape for one value, from a function that raises ``ValueError`` for an invalid one."""

    def read(reading: Reading, node: yaml.Node, path: str) -> T:
        if not isinstance(node, yaml.ScalarNode):
            raise reading.refuse(node, path, "expected one value, got a list or a mapping")
        try:
            return convert(node.value)
        except ValueError as error:
            raise reading.refuse(node, path, str(error)) from None

    return read


def text(value: str) -> str:
    if not value:
        raise ValueError("expected some text, got nothing")
    return value


def count(value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]*", value):
        raise ValueError(f"expected a whole number of at least 1, got {value[:_SHOWN]}")
    return _limit(value, 10**9)


def _limit(value: str, most: int) -> int:
    """A number; a longer one than that could not be handed to any system call."""
    if len(value) > len(str(most)) or int(value) > most:
        raise ValueError(f"expected at most {most}, got {value[:_SHOWN]}")
    return int(value)


def size_mib(value: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]*)([MGT])", value)
    if not match:
        raise ValueError(f"expected size like 2G, got {value[:_SHOWN]}")
    return _limit(match[1], 10**9) * _SIZES_MIB[match[2]]


def time_s(value: str) -> int:
    match = re.fullmatch(r"([1-9][0-9]*)([smh])", value)
    if not match:
        raise ValueError(f"expected time like 30s or 45m, got {value[:_SHOWN]}")
    return _limit(match[1], _MOST_S // _TIMES_S[match[2]]) * _TIMES_S[match[2]]


def limit_s(value: str) -> int:
    """A time limit whose unit may be left out: seconds."""
    return time_s(f"{value}s" if value.isdecimal() else value)


def day(value: str) -> datetime.date:
    try:
        return datetime.date.fromisoformat(value)
    except ValueError:
        raise ValueError(f"expected a day like 2027-03-01, got {value}") from None


def one_of(names: Collection[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {value}{suggest(value, names)}")
        return value

    return convert


condition = scalar(Condition.parse)
name = scalar(check_name)


def suggest(word: str, known: Collection[str]) -> str:
    """``; did you mean NAME?`` if a known name is similar, else an empty string."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def list_of(shape: Shape[T]) -> Shape[tuple[T, ...]]:
    def read(reading: Reading, node: yaml.Node, path: str) -> tuple[T, ...]:
        if not isinstance(node, yaml.SequenceNode):
            raise reading.refuse(node, path, "expected a list")
        return tuple(
            _read_all(reading, {f"{path}[{i}]": (shape, item) for i, item in enumerate(node.value)}).values()
        )

    return read


def mapping_of(shape: Shape[T]) -> Shape[dict[str, T]]:
    """Any keys, values of one shape."""

    def read(reading: Reading, node: yaml.Node, path: str) -> dict[str, T]:
        items = _items(reading, node, path)
        values = _read_all(reading, {_join(path, key): (shape, item) for key, (_, item) in items.items()})
        return dict(zip(items, values.values(), strict=True))

    return read


def record(
    make: Callable[..., T],
    required: Mapping[str, Shape[Any]],
    optional: Mapping[str, Shape[Any]] | None = None,
) -> Shape[T]:
    """Fixed keys, which are passed to ``make`` by name, with ``place``. It may raise ``ValueError``."""
    shapes = {**required, **(optional or {})}

    def read(reading: Reading, node: yaml.Node, path: str) -> T:
        before = len(reading.errors)
        items = _items(reading, node, path)
        for key, (key_node, _) in items.items():
            if key not in shapes:
                reading.refuse(key_node, path, f"unknown key {key}{suggest(key, shapes)}")
        if missing := [key for key in required if key not in items]:
            reading.refuse(node, path, f"missing {', '.join(missing)}")
        known = {key: item for key, (_, item) in items.items() if key in shapes}
        values = _read_all(
            reading, {_join(path, key): (shapes[key], item) for key, item in known.items()}, before
        )
        try:
            return make(place=reading.place(node, path), **dict(zip(known, values.values(), strict=True)))
        except ValueError as error:
            raise reading.refuse(node, path, str(error)) from None

    return read


def _read_all(
    reading: Reading, items: Mapping[str, tuple[Shape[T], yaml.Node]], before: int | None = None
) -> dict[str, T]:
    """Read all items, even after an invalid one; raises ``Invalid`` if there are errors since ``before``."""
    before = len(reading.errors) if before is None else before
    values: dict[str, T] = {}
    for path, (shape, node) in items.items():
        with contextlib.suppress(Invalid):
            values[path] = shape(reading, node, path)
    if len(reading.errors) > before:
        raise Invalid
    return values


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _items(reading: Reading, node: yaml.Node, path: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """Key and value nodes by key, in the order of the file."""
    if not isinstance(node, yaml.MappingNode):
        raise reading.refuse(node, path, "expected a mapping (key: value)")
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            reading.refuse(key, path, "expected a plain key")
        elif key.value in found:
            reading.refuse(key, path, f"duplicate key {key.value}")
        else:
            found[key.value] = (key, value)
    return found
