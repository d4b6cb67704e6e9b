# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the words of ``TRACE=``: what ftrace records while a test runs.

The words are separated by commas: ``function:NAME``, ``function_graph:NAME``, ``SYSTEM:EVENT``, and kprobes
as tracefs takes them. A name alone is one more function.
"""

import re
from dataclasses import dataclass

# the fragment that TRACE= adds
FRAGMENT = "trace"
_TRACERS = ("function", "function_graph")
_FUNCTION = re.compile(r"[\w.*?]+")
_EVENT = re.compile(r"(?:event:)?(\w+:[\w*?-]+)")
# p[:NAME] SYMBOL[+OFFSET] [ARGUMENTS], or p:SYMBOL alone
_KPROBE = re.compile(r"([pr]\d*)(?::(\w+))? +([\w.:]+)(\+\w+)?((?: +\S+)*)")
_SHORT = re.compile(r"([pr]):([\w.]+)")
_FORMS = (
    "expected function:NAME, function_graph:NAME, SYSTEM:EVENT as in kmem:mm_page_alloc, or a kprobe as in "
    "p:do_wp_page or 'p:NAME do_wp_page vmf=%di'"
)


@dataclass(frozen=True, slots=True)
class TraceRequest:
    """``tracer`` is empty or that of the ``functions``; ``kprobes`` are lines for ``kprobe_events``."""

    tracer: str = ""
    functions: tuple[str, ...] = ()
    events: tuple[str, ...] = ()
    kprobes: tuple[str, ...] = ()

    @property
    def is_on(self) -> bool:
        return bool(self.functions or self.events or self.kprobes)


def parse_trace(text: str) -> TraceRequest:
    """Raises ``ValueError`` that names all wrong words."""
    tracers: list[str] = []
    functions: list[str] = []
    events: list[str] = []
    kprobes: list[str] = []
    wrong: list[str] = []
    takes_more = False
    for word in filter(None, map(str.strip, text.split(","))):
        kind, _, name = word.partition(":")
        if kind in _TRACERS:
            tracers.append(kind)
        is_function = kind in _TRACERS or (takes_more and ":" not in word and " " not in word)
        takes_more = is_function
        if is_function and _FUNCTION.fullmatch(function := name if kind in _TRACERS else word):
            functions.append(function)
        elif kind == "bpftrace":
            wrong.append("the guest has no bpftrace, as its root image is to stay small: use a kprobe")
        elif is_function:
            wrong.append(f"expected names of functions after {tracers[-1]}:, got {name or word}")
        elif line := _make_kprobe(word):
            kprobes.append(line)
        elif match := _EVENT.fullmatch(word):
            events.append(match[1])
        else:
            wrong.append(f"{_FORMS}; got {word}")
    if len(set(tracers)) > 1:
        wrong.append("function and function_graph cannot record at the same time: choose one")
    if wrong:
        raise ValueError("; ".join(wrong))
    return TraceRequest(tracers[0] if tracers else "", tuple(functions), tuple(events), tuple(kprobes))


def _make_kprobe(word: str) -> str:
    """A line for ``kprobe_events``, in the group ``cowbell``; empty for other words."""
    match = _KPROBE.fullmatch(word)
    if short := _SHORT.fullmatch(word):
        kind, name, symbol, offset, arguments = short[1], "", short[2], "", ""
    elif match:
        kind, name, symbol, offset, arguments = (match[number] or "" for number in range(1, 6))
    else:
        return ""
    name = name or re.sub(r"\W", "_", symbol)
    return f"{kind}:cowbell/{name} {symbol}{offset}{arguments}"
