# SPDX-License-Identifier: GPL-2.0-or-later
"""Strict YAML: a file and its shape in, typed values out, every error at once with file:line.

PyYAML composes the nodes; the shapes below say what they may hold. Unknown and duplicate keys are errors,
sizes and times want their unit, and nothing is converted behind the writer's back.
"""

import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from orchestrator.condition import Condition
from orchestrator.errors import UsageError, raise_all

_SIZES_MIB = {"M": 1, "G": 1024, "T": 1024 * 1024}
_TIMES_S = {"s": 1, "m": 60, "h": 3600}



@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands: the file, its line, its path in the document."""

    file: Path
    line: int
    path: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" + (f": {self.path}" if self.path else "")


@dataclass(slots=True)
class Reading:
    """One pass over one file."""

    file: Path
    errors: list[UsageError]

    def place(self, node: yaml.Node, path: str) -> Place:
        return Place(self.file, node.start_mark.line + 1, path)

    def refuse(self, node: yaml.Node, path: str, what: str, hint: str = "") -> None:
        self.errors.append(UsageError(what, where=str(self.place(node, path)), hint=hint))


Shape = Callable[[Reading, yaml.Node, str], Any]


def load_document(file: Path, shape: Shape) -> Any:  # noqa: ANN401
    """Read a file of one YAML document; raises ``UsageError`` for each thing wrong with it, all at once."""
    try:
        node = yaml.compose(file.read_text(), Loader=yaml.SafeLoader)
    except OSError as error:
        raise UsageError(f"can not be read: {error.strerror}", where=str(file)) from None
    except UnicodeDecodeError:
        raise UsageError("is not UTF-8 text", where=str(file)) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UsageError(f"is not YAML: {error.problem}", where=f"{file}:{line}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"is not YAML: {error}", where=str(file)) from None
    if node is None:
        raise UsageError("is empty", where=str(file))
    reading = Reading(file, [])
    value = shape(reading, node, "")
    raise_all(reading.errors)
    return value


def scalar(convert: Callable[[str], Any]) -> Shape:
    """A shape from a function that raises ``ValueError`` with what it expected."""

    def read(reading: Reading, node: yaml.Node, path: str) -> Any:  # noqa: ANN401
        if not isinstance(node, yaml.ScalarNode):
            reading.refuse(node, path, "expected one value, got a list or a mapping")
            return None
        try:
            return convert(node.value)
        except ValueError as error:
            reading.refuse(node, path, str(error))
            return None

    return read


def text(value: str) -> str:
    if not value:
        raise ValueError("expected some text, got nothing")
    return value


def count(value: str) -> int:
    if not re.fullmatch(r"[1-9]\d*", value):
        raise ValueError(f"expected a whole number from 1, got {value}")
    return int(value)


def size_mib(value: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([MGT])", value)
    if not match:
        raise ValueError(f"expected size like 2G, got {value}")
    return int(match[1]) * _SIZES_MIB[match[2]]


def time_s(value: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([smh])", value)
    if not match:
        raise ValueError(f"expected time like 30s or 45m, got {value}")
    return int(match[1]) * _TIMES_S[match[2]]


def one_of(names: Collection[str]) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if value not in names:
            raise ValueError(f"expected one of {', '.join(names)}, got {value}{suggest(value, names)}")
        return value

    return convert


condition = scalar(Condition.parse)


def suggest(word: str, known: Collection[str]) -> str:
    """``; did you mean NAME?`` when a name is near enough, else nothing."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def list_of(shape: Shape) -> Shape:
    def read(reading: Reading, node: yaml.Node, path: str) -> tuple[Any, ...]:
        if not isinstance(node, yaml.SequenceNode):
            reading.refuse(node, path, "expected a list")
            return ()
        return tuple(shape(reading, item, f"{path}[{i}]") for i, item in enumerate(node.value))

    return read


def mapping_of(shape: Shape) -> Shape:
    """Free keys, values of one shape."""

    def read(reading: Reading, node: yaml.Node, path: str) -> dict[str, Any]:
        return {
            key: shape(reading, value, f"{path}.{key}" if path else key)
            for key, value in _items(reading, node, path).items()
        }

    return read


def record(
    make: Callable[..., Any], required: Mapping[str, Shape], optional: Mapping[str, Shape] | None = None
) -> Shape:
    """Known keys; ``make`` gets them by name, and ``place`` as well. Nothing is made of a faulty record."""
    shapes = {**required, **(optional or {})}

    def read(reading: Reading, node: yaml.Node, path: str) -> Any:  # noqa: ANN401
        before = len(reading.errors)
        items = _items(reading, node, path)
        for key in items.keys() - shapes.keys():
            reading.refuse(items[key], path, f"unknown key {key}{suggest(key, shapes)}")
        if missing := [key for key in required if key not in items]:
            reading.refuse(node, path, f"missing {', '.join(missing)}")
        values = {
            key: shapes[key](reading, value, f"{path}.{key}" if path else key)
            for key, value in items.items()
            if key in shapes
        }
        if len(reading.errors) > before:
            return None
        try:
            return make(place=reading.place(node, path), **values)
        except ValueError as error:
            reading.refuse(node, path, str(error))
            return None

    return read


def _items(reading: Reading, node: yaml.Node, path: str) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        reading.refuse(node, path, "expected a mapping (key: value)")
        return {}
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            reading.refuse(key, path, "expected a plain key")
        elif key.value in found:
            reading.refuse(key, path, f"duplicate key {key.value}")
        else:
            found[key.value] = value
    return found
