# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares two sets of results: fixed, broken, new, gone, slower.

A side is a run, a kernel, or a period of time. The last outcome of a subtest counts, and of several trials
the worst. SKIP and BROKEN count as missing results, but a change from PASS to BROKEN is reported as bad.
"""

import itertools
import re
import sqlite3
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from orchestrator.errors import UsageError, raise_all
from orchestrator.history.database import find_entries
from orchestrator.history.entry import Entry, is_kernel, list_outcomes, render_columns
from orchestrator.project.yamlfile import suggest
from orchestrator.result.record import load_run
from orchestrator.result.verdict import WORST_FIRST
from orchestrator.status import Status
from orchestrator.store.store import Store

# a test is slower only if it exceeds both
SLOWER_TIMES = 1.5
SLOWER_S = 1.0
_DAY = r"\d{4}-\d\d-\d\d(?:T[\d:]+)?"
_SPAN = re.compile(rf"(?P<day>{_DAY})|(?P<since>{_DAY})?\.\.(?P<until>{_DAY})?")
# list at most this many subtests of a variant that is new or gone
_LISTED = 10
_GROUPS = ("broken", "fixed", "changed", "new", "gone", "slower")


@dataclass(frozen=True, slots=True)
class Change:
    """The outcomes of a subtest on both sides, empty if it did not run; for slower tests, the medians."""

    row: str
    variant: str
    name: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes by group; ``unchanged`` counts the subtests with the same outcome on both sides."""

    before: str
    after: str
    unchanged: int
    broken: tuple[Change, ...] = ()
    fixed: tuple[Change, ...] = ()
    changed: tuple[Change, ...] = ()
    new: tuple[Change, ...] = ()
    gone: tuple[Change, ...] = ()
    slower: tuple[Change, ...] = ()


@dataclass(frozen=True, slots=True)
class Side:
    """``entries`` are oldest first. With ``is_kernel``, variants are matched by series, not by name."""

    name: str
    entries: tuple[Entry, ...]
    is_kernel: bool = False


def find_sides(db: sqlite3.Connection, store: Store, words: Sequence[str]) -> tuple[Side, Side]:
    """The sides that two words name: a run id, a kernel version or tree, ``DATE`` or ``DATE..DATE``.

    Either end of a range may be omitted. Raises ``UsageError`` for each word that matches nothing.
    """
    if len(words) != 2:
        raise UsageError(
            f"takes two runs, kernels or dates, got {len(words)}",
            where="diff",
            hint="cowbell diff 6.1 6.12; cowbell diff 2024-05-01 2024-05-02..",
        )
    entries = find_entries(db)
    sides, errors = [], []
    for word in words:
        try:
            sides.append(_find_side(word, entries, store))
        except UsageError as error:
            errors.append(error)
    raise_all(errors)
    return sides[0], sides[1]


def _find_side(word: str, entries: Sequence[Entry], store: Store) -> Side:
    path = store.results_root / "runs" / word / "record.json"
    if re.fullmatch(r"\w[\w.+-]*", word) and path.exists():
        run = load_run(path)
        return Side(run.run_id, tuple(list_outcomes(run)))
    if span := _SPAN.fullmatch(word):
        # compared as text: "~" sorts after any time of the day
        since = span["day"] or span["since"] or ""
        until = f"{span['day'] or span['until'] or ''}~"
        side = Side(word, tuple(entry for entry in entries if since <= entry.started < until))
    else:
        side = Side(word, tuple(entry for entry in entries if is_kernel(entry, word)), is_kernel=True)
    if not side.entries:
        runs = [path.name for path in store.results_root.glob("runs/[!.]*-*")]
        known = {*runs, *(entry.kernel for entry in entries), *(entry.tree for entry in entries)}
        raise UsageError(
            f"there are no results of such a run, kernel or date{suggest(word, known)}",
            where=word,
            hint="cowbell history lists all results",
        )
    return side


def compare(before: Side, after: Side) -> Difference:
    """Compare two sides. Raises ``UsageError`` if they have no subtest in common."""
    by_series = before.is_kernel or after.is_kernel
    olds, news = _sort_out(before, by_series=by_series), _sort_out(after, by_series=by_series)
    if not set(olds) & set(news):
        raise UsageError(
            "have no subtest of one row and variant in common",
            where=f"{before.name} and {after.name}",
            hint="cowbell history lists the results of each",
        )
    groups: dict[str, list[Change]] = {name: [] for name in _GROUPS}
    unchanged = 0
    for key in sorted({*olds, *news}):
        old, new = (_choose_last(side.get(key, [])) for side in (olds, news))
        if group := _find_group(old, new):
            shown = new or old
            assert shown
            was, is_ = (entry.label if entry else "" for entry in (old, new))
            reason = new.reason if new else ""
            groups[group].append(Change(shown.row, key[1], shown.name, was, is_, reason))
        else:
            unchanged += bool(old and _is_answer(old))
    groups["slower"] += _list_slower(olds, news)
    listed = {name: tuple(changes) for name, changes in groups.items()}
    return Difference(before.name, after.name, unchanged, **listed)


_Key = tuple[str, str, str, str]


def _sort_out(side: Side, *, by_series: bool) -> dict[_Key, list[Entry]]:
    """Entries by row, variant, architecture and name."""
    found: dict[_Key, list[Entry]] = {}
    for entry in side.entries:
        variant = (entry.series or "plain") if by_series else entry.variant
        found.setdefault((entry.row, variant, entry.arch, entry.name), []).append(entry)
    return found


def _choose_last(entries: Sequence[Entry]) -> Entry | None:
    """The worst of the latest set of trials."""
    last: list[Entry] = []
    for entry in reversed(entries):
        if last and entry.trial >= last[-1].trial:
            break
        last.append(entry)
    return min(last, key=lambda entry: WORST_FIRST.index(entry.raw), default=None)


def _is_answer(entry: Entry) -> bool:
    return entry.raw is Status.PASS or entry.raw.is_kernel_fault


def _find_group(old: Entry | None, new: Entry | None) -> str:
    """The group of a change; empty if nothing changed."""
    was, is_ = (entry.raw if entry and _is_answer(entry) else None for entry in (old, new))
    if was is is_:
        return ""
    if was is Status.PASS and (is_ or (new and new.raw is Status.BROKEN)):
        return "broken"
    if is_ is Status.CRASH and was:
        return "broken"
    if was is None or is_ is None:
        return "new" if was is None else "gone"
    return "fixed" if is_ is Status.PASS else "changed"


def _list_slower(
    olds: Mapping[_Key, Sequence[Entry]], news: Mapping[_Key, Sequence[Entry]]
) -> Iterator[Change]:
    """Tests whose median duration is longer, once each; only the same accelerator is compared."""
    listed = set()
    for key in sorted(set(olds) & set(news)):
        new = news[key][-1]
        if (key[:3], new.test) in listed:
            continue
        listed.add((key[:3], new.test))
        times = [
            [entry.duration_s for entry in side[key] if entry.accel == new.accel and _is_answer(entry)]
            for side in (olds, news)
        ]
        if not all(times):
            continue
        was, is_ = (statistics.median(found) for found in times)
        if is_ > SLOWER_TIMES * was and is_ - was > SLOWER_S:
            yield Change(new.row, key[1], new.test, f"{was:.1f} s", f"{is_:.1f} s")


def render(found: Difference) -> str:
    """A paragraph for each group that is not empty; the broken tests come last."""
    parts = []
    for name in reversed(_GROUPS):
        changes: tuple[Change, ...] = getattr(found, name)
        if changes:
            parts.append(f"{name}: {len(changes)}\n{render_columns(list(_list_lines(name, changes)))}")
    counts = ", ".join(f"{len(getattr(found, name))} {name}" for name in _GROUPS)
    parts.append(f"{found.before} -> {found.after}: {counts}, {found.unchanged} unchanged\n")
    return "\n".join(parts)


def _list_lines(group: str, changes: Sequence[Change]) -> Iterator[tuple[str, ...]]:
    """A line per change; one line for many new or gone subtests of a variant."""
    for variant, grouped in itertools.groupby(changes, lambda each: f"{each.row}/{each.variant}"):
        listed = list(grouped)
        if group in ("new", "gone") and len(listed) > _LISTED:
            yield "", variant, f"{len(listed)} subtests; --json lists them", "", ""
            continue
        for each in listed:
            yield "", variant, each.name, f"{each.before or '-'} -> {each.after or '-'}", each.reason
