# SPDX-License-Identifier: GPL-2.0-or-later
"""Merges config fragments into a ``.config`` in which every requested symbol has its value.

Fragments are merged onto allnoconfig. Conflicts between fragments and symbols that Kconfig dropped are
reported all at once, each by name.
"""

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import StageFailure, UsageError, raise_all
from orchestrator.kernel.fragment import SETTING, Fragment, SymbolRequest
from orchestrator.kernel.kconfigreason import explain_symbols, find_entries, make_environment
from orchestrator.process import command
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.condition import Version
from orchestrator.project.yamlfile import suggest
from orchestrator.store.store import make_id, write_atomic

_MADE = ".config.made"


@dataclass(frozen=True, slots=True)
class Config:
    """The merged requests of all fragments and their kernel command line.

    ``unsupported`` are the requests that their fragment does not make for this architecture or version.
    """

    config_id: str
    arch: str
    requests: tuple[SymbolRequest, ...]
    append: str
    unsupported: tuple[SymbolRequest, ...] = ()
    family: str = ""

    def render(self, excluded: Set[str] = frozenset()) -> str:
        """The file that ``KCONFIG_ALLCONFIG`` reads. ``expect`` lines are checked, not set.

        Of alternatives, it contains the first one that is not in ``excluded``.
        """
        chosen = [
            next((one for one in r.candidates if one.symbol not in excluded), r.candidates[-1])
            for r in self.requests
            if r.is_set
        ]
        lines = [
            f"# CONFIG_{r.symbol} is not set" if r.value == "n" else f"CONFIG_{r.symbol}={r.value}"
            for r in chosen
        ]
        return "\n".join(lines) + "\n"


class SymbolState(StrEnum):
    """The state of a requested symbol; ``unknown`` is a symbol to unset that the tree does not have."""

    SURVIVED = "survived"
    CHANGED = "changed"
    DROPPED = "dropped"
    UNKNOWN = "unknown"
    UNSUPPORTED = "unsupported"
    GONE = "gone"


_LOST = (SymbolState.CHANGED, SymbolState.DROPPED, SymbolState.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SymbolOutcome:
    """A requested symbol and its value in a ``.config``; ``reason`` says why it is not as requested.

    ``taken`` is the symbol that has the value: of alternatives, the first one that the kernel has.
    """

    request: SymbolRequest
    got: str
    state: SymbolState
    reason: str = ""
    taken: str = ""

    @property
    def is_lost(self) -> bool:
        return self.state in _LOST

    @property
    def is_error(self) -> bool:
        return self.is_lost and not self.request.is_optional

    def __str__(self) -> str:
        request = self.request
        names = " or ".join(one.symbol for one in request.candidates)
        text = f"{request.where}: {names}: requested {request.value}, got {self.got}"
        return f"{text}: {self.reason}" if self.reason else text


def make_image_config(names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch) -> Config:
    """What is left of fragments for a kernel that was built elsewhere: their kernel command line."""
    append = " ".join(
        fragments[name].append for name in names if name in fragments and fragments[name].append
    )
    return Config(make_id(arch.name, []), arch.name, (), append)


def make_config(
    names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch, version: Version
) -> Config:
    """Merge fragments in the order given; raises ``UsageError`` for unknown names and conflicts.

    ``base`` implies the fragment of the architecture. A later fragment replaces a value only with
    ``#: override SYMBOL``, or that of a whole ``.config``. A fragment that does not apply here is an error,
    unless it belongs to another architecture.
    """
    used = choose_fragments(names, fragments, arch, version)
    used.sort(key=lambda fragment: not fragment.is_whole)
    replaced = {r.symbol for fragment in used if fragment.is_whole for r in fragment.requests}
    merged: dict[str, SymbolRequest] = {}
    unsupported: list[SymbolRequest] = []
    errors: list[UsageError] = []
    for fragment in used:
        for written in fragment.requests:
            offered = [one for one in written.candidates if one.only.holds(arch.name, version)]
            unsupported += [
                replace(one, gone=one.only.describe_end(arch.name, version))
                for one in written.candidates
                if one not in offered
            ]
            if not offered:
                continue
            request = replace(offered[0], alternatives=tuple(offered[1:]))
            old = merged.get(request.symbol)
            if request.symbol in replaced and not fragment.is_whole:
                replaced.remove(request.symbol)
                old = None
            is_same = old is None or _is_same(old.value, request.value)
            if old and not is_same and request.symbol not in fragment.override:
                errors.append(
                    UsageError(
                        f"{request.symbol}={request.value} contradicts {old.value} in {old.where}",
                        where=request.where,
                        hint=f"remove one, or add '#: override {request.symbol}' to the later fragment",
                    )
                )
            merged[request.symbol] = _merge(old, request) if old else request
    raise_all(errors)
    append = " ".join(fragment.append for fragment in used if fragment.append)
    requests = tuple(merged.values())
    identity = [
        (r.symbol, r.value, r.is_optional, r.is_set, *(one.symbol for one in r.alternatives))
        for r in requests
    ]
    family = "".join(fragment.family for fragment in used)
    return Config(make_id(arch.name, identity), arch.name, requests, append, tuple(unsupported), family)


def choose_fragments(
    names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch, version: Version
) -> list[Fragment]:
    """The named fragments, and that of the architecture after ``base``. Raises ``UsageError`` if unusable."""
    names = [name for name in names if name == arch.name or name not in ARCHES]
    if "base" in names and arch.name in fragments and arch.name not in names:
        names.insert(names.index("base") + 1, arch.name)
    errors: list[UsageError] = []
    for name in names:
        if name not in fragments:
            what = f"there is no fragment {name}{suggest(name, fragments)}"
            errors.append(UsageError(what, where="kconfig"))
        elif not fragments[name].when.holds(arch.name, version):
            what = f"fragment {name} needs {fragments[name].when.text}, this is {arch.name}, {version}"
            errors.append(UsageError(what, where="kconfig"))
    raise_all(errors)
    return [fragments[name] for name in names]


def _merge(old: SymbolRequest, new: SymbolRequest) -> SymbolRequest:
    """Merge the requests of two fragments: set if either sets it, optional only if both are."""
    return replace(
        new,
        is_set=old.is_set or new.is_set,
        is_optional=old.is_optional and new.is_optional,
        alternatives=old.alternatives and new.alternatives,
    )


def configure(
    config: Config, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    """Let Kconfig make the ``.config`` of a build folder, and return it.

    Raises ``StageFailure`` naming every requested symbol that was dropped or changed, with the reason.
    """
    text = _run_kconfig(config, worktree, build_dir, make, env)
    outcomes = find_unknown(compare_config(config, text), text, worktree)
    if wrong := [outcome for outcome in outcomes if outcome.is_error]:
        explained = explain_outcomes(wrong, worktree, build_dir / _MADE, make)
        raise StageFailure(
            "kconfig",
            f"{len(explained)} requested symbol(s) were dropped or changed",
            hint="\n".join(map(str, explained)),
        )
    return text


def report_config(
    config: Config, worktree: Path, build_dir: Path, words: Sequence[str]
) -> tuple[SymbolOutcome, ...]:
    """The outcome of every requested symbol, with reasons, in an empty ``build_dir``.

    ``words`` are the make variables of the toolchain. Raises ``StageFailure`` only if Kconfig itself fails.
    """
    make = [command.find_tool("make", "make"), *words, f"O={build_dir}"]
    text = _run_kconfig(config, worktree, build_dir, make, {})
    outcomes = find_unknown(compare_config(config, text), text, worktree)
    return explain_outcomes(outcomes, worktree, build_dir / _MADE, make)


def _run_kconfig(
    config: Config, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    """The ``.config`` that Kconfig makes; runs again with the next alternative if one was not taken."""
    excluded: set[str] = set()
    while True:
        text = _run_allnoconfig(config.render(excluded), worktree, build_dir, make, env)
        lost = [
            request
            for request in config.requests
            if request.alternatives and not _find_taken(request, parse_config(text))
        ]
        more = {
            next((one.symbol for one in request.candidates[:-1] if one.symbol not in excluded), "")
            for request in lost
        } - {""}
        if not more:
            return text
        excluded |= more


def _run_allnoconfig(
    requests: str, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    requested, made, log = build_dir / ".config.requested", build_dir / _MADE, build_dir / "kconfig.log"
    write_atomic(requested, requests)
    for stale in (made, log):
        stale.unlink(missing_ok=True)
    done = command.run(
        [*make, f"KCONFIG_ALLCONFIG={requested}", f"KCONFIG_CONFIG={made}", "allnoconfig"],
        cwd=worktree,
        env=env,
        deadline=command.Deadline.after(300),
        log=log,
        check=False,
    )
    if done.returncode:
        words = done.output.splitlines()
        raise command.find_host_error(done, words) or StageFailure(
            "kconfig", "Kconfig failed on this tree", hint="\n".join(words[-6:]), log=log
        )
    return made.read_text()


def parse_config(text: str) -> dict[str, str]:
    """The symbols of a ``.config`` and their values, ``n`` if not set."""
    found = (SETTING.fullmatch(line) for line in text.splitlines())
    return {match[1] or match[3]: match[2] or "n" for match in found if match}


def compare_config(config: Config, text: str) -> tuple[SymbolOutcome, ...]:
    """The outcome of every request in a ``.config``; a missing symbol is ``n``."""
    found = parse_config(text)
    outcomes = []
    for request in config.requests:
        if taken := _find_taken(request, found):
            names = ", ".join(one.symbol for one in request.candidates)
            reason = "" if taken == request.symbol else f"the first of {names} that this kernel has"
            outcomes.append(SymbolOutcome(request, request.value, SymbolState.SURVIVED, reason, taken))
            continue
        got = found.get(request.symbol, "n")
        outcomes.append(
            SymbolOutcome(request, got, SymbolState.DROPPED if got == "n" else SymbolState.CHANGED)
        )
    outcomes += [_make_unsupported(request, found) for request in config.unsupported]
    return tuple(outcomes)


def _find_taken(request: SymbolRequest, found: Mapping[str, str]) -> str:
    """The first alternative of a request with its value in a ``.config``, or an empty string."""
    return next(
        (one.symbol for one in request.candidates if _is_same(found.get(one.symbol, "n"), one.value)), ""
    )


def _is_same(one: str, other: str) -> bool:
    """Whether two values are equal as text or number; Kconfig keeps ``0x01000`` as written."""
    if one == other:
        return True
    base = 16 if any(value[:2].lower() == "0x" for value in (one, other)) else 10
    try:
        return int(one, base) == int(other, base)
    except ValueError:
        return False


def _make_unsupported(request: SymbolRequest, found: Mapping[str, str]) -> SymbolOutcome:
    got = found.get(request.symbol, "n")
    if request.gone:
        return SymbolOutcome(request, got, SymbolState.GONE, f"gone {request.gone}: {request.why_only}")
    return SymbolOutcome(
        request, got, SymbolState.UNSUPPORTED, f"only {request.only.text}: {request.why_only}"
    )


def find_unknown(outcomes: Sequence[SymbolOutcome], text: str, worktree: Path) -> tuple[SymbolOutcome, ...]:
    """Mark requests to unset a symbol that the tree does not have as unknown: probably a typo."""
    named = parse_config(text)
    unnamed = {
        o.taken for o in outcomes if o.state is SymbolState.SURVIVED and o.got == "n" and o.taken not in named
    }
    unknown = unnamed - set(find_entries(unnamed, worktree))
    return tuple(replace(o, state=SymbolState.UNKNOWN) if o.taken in unknown else o for o in outcomes)


def explain_outcomes(
    outcomes: Sequence[SymbolOutcome], worktree: Path, made: Path, make: Sequence[str]
) -> tuple[SymbolOutcome, ...]:
    """The outcomes, with the reason from Kconfig for each that is not as requested."""
    wanted = {one.symbol: one.value for o in outcomes if o.state in _LOST for one in o.request.candidates}
    if not wanted:
        return tuple(outcomes)
    head = re.search(r"^# Linux/\S+ (\S+) Kernel Configuration$", made.read_text(), re.M)
    environment = make_environment(worktree, head[1] if head else "this kernel", make)
    reasons = explain_symbols(wanted, made, environment)

    def explain(request: SymbolRequest) -> str:
        if not request.alternatives:
            return reasons.get(request.symbol, "")
        return "; ".join(f"{one.symbol}: {reasons[one.symbol]}" for one in request.candidates)

    return tuple(replace(o, reason=explain(o.request)) if o.state in _LOST else o for o in outcomes)
