# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of a kernel by address, and the source lines of stack frames.

Source lines come from the debug info of ``DEBUG=1``. An image and a frame are read once per process.
"""

import contextlib
import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.kernel.build import Kernel
from orchestrator.parse.codeplace import CodePlace, add_source_lines, find_code_places
from orchestrator.process import command

# the fragment that DEBUG=1 adds
DEBUG_FRAGMENT = "debug"
_SYMBOL = re.compile(r"([0-9a-f]+) .{7} (\S*text\S*)\t([0-9a-f]+) +(?:\.\w+ )?(\S+)")
_LINE = re.compile(r"(.*):([1-9]\d*)(?: \(discriminator \d+\))?")
# the size in a frame ends at the next function, that in the symbol table at the last instruction
_MOST_PADDING = 64
# a log of all tasks has no more
_MOST_PLACES = 2000


@dataclass(frozen=True, slots=True)
class Function:
    """``address`` is relative to ``section`` in a module; ``size`` is in bytes, 0 if unknown."""

    address: int
    name: str
    section: str
    size: int


@functools.cache
def read_functions(image: Path) -> tuple[Function, ...]:
    """The functions of an ELF file, by address; raises ``InfraError`` if it cannot be read."""
    listed = command.run([command.find_tool("objdump", "binutils"), "-t", str(image)]).output
    found = filter(None, map(_SYMBOL.fullmatch, listed.splitlines()))
    functions = (Function(int(one[1], 16), one[4], one[2], int(one[3], 16)) for one in found)
    return tuple(sorted(functions, key=lambda function: (function.address, function.name)))


def find_source_lines(kernel: Kernel, log: str) -> dict[str, str]:
    """The source lines of the places in a kernel log, by ``CodePlace.text``.

    The lines of inlined functions come first, separated by blanks. A place is left out if its function is
    ambiguous, or of a file without debug info. Empty without debug info, or without the tools to read it.
    """
    places = list(find_code_places(log).values())[:_MOST_PLACES] if kernel.request.has_debug_info else []
    lines: dict[str, str] = {}
    with contextlib.suppress(InfraError):
        for module in dict.fromkeys(place.module for place in places):
            image = kernel.folder / (f"guest-modules/{module}.ko" if module else "vmlinux")
            if image.is_file():
                own = [place for place in places if place.module == module]
                lines |= _find_in_image(image, own, kernel.source_dir)
    return lines


def show_source_lines(kernel: Kernel, log: str) -> str:
    """A part of a kernel log with its source lines."""
    return add_source_lines(log, find_source_lines(kernel, log))


def _find_in_image(image: Path, places: Sequence[CodePlace], source_dir: str) -> dict[str, str]:
    found: dict[str, list[tuple[CodePlace, int]]] = {}
    for place in places:
        if function := _find_function(image, place):
            # the line of a call, not the one that follows it
            address = function.address + max(0, place.offset - place.is_return)
            found.setdefault(function.section, []).append((place, address))
    lines: dict[str, str] = {}
    for section, addressed in found.items():
        addresses = tuple(sorted({address for _, address in addressed}))
        # addresses in an object file are those of its section
        read = _read_lines(image, section if image.suffix == ".ko" else "", addresses)
        for place, address in addressed:
            if text := " ".join(line.removeprefix(f"{source_dir}/") for line in read.get(address, ())):
                lines[place.text] = text
    return lines


def _find_function(image: Path, place: CodePlace) -> Function | None:
    """The function that a place names; None if there is none, or several that it may be."""
    named = _read_by_name(image).get(place.function, ())
    fitting = [one for one in named if 0 <= place.size - one.size < _MOST_PADDING] if named[1:] else named
    return fitting[0] if len(fitting) == 1 else None


@functools.cache
def _read_by_name(image: Path) -> Mapping[str, Sequence[Function]]:
    found: dict[str, list[Function]] = {}
    for function in read_functions(image):
        found.setdefault(function.name, []).append(function)
    return found


@functools.cache
def _read_lines(image: Path, section: str, addresses: tuple[int, ...]) -> Mapping[int, Sequence[str]]:
    """``FILE:LINE`` of each address, innermost inlined function first."""
    tool = command.find_tool("addr2line", "binutils")
    words = [tool, "-a", "-i", "-e", str(image), *(["-j", section] if section else [])]
    text = command.run(words, stdin="".join(f"{address:#x}\n" for address in addresses).encode()).output
    found: dict[int, list[str]] = {}
    own: list[str] = []
    for line in text.splitlines():
        if line.startswith("0x"):
            own = found[int(line, 16)] = []
        elif place := _LINE.fullmatch(line):
            own.append(f"{place[1]}:{place[2]}")
    return found
