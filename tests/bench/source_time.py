# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a source takes: Debian's package to a worktree, a series on it, a second one, 70 patches.

In a throwaway store, so nothing is known beforehand; about a minute on two cores, with ``make bench``.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from orchestrator.cli.terminal import Terminal
from orchestrator.plan.declarations import load_declarations
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source, checkout, git
from orchestrator.source.series import Series, export_range
from orchestrator.store.store import Store

T = TypeVar("T")
COMMITS = 70


def main() -> None:
    declared = load_declarations(Path(__file__).parents[2])
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as scratch, Terminal() as terminal:
        store = Store(Path(scratch))
        base = measure(
            "package to worktree",
            lambda: touch(fetch_tree(declared.trees["debian-5.10"], store, terminal), store),
        )
        many = commit_many(base, store)
        one, two = declared.series["cow"], Series("last", patches=many.patches[-1:])
        measure("first series", lambda: touch(apply_series(base, one, (), store, terminal), store))
        measure("second series", lambda: touch(apply_series(base, two, (), store, terminal), store))
        measure(f"{COMMITS} patches", lambda: touch(apply_series(base, many, (), store, terminal), store))
        measure("known already", lambda: apply_series(base, many, (), store, terminal))


def measure(what: str, do: Callable[[], T]) -> T:
    began = time.monotonic()
    result = do()
    print(f"{what:<20} {time.monotonic() - began:6.1f} s", flush=True)
    return result


def touch(src: Source, store: Store) -> Source:
    """Ready means that the files are there."""
    with checkout(src, store) as place:
        assert (place / "mm/memory.c").exists()
    return src


def commit_many(base: Source, store: Store) -> Series:
    """A stack of commits, each to a large file of its own."""
    with checkout(base, store) as place:
        files = sorted((place / "mm").glob("*.c"), key=lambda path: -path.stat().st_size)[:COMMITS]
        for number, path in enumerate(files, 1):
            path.write_text(path.read_text() + f"/* {number} */\n")
            git(place, "commit", "-q", "-a", "-m", f"mm: change {number}")
        tip = git(place, "rev-parse", "HEAD").output
        return export_range("many", base.commit, tip, place, store)


if __name__ == "__main__":
    main()
