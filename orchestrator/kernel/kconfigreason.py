# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains why a symbol did not get the requested value.

Kconfiglib reads the Kconfig files of the tree, with the compiler of the build, only if a symbol was dropped,
which takes a second or two. It is the only parser for Linux on PyPI; its last release is of 2020, so newer
syntax is added here. If a tree has syntax that is still unknown, the reasons quote the Kconfig files.
"""

import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kconfiglib

from orchestrator.project.yamlfile import suggest

# how far a chain of dependencies is followed, and how many names of a list are shown
_DEPTH = 4
_SHOWN = 5
_TRISTATE = (kconfiglib.BOOL, kconfiglib.TRISTATE)
_BASES = {kconfiglib.INT: 10, kconfiglib.HEX: 16}
# as Kconfiglib builds it: a symbol, a choice, or a tuple of an operator and its operands
_Expr = Any


# lines of definitions that a reason quotes
_QUOTED = 16


class _Kconfig(kconfiglib.Kconfig):  # type: ignore[misc]
    """Kconfiglib with the syntax that Kconfig has added since its last release.

    Since Linux 5.13 a line ``modules``; since 6.18 ``transitional`` for a symbol that is only read from old
    ``.config`` files; since 7.0 conditional dependencies, ``depends on X if Y``.
    """

    def _tokenize(self, s: str) -> object:
        return super()._tokenize({"modules": "option modules\n", "transitional": "\n"}.get(s.strip(), s))

    def _expect_expr_and_eol(self) -> _Expr:
        """``X if Y`` is ``X || Y = n``, as in ``menu_add_dep`` of the kernel's ``scripts/kconfig/menu.c``."""
        if self._tokens[0] is not kconfiglib._T_DEPENDS:
            return super()._expect_expr_and_eol()
        wanted = self._parse_expr(True)
        if self._check_token(kconfiglib._T_IF):
            wanted = self._make_or(wanted, self._compare(self._parse_expr(True), self.n))
        if self._tokens[self._tokens_i] is not None:
            self._trailing_tokens_error()
        return wanted

    def _compare(self, expr: _Expr, value: kconfiglib.Symbol) -> _Expr:
        """An expression that holds where another one is ``n``, or ``y``."""
        if not isinstance(expr, tuple):
            return (kconfiglib.EQUAL, expr, value)
        operator, *parts = expr
        if operator is kconfiglib.NOT:
            return self._compare(parts[0], self.y if value is self.n else self.n)
        if operator in (kconfiglib.AND, kconfiglib.OR):
            both = (operator is kconfiglib.AND) == (value is self.y)
            return (
                kconfiglib.AND if both else kconfiglib.OR,
                *(self._compare(part, value) for part in parts),
            )
        return expr if value is self.y else (kconfiglib.NOT, expr)


@dataclass(frozen=True, slots=True)
class KconfigEntry:
    """A definition of a symbol: its file and line, and its text without the help."""

    where: str
    text: str


def find_entries(symbols: Iterable[str], worktree: Path) -> dict[str, list[KconfigEntry]]:
    """The definitions of symbols, by a text search in all Kconfig files."""
    names = "|".join(map(re.escape, symbols))
    if not names:
        return {}
    body = r"(?:\n(?![ \t]*help\b)(?:[ \t].*)?$)*"
    pattern = re.compile(rf"^[ \t]*(?:menu)?config[ \t]+({names})[ \t]*(?:#.*)?${body}", re.M)
    found: dict[str, list[KconfigEntry]] = {}
    for folder, folders, files in os.walk(worktree):
        # scripts/ contains the tests of Kconfig itself
        folders[:] = [name for name in folders if name not in (".git", "Documentation", "scripts")]
        for name in files:
            if name.startswith("Kconfig"):
                path = Path(folder, name)
                text = path.read_text(errors="replace")
                for match in pattern.finditer(text):
                    line = text.count("\n", 0, match.start()) + 1
                    where = f"{path.relative_to(worktree)}:{line}"
                    found.setdefault(match[1], []).append(KconfigEntry(where, match[0].strip()))
    return found


def make_environment(worktree: Path, version: str, words: Sequence[str]) -> dict[str, str]:
    """The environment that Kbuild sets for Kconfig, derived from the arguments of make."""
    given = dict(word.split("=", 1) for word in words if "=" in word)
    arch, prefix = given.get("ARCH", ""), given.get("CROSS_COMPILE", "")
    names = ("LD", "AR", "NM", "OBJCOPY", "OBJDUMP", "READELF", "STRIP")
    if "LLVM" in given:
        tools = {name: f"llvm-{name.lower()}" for name in names} | {"LD": "ld.lld"}
    else:
        tools = {name: prefix + name.lower() for name in names}
    tools |= {name: given[name] for name in names if name in given}
    cc = given.get("CC", f"{prefix}gcc").removeprefix("ccache ")
    return {
        **tools,
        "CC": cc,
        "CC_VERSION_TEXT": cc,
        "CLANG_FLAGS": f"--target={prefix.rstrip('-')}" if prefix and "clang" in cc else "",
        "ARCH": arch,
        "SRCARCH": {"x86_64": "x86"}.get(arch, arch),
        "srctree": str(worktree),
        "KERNELVERSION": version,
        "HOSTCC": "gcc",
        "HOSTCXX": "g++",
        "PAHOLE": "pahole",
        "PYTHON3": "python3",
        "RUSTC": "rustc",
        "RUSTC_BOOTSTRAP": "1",
        "BINDGEN": "bindgen",
    }


def explain_symbols(
    wanted: Mapping[str, str], config: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Why each symbol does not have the value ``wanted`` in ``config``, and what to change.

    If Kconfiglib cannot read the tree, the reasons quote the definition of each symbol.
    """
    with _environment(environment):
        try:
            kconf = _Kconfig("Kconfig", warn=False)
            kconf.load_config(str(config))
        except (kconfiglib.KconfigError, OSError) as error:
            return _quote_entries(wanted, environment, str(error))
        explain = _Explainer(kconf, environment, frozenset(wanted))
        return {symbol: explain.symbol(symbol, value) for symbol, value in wanted.items()}


def _quote_entries(wanted: Iterable[str], environment: Mapping[str, str], why: str) -> dict[str, str]:
    """Quote the definitions of each symbol, without those of other architectures."""
    own = f"arch/{environment['SRCARCH']}/"
    found = find_entries(wanted, Path(environment["srctree"]))
    reasons: dict[str, str] = {}
    for symbol in wanted:
        entries = found.get(symbol, [])
        here = [
            entry for entry in entries if entry.where.startswith(own) or not entry.where.startswith("arch/")
        ]
        if not entries:
            reasons[symbol] = f"there is no such symbol in {environment['KERNELVERSION']}"
        elif not here:
            where = ", ".join(entry.where for entry in entries[:_SHOWN])
            reasons[symbol] = f"not a symbol of this architecture: it is defined in {where}"
        else:
            lines = [
                line for one in here for line in (f"{one.where}:", *one.text.splitlines()) if line.strip()
            ]
            cut = [*lines[:_QUOTED], *(["..."] if lines[_QUOTED:] else [])]
            reasons[symbol] = "\n      ".join(["see its definition:", *cut])
    first = next(iter(reasons), "")
    if first:
        reasons[first] += f"\n      Kconfiglib cannot parse this tree: {' '.join(why.split())}"
    return reasons


@contextlib.contextmanager
def _environment(added: Mapping[str, str]) -> Iterator[None]:
    """Set the environment for Kconfiglib, which also passes it to the commands in Kconfig files."""
    before = dict(os.environ)
    os.environ.update(added)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class _Explainer:
    """The reasons for one ``.config``, which Kconfiglib has loaded."""

    def __init__(self, kconf: _Kconfig, environment: Mapping[str, str], requested: frozenset[str]) -> None:
        self.kconf = kconf
        self.requested = requested
        self.worktree = Path(environment["srctree"])
        self.version = environment["KERNELVERSION"]

    def symbol(self, name: str, wanted: str) -> str:
        """The reason for one symbol."""
        symbol = self.kconf.syms.get(name)
        if symbol is None or not symbol.nodes:
            return self._explain_unknown(name)
        if not _is_value(symbol, wanted):
            return f"it is {kconfiglib.TYPE_TO_STR[symbol.orig_type]}, {wanted} is not a valid value"
        if symbol.orig_type not in _TRISTATE:
            return self._explain_value(symbol, wanted)
        if wanted == "n":
            return self._explain_set(symbol)
        if wanted == "m" and not self.kconf.modules.tri_value:
            return "modules are off: add CONFIG_MODULES=y"
        return self._explain_dropped(symbol, wanted, kconfiglib.STR_TO_TRI[wanted])

    def _explain_unknown(self, name: str) -> str:
        where = [
            str(path.relative_to(self.worktree))
            for depth in ("*", "*/*")
            for path in self.worktree.glob(f"arch/{depth}/Kconfig*")
            if re.search(rf"^\s*(menu)?config {name}$", path.read_text(errors="replace"), re.M)
        ]
        if where:
            return f"not a symbol of this architecture: it is defined in {', '.join(where[:_SHOWN])}"
        near = suggest(name, [symbol.name for symbol in self.kconf.unique_defined_syms])
        return f"there is no such symbol in {self.version}{near}"

    def _explain_value(self, symbol: kconfiglib.Symbol, wanted: str) -> str:
        """Why a number or string has another value."""
        base = _BASES.get(symbol.orig_type, 0)
        for low, high, condition in symbol.ranges:
            if kconfiglib.expr_value(condition):
                if not int(low.str_value, base) <= int(wanted, base) <= int(high.str_value, base):
                    return f"out of range: {low.str_value} to {high.str_value} is allowed"
                # only the first range whose condition holds applies
                break
        return self._explain_dropped(symbol, wanted, 1)

    def _explain_set(self, symbol: kconfiglib.Symbol) -> str:
        """Why a symbol is set although it should not be."""
        if by := self._list_selectors(symbol, is_set=True):
            return f"it is selected by {', '.join(by[:_SHOWN])}: remove that"
        if symbol.choice and symbol.choice.selection is symbol:
            return "it is selected by its choice: request another one of " + self._list_choices(symbol)
        if not _prompts(symbol):
            return "it has no prompt, so it cannot be unset: its default applies"
        return f"add '# CONFIG_{symbol.name} is not set'"

    def _explain_dropped(self, symbol: kconfiglib.Symbol, value: str, wanted: int) -> str:
        """Why a symbol is not set, or only to m; ``wanted`` is the value that its dependencies must allow."""
        prompts = _prompts(symbol)
        if not prompts:
            by = self._list_selectors(symbol, is_set=False)
            how = f"request one of {', '.join(by[:_SHOWN])}" if by else "its default applies"
            return f"it has no prompt, so it cannot be set: {how}"
        if all(kconfiglib.expr_value(prompt) < wanted for prompt in prompts):
            return " or ".join(self._explain_unmet(prompt, wanted, _DEPTH, {symbol}) for prompt in prompts)
        choice = symbol.choice
        if choice and choice.selection is not symbol:
            taken = choice.selection.name if choice.selection else "nothing"
            return f"its choice selected {taken}: request only one of {self._list_choices(symbol)}"
        return f"add CONFIG_{symbol.name}={value}, nothing else sets it"

    def _explain_unmet(self, expr: _Expr, wanted: int, depth: int, seen: set[kconfiglib.Symbol]) -> str:
        """The parts of a dependency that are not met, and their own dependencies."""
        parts = [
            self._explain_part(part, wanted, depth, seen)
            for part in kconfiglib.split_expr(expr, kconfiglib.AND)
            if kconfiglib.expr_value(part) < wanted
        ]
        return "it needs " + " and ".join(dict.fromkeys(parts))

    def _explain_part(self, part: _Expr, wanted: int, depth: int, seen: set[kconfiglib.Symbol]) -> str:
        text = _render(part)
        if not isinstance(part, kconfiglib.Symbol):
            return self._explain_term(part, wanted)
        if part.is_constant:
            return "support by the compiler or host"
        if not part.nodes:
            return f"{text}, which is not a symbol of this architecture"
        if part.name in self.requested:
            return f"{text}, which is requested too"
        if part in seen or not depth:
            return text
        seen.add(part)
        prompts = _prompts(part)
        if not prompts:
            if by := self._list_selectors(part, is_set=False):
                return f"{text}, which {', '.join(by[:_SHOWN])} would select"
            if part.defaults and kconfiglib.expr_value(part.direct_dep) < wanted:
                inner = self._explain_unmet(part.direct_dep, wanted, depth - 1, seen).removeprefix("it ")
                return f"{text} (which {inner})"
            return f"{text}, which this architecture does not have"
        value = {1: "m", 2: "y"}[wanted]
        if part.orig_type is kconfiglib.BOOL:
            value = "y"
        if any(kconfiglib.expr_value(prompt) >= wanted for prompt in prompts):
            return f"{text} (add CONFIG_{text}={value})"
        inner = self._explain_unmet(prompts[0], wanted, depth - 1, seen).removeprefix("it ")
        return f"{text} (add CONFIG_{text}={value}; {text} {inner})"

    def _explain_term(self, term: _Expr, wanted: int) -> str:
        """The reason for a part of a dependency that is not a single symbol."""
        text = _render(term)
        if isinstance(term, tuple) and term[0] is kconfiglib.NOT and isinstance(term[1], kconfiglib.Symbol):
            return f"{term[1].name} unset (it is {term[1].str_value})"
        for option in kconfiglib.split_expr(term, kconfiglib.OR):
            can_be_set = isinstance(option, kconfiglib.Symbol) and _prompts(option)
            if can_be_set and any(kconfiglib.expr_value(prompt) >= wanted for prompt in _prompts(option)):
                return f"{text} (add CONFIG_{option.name}=y)"
        return f"{text}, which does not hold"

    def _list_selectors(self, symbol: kconfiglib.Symbol, *, is_set: bool) -> list[str]:
        """The symbols that select a symbol (``is_set``), or that could."""
        names: dict[str, bool] = {}
        for term in kconfiglib.split_expr(symbol.rev_dep, kconfiglib.OR):
            by, *conditions = kconfiglib.split_expr(term, kconfiglib.AND)
            if not isinstance(by, kconfiglib.Symbol) or by.is_constant:
                continue
            if is_set and kconfiglib.expr_value(term):
                names[by.name] = True
            elif not is_set:
                # a selector that is already set has an unmet condition
                unmet = [_render(condition) for condition in conditions if by.tri_value]
                names[" if ".join([by.name, " && ".join(unmet)]) if unmet else by.name] = bool(_prompts(by))
        # symbols with a prompt come first
        return sorted(names, key=lambda name: not names[name])

    def _list_choices(self, symbol: kconfiglib.Symbol) -> str:
        return ", ".join(member.name for member in symbol.choice.syms)


def _is_value(symbol: kconfiglib.Symbol, text: str) -> bool:
    """Whether a text is a valid value for the type of a symbol."""
    if symbol.orig_type in _BASES:
        try:
            int(text, _BASES[symbol.orig_type])
        except ValueError:
            return False
        return True
    if symbol.orig_type is kconfiglib.STRING:
        return text.startswith('"')
    return text in ("n", "y") or (text == "m" and symbol.orig_type is kconfiglib.TRISTATE)


def _prompts(symbol: kconfiglib.Symbol) -> list[_Expr]:
    """The conditions under which a symbol can be set, one for each definition with a prompt."""
    return [node.prompt[1] for node in symbol.nodes if node.prompt]


def _render(expr: _Expr) -> str:
    text: str = kconfiglib.expr_str(expr)
    return text
