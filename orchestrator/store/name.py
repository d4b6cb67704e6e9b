# SPDX-License-Identifier: GPL-2.0-or-later
"""The rule for names: of rows, variants, trees, series, fragments, tests and runs.

A name becomes a file, a part of a git ref, a word of the command line and of XML, and is printed.
"""

import re

# several of them fit into the name of one file, which has at most 255 bytes
_MOST = 64
_NAME = re.compile(r"(?!.*(?:\.\.|\.lock$|\.$))[A-Za-z0-9_][A-Za-z0-9_.+-]*")
RULE = f"up to {_MOST} letters of ASCII, digits, '_', '.', '+' and '-', none of the last three first"


def is_name(text: str) -> bool:
    return len(text) <= _MOST and _NAME.fullmatch(text) is not None


def check_name(text: str) -> str:
    """The same text; raises ``ValueError`` if it is not a name."""
    if not is_name(text):
        raise ValueError(f"expected a name ({RULE}), got {text[:_MOST]!r}")
    return text


def make_name(text: str) -> str:
    """A text as a name."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)[:_MOST]
    return re.sub(r"\.{2,}|\.lock$", ".", name).strip("-.+") or "unnamed"
