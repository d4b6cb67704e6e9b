# SPDX-License-Identifier: GPL-2.0-or-later
"""patches/cow applies to each stable release, although lines next to its changes differ."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.project.condition import Condition, Version
from orchestrator.source.patch import Hunk, parse_hunks
from orchestrator.source.series import Series, load_series
from tests.conftest import ROOT

CONTEXTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "series_contexts.yaml").read_text())
KERNELS = [Version.parse(str(kernel)) for kernel in CONTEXTS["kernels"]]
SPOTS: list[dict[str, Any]] = CONTEXTS["spots"]
by_spot = pytest.mark.parametrize("spot", SPOTS, ids=[f"{spot['file']}: {spot['in']}" for spot in SPOTS])


@dataclass(frozen=True, slots=True)
class Change:
    """A hunk of a patch."""

    patch: str
    hunk: Hunk

    @property
    def core(self) -> tuple[str, ...]:
        """From the first line that changes to the last one."""
        text = self.hunk.text
        changed = [i for i, line in enumerate(text) if line[:1] in "+-" and line]
        return text[changed[0] : changed[-1] + 1]


@cache
def read_hunks(path: Path) -> dict[str, list[Hunk]]:
    return parse_hunks(path.read_bytes())


def find_changes(spot: dict[str, Any], kernel: Version) -> tuple[Change, ...]:
    """The hunks at a spot that a kernel gets, in the order of the series."""
    return tuple(
        Change(path.name, hunk)
        for path in load_cow().choose(kernel)
        for hunk in read_hunks(path).get(spot["file"], ())
        if any(line[:1] in "+-" and line[1:].strip() in spot["at"] for line in hunk.text if line)
    )


@cache
def load_cow() -> Series:
    return load_series(ROOT / "patches" / "cow")


def find_kernels(spot: dict[str, Any]) -> list[Version]:
    when = Condition.parse(spot.get("when", ""))
    return [kernel for kernel in KERNELS if when.holds_for(kernel)]


def read_neighbours(spot: dict[str, Any], side: str, kernel: Version) -> tuple[str, ...]:
    (found,) = [
        tuple(choice["lines"])
        for choice in spot[side]
        if Condition.parse(choice.get("when", "")).holds_for(kernel)
    ]
    return found


def read_old(lines: Sequence[str]) -> list[str]:
    return [line[1:] for line in lines if line[:1] != "+"]


@cache
def try_changes(
    place: Path, above: tuple[str, ...], changes: tuple[Change, ...], below: tuple[str, ...]
) -> str:
    """Apply the changes of one place in order, without fuzz: the hunk that fails, or an empty string.

    The file holds the old lines of the first change between its neighbours. The lines around those keep a
    hunk without context from matching the beginning or the end of the file.
    """
    far = ["far away"] * 3
    lines = (*far, *above, *read_old(changes[0].core), *below, *far)
    (place / "file").write_text("".join(f"{line}\n" for line in lines))
    for change in changes:
        text = change.hunk.text
        old, new = len(read_old(text)), sum(line[:1] != "-" for line in text)
        patch = ["--- a/file", "+++ b/file", f"@@ -4,{old} +4,{new} @@", *text]
        done = subprocess.run(
            ["git", "apply", "-"],
            cwd=place,
            input="".join(f"{line}\n" for line in patch),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            return f"{change.patch}: {change.hunk.header}"
    return ""


@by_spot
def test_patches_fit_each_stable_release(spot: dict[str, Any], tmp_path: Path) -> None:
    wrong: dict[str, list[str]] = {}
    for kernel in find_kernels(spot):
        above, below = (read_neighbours(spot, side, kernel) for side in ("above", "below"))
        changes = find_changes(spot, kernel)
        assert changes, f"no patch for {kernel} has the line: remove the spot, or correct 'at'"
        if failed := try_changes(tmp_path, above, changes, below):
            wrong.setdefault(failed, []).append(str(kernel))
    told = [f"{hunk}\n  does not apply to {', '.join(kernels)}" for hunk, kernels in wrong.items()]
    assert not told, "\n".join(
        [*told, "leave the lines that differ out of the hunk's context: see tests/series_contexts.yaml"]
    )


@by_spot
def test_a_hunk_made_for_one_release_is_found(spot: dict[str, Any], tmp_path: Path) -> None:
    """What git makes of a change on one release, with all its context, must fail on another."""
    made: dict[tuple[str, ...], Version] = {}
    for kernel in find_kernels(spot):
        above, below = (read_neighbours(spot, side, kernel) for side in ("above", "below"))
        change = find_changes(spot, kernel)[0]
        text = (*(f" {line}" for line in above), *change.core, *(f" {line}" for line in below))
        full = Change(change.patch, replace(change.hunk, text=text))
        assert not try_changes(tmp_path, above, (full,), below)
        for other, version in made.items():
            stale = Change(change.patch, replace(change.hunk, text=other))
            if other != text:
                assert try_changes(tmp_path, above, (stale,), below), f"made for {version}, tried on {kernel}"
        made.setdefault(text, kernel)
    assert len(made) > 1, "no kernel differs here: remove the spot"
