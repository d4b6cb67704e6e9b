# SPDX-License-Identifier: GPL-2.0-or-later
"""Names for the results of programs that do not declare them: each unique, the same on every kernel."""

import re
from collections import Counter

from orchestrator.parse.ktap import Ktap, KtapResult

_ANNOUNCED = "[RUN] "
# a text that says how a test ended, or has an address: no name, as it differs from one kernel to another
_OUTCOME = re.compile(
    r"[:;,.!-]|.{0,999}(?:\b(?:succe(?:ss|ed)|fail|pass(?:ed)?\b|error|0x[0-9a-f]{4})|\bnot \w{1,30}ed\b)",
    re.IGNORECASE,
)


def name_leaves(test: str, stream: Ktap) -> list[tuple[str, KtapResult]]:
    """The results with unique names, made of the last ``[RUN]`` line and the result line.

    If only one result follows a ``[RUN]`` line, that line alone is its name: the text of the result line
    depends on the outcome. Without a ``[RUN]`` line, such a text is replaced by the number of the result.
    """
    announced, titled = "", []
    for name, leaf in stream.flatten():
        for text in leaf.diagnostics:
            announced = text.removeprefix(_ANNOUNCED).strip() if text.startswith(_ANNOUNCED) else announced
        # a skipped test may have its name in place of the reason
        text = name if leaf.name else "" if announced else leaf.reason
        if leaf.name and not announced and _OUTCOME.match(leaf.name):
            text = f"{name.removesuffix(leaf.name)}{leaf.number}"
        titled.append((announced, text, leaf))
    uses = Counter(title for title, _, _ in titled)
    times: Counter[str] = Counter()
    named: list[tuple[str, KtapResult]] = []
    for title, text, leaf in titled:
        parts = (title, text) if not title or uses[title] > 1 else (title,)
        name = "/".join((test, *filter(None, parts)))
        times[name] += 1
        named.append((f"{name} ({times[name]})" if times[name] > 1 else name, leaf))
    return named
