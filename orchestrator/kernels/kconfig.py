# SPDX-License-Identifier: GPL-2.0-or-later
"""Config fragments in, a ``.config`` out in which every requested symbol survived.

Fragments are merged onto allnoconfig. Conflicts between fragments and symbols that Kconfig dropped are errors
that name each symbol, all at once. Beside ``CONFIG_`` lines a fragment has header lines::

    #: about    what it is for
    #: when     arch=aarch64 kernel>=5.13         where it may be used at all
    #: only     arch=x86_64 SYMBOL...  # why      elsewhere these are not requested: unsupported, not dropped
    #: only     kernel<6.15 SYMBOL...  # why      a newer kernel has them no more: gone, not dropped
    #: one-of   SYMBOL SYMBOL...                  the first of them that the kernel offers is set to y
    #: expect   SYMBOL=y...                       must come out so, but is selected by others, not set
    #: optional SYMBOL...                         may be dropped
    #: override SYMBOL...                         an earlier fragment's other value gives way
    #: append   words                             for the guest's kernel command line
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from orchestrator.declarations.arch import ARCHES, Arch
from orchestrator.declarations.condition import Condition, Version
from orchestrator.declarations.document import suggest
from orchestrator.ground import command
from orchestrator.ground.errors import StageFailure, UsageError, raise_all
from orchestrator.ground.store import make_id, write_atomic
from orchestrator.kernels.kconfigtree import explain_symbols, make_environment

_SETTING = re.compile(r'CONFIG_(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)|# CONFIG_(\w+) is not set')
_KEYS = ("about", "when", "expect", "only", "one-of", "optional", "append", "override")
_MADE = ".config.made"
_CONDITION = re.compile(r"(arch|kernel)[<>=]")


@dataclass(frozen=True, slots=True)
class Request:
    """One symbol, the value it must have (``n`` for not set), and the line that says so.

    ``alternatives`` are taken in their order where the kernel does not offer this one. ``gone`` says since
    when newer kernels have it no more, on a kernel that is one of those.
    """

    symbol: str
    value: str
    where: str
    is_optional: bool = False
    is_set: bool = True
    only: Condition = Condition()
    why_only: str = ""
    alternatives: tuple["Request", ...] = ()
    gone: str = ""

    @property
    def candidates(self) -> tuple["Request", ...]:
        return (self, *self.alternatives)


@dataclass(frozen=True, slots=True)
class Fragment:
    """A ``kconfigs/*.config`` file. ``append`` goes onto the guest's kernel command line.

    Configs that differ in little may share a build folder, if their fragments have the same ``family``.
    """

    name: str
    about: str
    when: Condition
    requests: tuple[Request, ...]
    append: str
    override: frozenset[str]
    family: str = ""


@dataclass(frozen=True, slots=True)
class Config:
    """What is asked of Kconfig: the merged requests and the command line that goes with them.

    ``unsupported`` are the requests that are not for this architecture or version, as their fragment says.
    """

    config_id: str
    arch: str
    requests: tuple[Request, ...]
    append: str
    unsupported: tuple[Request, ...] = ()
    family: str = ""

    def render(self, passed_over: Set[str] = frozenset()) -> str:
        """The file that ``KCONFIG_ALLCONFIG`` reads. ``expect`` lines are checked, not set.

        Of alternatives it has the first that is not ``passed_over``.
        """
        chosen = [
            next((one for one in r.candidates if one.symbol not in passed_over), r.candidates[-1])
            for r in self.requests
            if r.is_set
        ]
        lines = [
            f"# CONFIG_{r.symbol} is not set" if r.value == "n" else f"CONFIG_{r.symbol}={r.value}"
            for r in chosen
        ]
        return "\n".join(lines) + "\n"


class State(StrEnum):
    """What became of a requested symbol."""

    SURVIVED = "survived"
    CHANGED = "changed"
    DROPPED = "dropped"
    UNSUPPORTED = "unsupported"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """A requested symbol and what it came to in a ``.config``; ``reason`` where it is not as requested.

    ``taken`` is the symbol that has the value: of alternatives, the one that the kernel offers.
    """

    request: Request
    got: str
    state: State
    reason: str = ""
    taken: str = ""

    @property
    def is_error(self) -> bool:
        return self.state in (State.CHANGED, State.DROPPED) and not self.request.is_optional

    def __str__(self) -> str:
        asked = self.request
        names = " or ".join(one.symbol for one in asked.candidates)
        text = f"{asked.where}: {names}: requested {asked.value}, got {self.got}"
        return f"{text}: {self.reason}" if self.reason else text


def load_fragments(folder: Path) -> dict[str, Fragment]:
    """Every fragment of a folder by name; raises ``UsageError`` for each faulty line, all at once."""
    errors: list[UsageError] = []
    found = {path.stem: _load_fragment(path, errors) for path in sorted(folder.glob("*.config"))}
    raise_all(errors)
    return found


def _load_fragment(path: Path, errors: list[UsageError]) -> Fragment:
    reader = _Reader(path, errors)
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError:
        errors.append(UsageError("is not UTF-8 text", where=str(path)))
        lines = ["#: about"]
    for number, line in enumerate(map(str.rstrip, lines), 1):
        reader.read(line, f"{path}:{number}")
    return reader.finish()


class _Reader:
    """Reads a fragment line by line and keeps what is wrong with it."""

    def __init__(self, path: Path, errors: list[UsageError]) -> None:
        self.path = path
        self.errors = errors
        self.values: dict[str, list[str]] = {}
        self.requests: list[Request] = []
        self.when = Condition()
        self.bounds: dict[str, tuple[Condition, str, str]] = {}
        self.named: list[tuple[str, str, str]] = []

    def read(self, line: str, where: str) -> None:
        if line.startswith("#:"):
            key, _, value = line[2:].strip().partition(" ")
            value, _, why = map(str.strip, value.partition("#"))
            self._read_header(key, value, why, where)
        elif match := _SETTING.fullmatch(line):
            self.requests.append(Request(match[1] or match[3], match[2] or "n", where))
        elif line.strip() and (not line.startswith("#") or "CONFIG_" in line):
            hint = "write CONFIG_NAME=value, '# CONFIG_NAME is not set', or a '#:' header line"
            self._blame(f"not understood: {line}", where, hint)

    def _read_header(self, key: str, value: str, why: str, where: str) -> None:
        if key not in _KEYS:
            self._blame(f"unknown header {key!r}{suggest(key, _KEYS)}", where)
        self.values.setdefault(key, []).append(value)
        if key == "when":
            self.when = self._read_condition(" ".join(self.values["when"]), where)
        elif key == "expect":
            for word in value.split():
                symbol, _, wanted = word.partition("=")
                self.requests.append(Request(symbol, wanted or "y", where, is_set=False))
        elif key == "only":
            self._read_only(value, why, where)
        elif key == "one-of":
            self._read_alternatives(value.split(), where)
        elif key in ("optional", "override"):
            self.named += [(symbol, key, where) for symbol in value.split()]

    def _read_alternatives(self, symbols: list[str], where: str) -> None:
        if len(symbols) < 2:
            self._blame("expected two symbols or more", where, "as in '#: one-of PREEMPT PREEMPT_LAZY'")
            return
        first, *others = (Request(symbol, "y", where) for symbol in symbols)
        self.requests.append(replace(first, alternatives=tuple(others)))

    def _read_only(self, value: str, why: str, where: str) -> None:
        conditions = [word for word in value.split() if _CONDITION.match(word)]
        symbols = [word for word in value.split() if not _CONDITION.match(word)]
        if not conditions or not symbols or not why:
            example = "#: only arch=x86_64 kernel>=5.13 SYMBOL  # why"
            self._blame("expected conditions, symbols and a reason", where, f"as in '{example}'")
        condition = self._read_condition(" ".join(conditions), where)
        for symbol in symbols:
            if symbol in self.bounds:
                self._blame(f"{symbol} is bounded twice", where, f"first in {self.bounds[symbol][2]}")
            self.bounds[symbol] = (condition, why, where)
            self.named.append((symbol, "only", where))

    def _read_condition(self, text: str, where: str) -> Condition:
        try:
            return Condition.parse(text)
        except ValueError as error:
            self._blame(str(error), where)
        return Condition()

    def _blame(self, what: str, where: str, hint: str = "") -> None:
        self.errors.append(UsageError(what, where=where, hint=hint))

    def _words(self, key: str) -> frozenset[str]:
        return frozenset(" ".join(self.values.get(key, [])).split())

    def finish(self) -> Fragment:
        if not self._words("about"):
            self._blame("says not what it is for", f"{self.path}:1", "add '#: about ...'")
        asked = {one.symbol for request in self.requests for one in request.candidates}
        for symbol, key, where in self.named:
            if symbol not in asked:
                what = f"{key} {symbol}: this fragment does not ask for it"
                self._blame(what + suggest(symbol, asked), where)
        optional = self._words("optional")
        return Fragment(
            self.path.stem,
            " ".join(self.values.get("about", [])),
            self.when,
            tuple(self._bind(request, optional) for request in self.requests),
            " ".join(self.values.get("append", [])),
            self._words("override"),
        )

    def _bind(self, request: Request, optional: frozenset[str]) -> Request:
        only, why, _ = self.bounds.get(request.symbol, (Condition(), "", ""))
        return replace(
            request,
            is_optional=request.symbol in optional,
            only=only,
            why_only=why,
            alternatives=tuple(self._bind(one, optional) for one in request.alternatives),
        )


def make_config(
    names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch, version: Version
) -> Config:
    """Merge fragments in the order given; raises ``UsageError`` for unknown names and conflicts.

    ``base`` brings the architecture's fragment along. A later fragment wins only where it says
    ``#: override SYMBOL``. One that does not hold here is an error, unless it is another architecture's own.
    """
    used = choose_fragments(names, fragments, arch, version)
    merged: dict[str, Request] = {}
    unsupported: list[Request] = []
    errors: list[UsageError] = []
    for fragment in used:
        for written in fragment.requests:
            offered = [one for one in written.candidates if one.only.holds(arch.name, version)]
            unsupported += [
                replace(one, gone=one.only.tell_end(version))
                for one in written.candidates
                if one not in offered
            ]
            if not offered:
                continue
            request = replace(offered[0], alternatives=tuple(offered[1:]))
            old = merged.get(request.symbol)
            if old and old.value != request.value and request.symbol not in fragment.override:
                errors.append(
                    UsageError(
                        f"{request.symbol}={request.value} contradicts {old.value} in {old.where}",
                        where=request.where,
                        hint=f"drop one, or say '#: override {request.symbol}' in the later one",
                    )
                )
            merged[request.symbol] = _merge(old, request) if old else request
    raise_all(errors)
    append = " ".join(fragment.append for fragment in used if fragment.append)
    requests = tuple(merged.values())
    asked = [
        (r.symbol, r.value, r.is_optional, r.is_set, *(one.symbol for one in r.alternatives))
        for r in requests
    ]
    family = "".join(fragment.family for fragment in used)
    return Config(make_id(arch.name, asked), arch.name, requests, append, tuple(unsupported), family)


def choose_fragments(
    names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch, version: Version
) -> list[Fragment]:
    """The fragments named, the architecture's own right after base. One that is for others is an error."""
    names = [name for name in names if name == arch.name or name not in ARCHES]
    if "base" in names and arch.name in fragments and arch.name not in names:
        names.insert(names.index("base") + 1, arch.name)
    errors: list[UsageError] = []
    for name in names:
        if name not in fragments:
            what = f"there is no fragment {name}{suggest(name, fragments)}"
            errors.append(UsageError(what, where="kconfig"))
        elif not fragments[name].when.holds(arch.name, version):
            what = f"fragment {name} is for {fragments[name].when.text}, this is {arch.name}, {version}"
            errors.append(UsageError(what, where="kconfig"))
    raise_all(errors)
    return [fragments[name] for name in names]


def _merge(old: Request, new: Request) -> Request:
    """What two fragments request together: set if either sets it, optional only if both say so."""
    return replace(
        new,
        is_set=old.is_set or new.is_set,
        is_optional=old.is_optional and new.is_optional,
        alternatives=old.alternatives and new.alternatives,
    )


def configure(
    config: Config, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    """Let Kconfig make the ``.config`` of a build folder and return it; untouched when nothing changed.

    Raises ``StageFailure`` naming every requested symbol that did not survive, with the reason.
    """
    text = _run_kconfig(config, worktree, build_dir, make, env)
    if wrong := [outcome for outcome in compare_config(config, text) if outcome.is_error]:
        told = explain_outcomes(wrong, worktree, build_dir / _MADE, make)
        raise StageFailure(
            "kconfig",
            f"{len(told)} requested symbol(s) did not survive",
            hint="\n  ".join(map(str, told)),
        )
    final = build_dir / ".config"
    if not final.exists() or final.read_text() != text:
        write_atomic(final, text)
    return text


def report_config(
    config: Config, worktree: Path, build_dir: Path, words: Sequence[str]
) -> tuple[Outcome, ...]:
    """What would become of every requested symbol, with reasons, in an empty ``build_dir``.

    ``words`` are the toolchain's for make. Raises ``StageFailure`` only when Kconfig itself fails.
    """
    make = [command.find_tool("make", "make"), *words, f"O={build_dir}"]
    text = _run_kconfig(config, worktree, build_dir, make, {})
    return explain_outcomes(compare_config(config, text), worktree, build_dir / _MADE, make)


def _run_kconfig(
    config: Config, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    """The ``.config`` that Kconfig makes; it is run again where it took none of a request's alternatives."""
    passed_over: set[str] = set()
    while True:
        text = _run_allnoconfig(config.render(passed_over), worktree, build_dir, make, env)
        lost = [
            request
            for request in config.requests
            if request.alternatives and not _find_taken(request, parse_config(text))
        ]
        more = {
            next((one.symbol for one in request.candidates[:-1] if one.symbol not in passed_over), "")
            for request in lost
        } - {""}
        if not more:
            return text
        passed_over |= more


def _run_allnoconfig(
    requests: str, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    asked, made, log = build_dir / ".config.asked", build_dir / _MADE, build_dir / "kconfig.log"
    write_atomic(asked, requests)
    for stale in (made, log):
        stale.unlink(missing_ok=True)
    done = command.run(
        [*make, f"KCONFIG_ALLCONFIG={asked}", f"KCONFIG_CONFIG={made}", "allnoconfig"],
        cwd=worktree,
        env=env,
        deadline=command.Deadline.after(300),
        log=log,
        check=False,
    )
    if done.returncode:
        words = done.output.splitlines()
        raise command.find_host_trouble(done, words) or StageFailure(
            "kconfig", "kconfig does not take this tree", hint="\n  ".join(words[-6:]), log=log
        )
    return made.read_text()


def parse_config(text: str) -> dict[str, str]:
    """Symbols of a ``.config`` and their values; what is not set is ``n``."""
    found = (_SETTING.fullmatch(line) for line in text.splitlines())
    return {match[1] or match[3]: match[2] or "n" for match in found if match}


def compare_config(config: Config, text: str) -> tuple[Outcome, ...]:
    """What every request came to in a ``.config``; a symbol that it does not name is ``n``."""
    found = parse_config(text)
    outcomes = []
    for request in config.requests:
        if taken := _find_taken(request, found):
            names = ", ".join(one.symbol for one in request.candidates)
            reason = "" if taken == request.symbol else f"the first of {names} that this kernel offers"
            outcomes.append(Outcome(request, request.value, State.SURVIVED, reason, taken))
            continue
        got = found.get(request.symbol, "n")
        outcomes.append(Outcome(request, got, State.DROPPED if got == "n" else State.CHANGED))
    outcomes += [_tell_unsupported(request, found) for request in config.unsupported]
    return tuple(outcomes)


def _find_taken(request: Request, found: Mapping[str, str]) -> str:
    """The first of a request's alternatives that has the value in a ``.config``, or an empty string."""
    return next((one.symbol for one in request.candidates if found.get(one.symbol, "n") == one.value), "")


def _tell_unsupported(request: Request, found: Mapping[str, str]) -> Outcome:
    got = found.get(request.symbol, "n")
    if request.gone:
        return Outcome(request, got, State.GONE, f"gone {request.gone}: {request.why_only}")
    return Outcome(request, got, State.UNSUPPORTED, f"only {request.only.text}: {request.why_only}")


def explain_outcomes(
    outcomes: Sequence[Outcome], worktree: Path, made: Path, make: Sequence[str]
) -> tuple[Outcome, ...]:
    """The outcomes with the reason of each that is not as requested, as Kconfig has it."""
    wanted = {
        o.request.symbol: o.request.value for o in outcomes if o.state in (State.CHANGED, State.DROPPED)
    }
    if not wanted:
        return tuple(outcomes)
    head = re.search(r"^# Linux/\S+ (\S+) Kernel Configuration$", made.read_text(), re.M)
    environment = make_environment(worktree, head[1] if head else "this kernel", make)
    reasons = explain_symbols(wanted, made, environment)
    return tuple(replace(o, reason=o.reason or reasons.get(o.request.symbol, "")) for o in outcomes)
