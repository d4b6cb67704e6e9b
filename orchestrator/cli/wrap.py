# SPDX-License-Identifier: GPL-2.0-or-later
"""Breaks lines that are too long for a terminal at blanks, so that no word is torn."""

import re
import textwrap

# a line that is to be pasted stays whole: a terminal copies a line that it broke itself as one
_COMMAND = re.compile(r"\s*(?:cowbell|git|sudo|apt-get) ")
# continued lines begin at the second column of a list, or at the indentation
_COLUMN = re.compile(r"\s*\S+(?: \S+)*? {2,}|\s*")


def wrap_text(text: str, width: int, indent: int | None = None) -> str:
    """The text with no line longer than ``width`` columns, unless a word or a command is.

    ``indent`` is the number of blanks before continued lines; by default the text's own columns decide.
    """
    return "\n".join(wrapped for line in text.split("\n") for wrapped in _wrap(line, width, indent))


def _wrap(line: str, width: int, indent: int | None) -> list[str]:
    if len(line) <= width or _COMMAND.match(line):
        return [line]
    if indent is None:
        match = _COLUMN.match(line)
        indent = (match.end() if match else 0) or 4
    return textwrap.wrap(
        line,
        width,
        subsequent_indent=" " * (indent if indent <= width * 2 // 3 else 4),
        break_long_words=False,
        break_on_hyphens=False,
        expand_tabs=False,
        replace_whitespace=False,
    )
