# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads config fragments, the files of ``kconfigs/``.

A fragment has ``CONFIG_`` lines and header lines::

    #: about    purpose of the fragment            a user's own may leave it out
    #: when     arch=aarch64 kernel>=5.13         where the fragment may be used
    #: only     arch=x86_64 SYMBOL...  # why      requests them only there; elsewhere they are unsupported
    #: only     kernel<6.15 SYMBOL...  # why      newer kernels no longer have them: gone
                                                  one such line for each set of architectures
    #: one-of   SYMBOL SYMBOL...                  sets the first one that the kernel has to y
    #: expect   SYMBOL=y...                       checked, but not set: other symbols select it
    #: optional SYMBOL...                         may be dropped
    #: override SYMBOL...                         replaces the value of an earlier fragment
    #: append   options                           for the guest's kernel command line
"""

import re
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project.condition import Condition
from orchestrator.project.yamlfile import suggest
from orchestrator.store.name import RULE, is_name
from orchestrator.store.userfile import read_text

SETTING = re.compile(r'CONFIG_(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)|# CONFIG_(\w+) is not set')
_KEYS = ("about", "when", "expect", "only", "one-of", "optional", "append", "override")
_CONDITION = re.compile(r"(arch|kernel)[<>=]")
# the head of a file that Kconfig writes
_WHOLE = re.compile(r"\A\s*#\n# Automatically generated file; DO NOT EDIT\.")
# a comment that was meant to unset a symbol
_MISSPELT = re.compile(r"#\s*CONFIG_\S+\s+(is\s*)?(not|un)\s*set\W*", re.I)


@dataclass(frozen=True, slots=True)
class SymbolRequest:
    """One symbol, its requested value (``n`` for not set), and the line that requests it.

    ``alternatives`` are tried in order if the kernel does not have the symbol. ``gone`` says which version
    removed the symbol, if the kernel is newer.
    """

    symbol: str
    value: str
    where: str
    is_optional: bool = False
    is_set: bool = True
    only: Condition = Condition()
    why_only: str = ""
    alternatives: tuple["SymbolRequest", ...] = ()
    gone: str = ""

    @property
    def candidates(self) -> tuple["SymbolRequest", ...]:
        return (self, *self.alternatives)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A ``kconfigs/*.config`` file. ``append`` is added to the guest's kernel command line.

    Similar configs share a build folder if their fragments have the same ``family``. One that ``is_whole`` is
    a ``.config`` of some kernel: other fragments replace its values, and all its symbols may be dropped.
    """

    name: str
    about: str
    when: Condition
    requests: tuple[SymbolRequest, ...]
    append: str
    override: frozenset[str]
    family: str = ""
    is_whole: bool = False


def parse_symbol(word: str) -> Fragment | None:
    """The fragment of ``SYMBOL=value``, named by the word; None for any other word."""
    name, is_setting, value = word.partition("=")
    match = SETTING.fullmatch(f"CONFIG_{name.removeprefix('CONFIG_')}={value}") if is_setting else None
    if not match or not match[1]:
        return None
    request = SymbolRequest(match[1], value, f"CONFIG+={word}")
    return Fragment(word, "a symbol of the command line", Condition(), (request,), "", frozenset([match[1]]))


def load_file(path: Path, name: str) -> Fragment:
    """A fragment or whole ``.config`` of the command line; raises all errors at once as ``UsageError``."""
    errors: list[UsageError] = []
    text = read_text(path)
    fragment = _read_lines(_Reader(path, errors, needs_about=False), text)
    if not fragment.requests and not errors:
        errors.append(UsageError("sets no symbol: it is no .config and no fragment", where=str(path)))
    raise_all(errors)
    fragment = replace(fragment, name=name, about=fragment.about or "a file of the command line")
    if not _WHOLE.search(text):
        return fragment
    requests = tuple(replace(request, is_optional=True) for request in fragment.requests)
    return replace(fragment, requests=requests, is_whole=True)


def parse_requests(name: str, text: str, where: str) -> Fragment:
    """The fragment that a kernel tree has for its own use: symbols without header lines, each optional.

    Lines that set no symbol are ignored, as by the kernel's scripts.
    """
    requests = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := SETTING.fullmatch(line.strip()):
            symbol, value = match[1] or match[3], match[2] or "n"
            requests.append(SymbolRequest(symbol, value, f"{where}:{number}", is_optional=True))
    symbols = frozenset(request.symbol for request in requests)
    return Fragment(name, f"the symbols of {where}", Condition(), tuple(requests), "", symbols)


def load_fragments(folder: Path) -> dict[str, Fragment]:
    """The fragments of a folder by name; raises all errors at once as ``UsageError``."""
    found, faults = read_fragments(folder)
    raise_all([error for errors in faults.values() for error in errors])
    return found


def read_fragments(
    folder: Path, *, needs_about: bool = True
) -> tuple[dict[str, Fragment], dict[str, list[UsageError]]]:
    """The fragments of a folder by name, as far as they are understood, and the errors of each faulty one."""
    errors: dict[str, list[UsageError]] = {}
    found = {
        path.stem: _load_fragment(path, errors.setdefault(path.stem, []), needs_about=needs_about)
        for path in sorted(folder.glob("*.config"))
    }
    return found, {name: faults for name, faults in errors.items() if faults}


def _load_fragment(path: Path, errors: list[UsageError], *, needs_about: bool) -> Fragment:
    reader = _Reader(path, errors, needs_about=needs_about)
    text = "#: about -"
    try:
        text = read_text(path)
    except UsageError as error:
        errors.append(error)
    if not is_name(path.stem):
        errors.append(UsageError(f"{path.stem!r} is not a name of a fragment: use {RULE}", where=str(path)))
    return _read_lines(reader, text)


def _read_lines(reader: "_Reader", text: str) -> Fragment:
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        reader.read(line.rstrip(), f"{reader.path}:{number}")
    return reader.finish()


class _Reader:
    """Reads a fragment line by line and collects its errors."""

    def __init__(self, path: Path, errors: list[UsageError], *, needs_about: bool) -> None:
        self.path = path
        self.needs_about = needs_about
        self.errors = errors
        self.values: dict[str, list[str]] = {}
        self.requests: list[SymbolRequest] = []
        self.when = Condition()
        self.bounds: dict[str, list[tuple[Condition, str, str]]] = {}
        self.named: list[tuple[str, str, str]] = []

    def read(self, line: str, where: str) -> None:
        if line.startswith("#:"):
            key, _, value = line[2:].strip().partition(" ")
            value, _, why = map(str.strip, value.partition("#"))
            self._read_header(key, value, why, where)
        elif match := SETTING.fullmatch(line):
            self.requests.append(SymbolRequest(match[1] or match[3], match[2] or "n", where))
        elif line.strip() and (not line.startswith("#") or _MISSPELT.fullmatch(line)):
            hint = "write CONFIG_NAME=value, '# CONFIG_NAME is not set', or a '#:' header line"
            self._add_error(f"not understood: {line}", where, hint)

    def _read_header(self, key: str, value: str, why: str, where: str) -> None:
        if key not in _KEYS:
            self._add_error(f"unknown header {key!r}{suggest(key, _KEYS)}", where)
        self.values.setdefault(key, []).append(value)
        if key == "when":
            self.when = self._read_condition(" ".join(self.values["when"]), where)
        elif key == "expect":
            for word in value.split():
                symbol, _, wanted = word.partition("=")
                self.requests.append(SymbolRequest(symbol, wanted or "y", where, is_set=False))
        elif key == "only":
            self._read_only(value, why, where)
        elif key == "one-of":
            self._read_alternatives(value.split(), where)
        elif key in ("optional", "override"):
            self.named += [(symbol, key, where) for symbol in value.split()]

    def _read_alternatives(self, symbols: list[str], where: str) -> None:
        if len(symbols) < 2:
            self._add_error("expected at least two symbols", where, "as in '#: one-of PREEMPT PREEMPT_LAZY'")
            return
        first, *others = (SymbolRequest(symbol, "y", where) for symbol in symbols)
        self.requests.append(replace(first, alternatives=tuple(others)))

    def _read_only(self, value: str, why: str, where: str) -> None:
        conditions = [word for word in value.split() if _CONDITION.match(word)]
        symbols = [word for word in value.split() if not _CONDITION.match(word)]
        if not conditions or not symbols or not why:
            example = "#: only arch=x86_64 kernel>=5.13 SYMBOL  # why"
            self._add_error("expected conditions, symbols and a reason", where, f"as in '{example}'")
        condition = self._read_condition(" ".join(conditions), where)
        for symbol in symbols:
            bounds = self.bounds.setdefault(symbol, [])
            for other, _, first in bounds:
                if other.arches & condition.arches:
                    self._add_error(
                        f"{symbol} has two 'only' lines for the same architecture",
                        where,
                        f"the first is {first}",
                    )
            bounds.append((condition, why, where))
            self.named.append((symbol, "only", where))

    def _read_condition(self, text: str, where: str) -> Condition:
        try:
            return Condition.parse(text)
        except ValueError as error:
            self._add_error(str(error), where)
        return Condition()

    def _add_error(self, what: str, where: str, hint: str = "") -> None:
        self.errors.append(UsageError(what, where=where, hint=hint))

    def _words(self, key: str) -> frozenset[str]:
        return frozenset(" ".join(self.values.get(key, [])).split())

    def finish(self) -> Fragment:
        if self.needs_about and not self._words("about"):
            self._add_error("missing '#: about' header", f"{self.path}:1", "add '#: about ...'")
        requested = {one.symbol for request in self.requests for one in request.candidates}
        for symbol, key, where in self.named:
            if symbol not in requested:
                what = f"{key} {symbol}: not requested by this fragment"
                self._add_error(what + suggest(symbol, requested), where)
        optional = self._words("optional")
        return Fragment(
            self.path.stem,
            " ".join(self.values.get("about", [])),
            self.when,
            tuple(self._bind(request, optional) for request in self.requests),
            " ".join(self.values.get("append", [])),
            self._words("override"),
        )

    def _bind(self, request: SymbolRequest, optional: frozenset[str]) -> SymbolRequest:
        bounds = self.bounds.get(request.symbol, [(Condition(), "", "")])
        only, why = bounds[0][0], "; ".join(why for _, why, _ in bounds)
        for other, _, _ in bounds[1:]:
            only = only.either(other)
        return replace(
            request,
            is_optional=request.symbol in optional,
            only=only,
            why_only=why,
            alternatives=tuple(self._bind(one, optional) for one in request.alternatives),
        )
