# SPDX-License-Identifier: GPL-2.0-or-later
"""Conditions on architecture and kernel version: ``arch=x86_64,aarch64 kernel>=5.0 kernel<5.19``.

Alternatives are separated by ``or``: ``kernel<6.1.191 or kernel>=6.2 kernel<6.12.114``.
"""

import re
from dataclasses import dataclass, replace

from orchestrator.project.arch import ARCHES


@dataclass(frozen=True, slots=True, order=True)
class Version:
    """A kernel version as in the Makefile; ``5.19`` is ``5.19.0``."""

    numbers: tuple[int, int, int]

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Parse ``5.10`` or ``v5.10.262``; raises ``ValueError`` for anything else."""
        match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?", text)
        if not match:
            raise ValueError(f"expected a kernel version like 5.15 or 5.15.138, got {text!r}")
        return cls((int(match[1]), int(match[2]), int(match[3] or 0)))

    def __str__(self) -> str:
        return ".".join(map(str, self.numbers))


@dataclass(frozen=True, slots=True)
class Condition:
    """Holds if all bounds hold, or one of ``others``; an empty one always holds. ``text`` is its source."""

    text: str = ""
    arches: frozenset[str] = frozenset(ARCHES)
    bounds: tuple[tuple[str, Version], ...] = ()
    others: tuple["Condition", ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Condition":
        """Parse a condition; raises ``ValueError`` naming the invalid word."""
        first, *others = re.split(r"(?:^|\s)or(?:\s|$)", text)
        if others and not all(part.strip() for part in (first, *others)):
            raise ValueError("expected a condition on either side of 'or'")
        return replace(cls._parse_one(first), text=text, others=tuple(map(cls._parse_one, others)))

    @classmethod
    def _parse_one(cls, text: str) -> "Condition":
        arches = frozenset(ARCHES)
        bounds: list[tuple[str, Version]] = []
        for word in text.split():
            match = re.fullmatch(r"(arch|kernel)(<=|>=|=|<|>)([^=<>\s]\S*)", word)
            if not match or (match[1] == "arch") != (match[2] == "="):
                raise ValueError(f"expected arch=NAME[,NAME] or kernel>=VERSION (or <, <=, >), got {word!r}")
            if match[1] == "arch":
                named = match[3].split(",")
                if unknown := [name for name in named if name not in ARCHES]:
                    raise ValueError(
                        f"there is no architecture {unknown[0]}, expected one of {', '.join(ARCHES)}"
                    )
                arches &= frozenset(named)
            else:
                bounds.append((match[2], Version.parse(match[3])))
        return cls(text, arches, tuple(bounds))

    @property
    def names_arch(self) -> bool:
        return "arch=" in self.text

    def holds(self, arch: str, version: Version) -> bool:
        is_own = arch in self.arches and self._has_within(version)
        return is_own or any(other.holds(arch, version) for other in self.others)

    def either(self, other: "Condition") -> "Condition":
        """The condition that holds if this or another one holds."""
        return replace(self, text=f"{self.text} or {other.text}", others=(*self.others, other))

    def holds_for(self, version: Version) -> bool:
        """Whether it holds for a kernel of any architecture."""
        return self._has_within(version) or any(other.holds_for(version) for other in self.others)

    def _has_within(self, version: Version) -> bool:
        return all(
            {"<": version < bound, "<=": version <= bound, ">": version > bound, ">=": version >= bound}[sign]
            for sign, bound in self.bounds
        )

    def describe_end(self, arch: str, version: Version) -> str:
        """``since 7.0`` if the version is beyond an upper bound for an architecture, else an empty string."""
        for condition in (self, *self.others):
            for sign, bound in condition.bounds:
                is_past = version >= bound if sign == "<" else version > bound
                if arch in condition.arches and sign in ("<", "<=") and is_past:
                    return f"{'since' if sign == '<' else 'after'} {str(bound).removesuffix('.0')}"
        return ""
