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
from orchestrator.history.entry import Entry, describe_outcome, is_kernel, list_outcomes, render_columns
from orchestrator.project.yamlfile import suggest
from orchestrator.result.record import load_run
from orchestrator.result.verdict import WORST_FIRST
from orchestrator.status import Status
from orchestrator.store.store import Store

# what is slower has to be so by both
SLOWER_TIMES = 1.5
SLOWER_S = 1.0
_DAY = r"\d{4}-\d\d-\d\d(?:T[\d:]+)?"
_SPAN = re.compile(rf"(?P<day>{_DAY})|(?P<since>{_DAY})?\.\.(?P<until>{_DAY})?")
# of a variant that is new or gone as a whole, not each
_LISTED = 10
_GROUPS = ("broken", "fixed", "changed", "new", "gone", "slower")


@dataclass(frozen=True, slots=True)
class Change:
    """What a subtest came to on either side, empty where it did not run; of what is slower, its medians."""

    row: str
    variant: str
    name: str
    before: str
    after: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes by group; ``unchanged`` counts the subtests with the same answer on both sides."""

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
    """``entries`` oldest first. ``is_kernel``: variants are told by their series, as other kernels' are."""

    name: str
    entries: tuple[Entry, ...]
    is_kernel: bool = False


def find_sides(db: sqlite3.Connection, store: Store, words: Sequence[str]) -> tuple[Side, Side]:
    """The sides that two words name: a run's id, a kernel's version or tree, ``DATE`` or ``DATE..DATE``.

    Either end of the latter may be left out. Raises ``UsageError`` for each that names nothing.
    """
    if len(words) != 2:
        raise UsageError(
            f"takes two: runs, kernels or dates; got {len(words)}",
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
        # a day begins what has it as its beginning; "~" is after any time of it
        since = span["day"] or span["since"] or ""
        until = f"{span['day'] or span['until'] or ''}~"
        side = Side(word, tuple(entry for entry in entries if since <= entry.started < until))
    else:
        side = Side(word, tuple(entry for entry in entries if is_kernel(entry, word)), is_kernel=True)
    if not side.entries:
        runs = [path.name for path in store.results_root.glob("runs/[!.]*-*")]
        known = {*runs, *(entry.kernel for entry in entries), *(entry.tree for entry in entries)}
        raise UsageError(
            f"no run, kernel or time of which results are known{suggest(word, known)}",
            where=word,
            hint="cowbell history lists what is known",
        )
    return side


def compare(before: Side, after: Side) -> Difference:
    """Raises ``UsageError`` when no subtest is known on both sides: then nothing can be said."""
    by_series = before.is_kernel or after.is_kernel
    olds, news = _sort_out(before, by_series=by_series), _sort_out(after, by_series=by_series)
    if not set(olds) & set(news):
        raise UsageError(
            "have no subtest of one row and variant in common",
            where=f"{before.name} and {after.name}",
            hint="cowbell history shows what is known of each",
        )
    groups: dict[str, list[Change]] = {name: [] for name in _GROUPS}
    unchanged = 0
    for key in sorted({*olds, *news}):
        old, new = (_choose_last(side.get(key, [])) for side in (olds, news))
        if group := _find_group(old, new):
            shown = new or old
            assert shown
            was, is_ = (describe_outcome(entry) if entry else "" for entry in (old, new))
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
    """The worst of the last set of trials."""
    last: list[Entry] = []
    for entry in reversed(entries):
        if last and entry.trial >= last[-1].trial:
            break
        last.append(entry)
    return min(last, key=lambda entry: WORST_FIRST.index(entry.raw), default=None)


def _is_answer(entry: Entry) -> bool:
    return entry.raw is Status.PASS or entry.raw.is_kernel_fault


def _find_group(old: Entry | None, new: Entry | None) -> str:
    """Empty when nothing changed."""
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
    """Tests whose median is longer, once each; other accelerators have other clocks."""
    told = set()
    for key in sorted(set(olds) & set(news)):
        new = news[key][-1]
        if (key[:3], new.test) in told:
            continue
        told.add((key[:3], new.test))
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
    """A paragraph for each group that is not empty, what is broken last."""
    parts = []
    for name in reversed(_GROUPS):
        changes: tuple[Change, ...] = getattr(found, name)
        if changes:
            parts.append(f"{name}: {len(changes)}\n{render_columns(list(_list_lines(name, changes)))}")
    counts = ", ".join(f"{len(getattr(found, name))} {name}" for name in _GROUPS)
    parts.append(f"{found.before} -> {found.after}: {counts}, {found.unchanged} unchanged\n")
    return "\n".join(parts)


def _list_lines(group: str, changes: Sequence[Change]) -> Iterator[tuple[str, ...]]:
    """A line each; where a whole variant came or went, one for all of it."""
    for variant, grouped in itertools.groupby(changes, lambda each: f"{each.row}/{each.variant}"):
        listed = list(grouped)
        if group in ("new", "gone") and len(listed) > _LISTED:
            yield "", variant, f"{len(listed)} subtests; --json lists them", "", ""
            continue
        for each in listed:
            yield "", variant, each.name, f"{each.before or '-'} -> {each.after or '-'}", each.reason
