# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds functions in C source, and replaces code in one; the preprocessor is not run."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from orchestrator.errors import InfraError

if TYPE_CHECKING:
    from tree_sitter import Node, Parser

_ASSERTION = re.compile(
    rb"\(*(?:un)?(?:likely\()?\b(?:VM_|MMU_)?(?:WARN|BUG)_ON|VM_WARN|lockdep_assert|BUILD_BUG"
)


@cache
def _make_parser() -> "Parser":
    try:
        import tree_sitter_c
        from tree_sitter import Language, Parser
    except ImportError:
        raise InfraError("tree-sitter is not installed", hint="pip install 'cowbell[mutants]'") from None
    return Parser(Language(tree_sitter_c.language()))


def list_functions(text: bytes) -> list[str]:
    """The names of the functions that a file defines."""
    return [name for _, name in find_functions(text)]


def find_functions(text: bytes) -> Iterator[tuple["Node", str]]:
    """The functions that a file defines, also in conditional parts."""
    return _find_in(_make_parser().parse(text).root_node, text)


def _find_in(node: "Node", text: bytes) -> Iterator[tuple["Node", str]]:
    for child in node.children:
        if child.type == "function_definition":
            inner = child.child_by_field_name("declarator")
            while inner and inner.type != "function_declarator":
                inner = inner.child_by_field_name("declarator")
            name = inner.child_by_field_name("declarator") if inner else None
            if name and name.type == "identifier" and child.child_by_field_name("body"):
                yield child, text[name.start_byte : name.end_byte].decode()
        elif child.type.startswith("preproc_") or child.type == "ERROR":
            yield from _find_in(child, text)


def walk(node: "Node") -> Iterator["Node"]:
    yield node
    for child in node.children:
        yield from walk(child)


def is_assertion(code: bytes) -> bool:
    """Whether a statement or condition only checks what must be."""
    return bool(_ASSERTION.match(code))


@dataclass(frozen=True, slots=True)
class FunctionText:
    """A function: its name, first line and text by line; ``assertions`` are the numbers of their lines."""

    name: str
    line: int
    lines: tuple[str, ...]
    assertions: frozenset[int]


def read_functions(text: bytes, wanted: Sequence[str]) -> Iterator[FunctionText]:
    """The functions of a file that match one of the globs."""
    lines = text.decode(errors="replace").splitlines()
    for node, name in find_functions(text):
        if any(fnmatchcase(name, one) for one in wanted):
            first, end = node.start_point.row, node.end_point.row + 1
            assertions = {
                row + 1
                for part in walk(node)
                if part.type in ("expression_statement", "parenthesized_expression")
                and is_assertion(text[part.start_byte : part.end_byte])
                for row in range(part.start_point.row, part.end_point.row + 1)
            }
            yield FunctionText(name, first + 1, tuple(lines[first:end]), frozenset(assertions))


def replace_code(text: bytes, function: str, code: str, becomes: str) -> tuple[bytes, int]:
    """The source with other code in a function, and the line where; white space does not matter.

    All else stays on its line. Raises ``ValueError`` unless the function is there, and the code in it once.
    """
    bodies = [node for node, name in find_functions(text) if name == function]
    if not bodies:
        raise ValueError(f"there is no function {function}")
    pattern = re.compile(rb"\s+".join(re.escape(word) for word in code.encode().split()))
    found = [m for node in bodies for m in pattern.finditer(text, node.start_byte, node.end_byte)]
    if len(found) != 1:
        raise ValueError(f"the code is in {function} {len(found)} times: {' '.join(code.split())}")
    at, end = found[0].span()
    padding = b"\n" * text.count(b"\n", at, end)
    changed = " ".join(becomes.split()).encode()
    return text[:at] + changed + padding + text[end:], text.count(b"\n", 0, at) + 1
