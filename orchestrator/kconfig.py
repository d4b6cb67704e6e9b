# SPDX-License-Identifier: GPL-2.0-or-later
"""Config fragments in, a ``.config`` out in which every requested symbol survived.

Fragments are merged onto allnoconfig. ``#:`` lines declare what a fragment is for, where it holds, and which
of its symbols may be missing. Conflicts between fragments and symbols that Kconfig dropped are errors that
name each symbol, all at once.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator import command
from orchestrator.arch import Arch
from orchestrator.condition import Condition, Version
from orchestrator.document import suggest
from orchestrator.errors import StageFailure, UsageError, raise_all
from orchestrator.store import make_id, write_atomic

_SETTING = re.compile(r'CONFIG_(\w+)=("(?:[^"\\]|\\.)*"|[^\s"]+)|# CONFIG_(\w+) is not set')
_KEYS = ("about", "when", "expect", "optional", "append", "override")


@dataclass(frozen=True, slots=True)
class Request:
    """One symbol, the value it must have (``n`` for not set), and the line that says so."""

    symbol: str
    value: str
    where: str
    is_optional: bool = False
    is_set: bool = True


@dataclass(frozen=True, slots=True)
class Fragment:
    """A ``kconfigs/*.config`` file. ``append`` goes onto the guest's kernel command line."""

    name: str
    about: str
    when: Condition
    requests: tuple[Request, ...]
    append: str
    override: frozenset[str]


@dataclass(frozen=True, slots=True)
class Config:
    """What is asked of Kconfig: the merged requests and the command line that goes with them."""

    config_id: str
    arch: str
    requests: tuple[Request, ...]
    append: str

    def render(self) -> str:
        """The file that ``KCONFIG_ALLCONFIG`` reads. ``expect`` lines are checked, not set."""
        lines = [
            f"# CONFIG_{r.symbol} is not set" if r.value == "n" else f"CONFIG_{r.symbol}={r.value}"
            for r in self.requests
            if r.is_set
        ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A symbol that Kconfig did not leave as requested."""

    request: Request
    got: str

    def __str__(self) -> str:
        return f"{self.request.where}: {self.request.symbol}: requested {self.request.value}, got {self.got}"


@dataclass(slots=True)
class _Header:
    values: dict[str, list[str]] = field(default_factory=dict)

    def words(self, key: str) -> list[str]:
        return " ".join(self.values.get(key, [])).split()


def load_fragments(folder: Path) -> dict[str, Fragment]:
    """Every fragment of a folder by name; raises ``UsageError`` for each faulty line, all at once."""
    errors: list[UsageError] = []
    found = {path.stem: _load_fragment(path, errors) for path in sorted(folder.glob("*.config"))}
    raise_all(errors)
    return found


def _load_fragment(path: Path, errors: list[UsageError]) -> Fragment:
    header = _Header()
    requests: list[Request] = []
    when = Condition()
    try:
        lines = path.read_text().splitlines()
    except UnicodeDecodeError:
        errors.append(UsageError("is not UTF-8 text", where=str(path)))
        lines = ["#: about"]
    for number, line in enumerate(map(str.rstrip, lines), 1):
        where = f"{path}:{number}"
        if line.startswith("#:"):
            key, _, value = line[2:].strip().partition(" ")
            value = value.split("#")[0].strip()
            if key not in _KEYS:
                errors.append(UsageError(f"unknown header {key!r}{suggest(key, _KEYS)}", where=where))
            header.values.setdefault(key, []).append(value)
            if key == "when":
                try:
                    when = Condition.parse(" ".join(header.values["when"]))
                except ValueError as error:
                    errors.append(UsageError(str(error), where=where))
            if key == "expect":
                for word in value.split():
                    symbol, _, wanted = word.partition("=")
                    requests.append(Request(symbol, wanted or "y", where, is_set=False))
        elif match := _SETTING.fullmatch(line):
            requests.append(Request(match[1] or match[3], match[2] or "n", where))
        elif line.strip() and (not line.startswith("#") or "CONFIG_" in line):
            errors.append(
                UsageError(
                    f"not understood: {line}",
                    where=where,
                    hint="write CONFIG_NAME=value, '# CONFIG_NAME is not set', or a '#:' header line",
                )
            )
    if not header.words("about"):
        errors.append(UsageError("says not what it is for", where=f"{path}:1", hint="add '#: about ...'"))
    optional = set(header.words("optional"))
    return Fragment(
        path.stem,
        " ".join(header.values.get("about", [])),
        when,
        tuple(Request(r.symbol, r.value, r.where, r.symbol in optional, r.is_set) for r in requests),
        " ".join(header.values.get("append", [])),
        frozenset(header.words("override")),
    )


def make_config(
    names: Sequence[str], fragments: Mapping[str, Fragment], arch: Arch, version: Version
) -> Config:
    """Merge fragments in the order given; raises ``UsageError`` for unknown names and conflicts.

    A later fragment wins only where it says ``#: override SYMBOL``.
    """
    raise_all(
        [
            UsageError(f"there is no fragment {name}{suggest(name, fragments)}", where="kconfig")
            for name in names
            if name not in fragments
        ]
    )
    merged: dict[str, Request] = {}
    errors: list[UsageError] = []
    used = [fragments[name] for name in names if fragments[name].when.holds(arch.name, version)]
    for fragment in used:
        for request in fragment.requests:
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
    asked = [(r.symbol, r.value, r.is_optional, r.is_set) for r in requests]
    return Config(make_id(arch.name, asked), arch.name, requests, append)


def _merge(old: Request, new: Request) -> Request:
    """What two fragments ask together: set if either sets it, optional only if both say so."""
    return replace(new, is_set=old.is_set or new.is_set, is_optional=old.is_optional and new.is_optional)


def configure(
    config: Config, worktree: Path, build_dir: Path, make: Sequence[str], env: Mapping[str, str]
) -> str:
    """Let Kconfig make the ``.config`` of a build folder and return it; untouched when nothing changed.

    Raises ``StageFailure`` naming every requested symbol that did not survive.
    """
    asked = build_dir / ".config.asked"
    made = build_dir / ".config.made"
    write_atomic(asked, config.render())
    log = build_dir / "kconfig.log"
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
    text = made.read_text()
    if mismatches := check_config(config.requests, text):
        raise StageFailure(
            "kconfig",
            f"{len(mismatches)} requested symbol(s) did not survive",
            hint="\n  ".join(map(str, mismatches)),
        )
    final = build_dir / ".config"
    if not final.exists() or final.read_text() != text:
        write_atomic(final, text)
    return text


def parse_config(text: str) -> dict[str, str]:
    """Symbols of a ``.config`` and their values; what is not set is ``n``."""
    found = (_SETTING.fullmatch(line) for line in text.splitlines())
    return {match[1] or match[3]: match[2] or "n" for match in found if match}


def check_config(requests: Sequence[Request], text: str) -> tuple[Mismatch, ...]:
    """The requests that a ``.config`` does not meet; a symbol it does not name is ``n``."""
    got = parse_config(text)
    return tuple(
        Mismatch(request, got.get(request.symbol, "n"))
        for request in requests
        if got.get(request.symbol, "n") != request.value and not request.is_optional
    )
