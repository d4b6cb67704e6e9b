# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the places in the code that a kernel log names, as ``function+0x10/0x20``, and adds source lines."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.parse.printk import split_line
from orchestrator.parse.splat import FRAME

_PLACE = re.compile(
    r"(?<![\w.$])([A-Za-z_$][\w.$]{0,200})\+0x([0-9a-f]{1,8})/0x([0-9a-f]{1,8})"
    r"(?: \[(\w{1,60})(?: [0-9a-f]{1,64})?\])?"
)


@dataclass(frozen=True, slots=True)
class CodePlace:
    """A place as the log writes it, ``text``; ``offset`` and ``size`` of the function are in bytes.

    ``is_return``: the address is that after a call.
    """

    text: str
    function: str
    offset: int
    size: int
    module: str
    is_return: bool


def find_code_places(log: str) -> dict[str, CodePlace]:
    """The places in a log by their text, in order; one that is not only in frames is no return address."""
    found: dict[str, CodePlace] = {}
    for line in log.split("\n"):
        if "+0x" not in line:
            continue
        for piece in split_line(line):
            is_frame = bool(FRAME.fullmatch(piece.text))
            for one in _PLACE.finditer(piece.text):
                known = found.get(one[0])
                is_return = is_frame and (known is None or known.is_return)
                found[one[0]] = CodePlace(
                    one[0], one[1], int(one[2], 16), int(one[3], 16), one[4] or "", is_return
                )
    return found


def add_source_lines(text: str, lines: Mapping[str, str]) -> str:
    """A part of a log with the source line after each place that ``lines`` has."""
    return _PLACE.sub(lambda one: f"{one[0]} ({lines[one[0]]})" if one[0] in lines else one[0], text)
