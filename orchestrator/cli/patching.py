# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets ``series``, ``worktree`` and ``refresh``: check, edit and write back patch series.

Each returns an exit status and the text for stdout.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from orchestrator.errors import UsageError, raise_all
from orchestrator.plan.plan import Declarations, Request
from orchestrator.plan.workspace import Workspace
from orchestrator.project.root import SHIPPED
from orchestrator.project.yamlfile import suggest
from orchestrator.source.apply import (
    PatchOutcome,
    PatchState,
    apply_series,
    describe_base,
    find_source,
    try_series,
)
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.refresh import find_worktree, open_worktree, refresh_series
from orchestrator.source.repository import Source
from orchestrator.source.series import Backport, Patch, Series
from orchestrator.source.tree import Tree, find_tree


class Options(Protocol):
    dry_run: bool
    json: bool


def show_series(
    request: Request, declared: Declarations, place: Workspace, options: Options, where: Path | None
) -> tuple[int, str]:
    """The series and their patches; with a tree, whether each patch applies (status 1: one does not)."""
    series = _choose_series(request, declared)
    if not request.series:
        raise_all(declared.find_faults("series", declared.series))
        series = list(declared.series.values())
    if not request.tree:
        listed = {one.name: _describe(one) for one in series}
        product = {"schema": "cowbell-series-1", "series": listed}
        return 0, json.dumps(product, indent=1) + "\n" if options.json else "\n".join(map(_render, series))
    base = fetch_tree(_choose_tree(request, declared), place.store, place.progress)
    tried = {one.name: _try(one, base, declared, place) for one in series}
    is_good = all(o.state is PatchState.APPLIES for outcomes in tried.values() for o in outcomes)
    if options.json:
        text = json.dumps(
            {
                "schema": "cowbell-patches-1",
                "kernel": base.tree,
                "version": str(base.version),
                "commit": base.commit,
                "series": {
                    name: [dataclasses.asdict(outcome) for outcome in outcomes]
                    for name, outcomes in tried.items()
                },
            },
            indent=1,
        )
        return int(not is_good), text + "\n"
    parts = [
        _render_outcomes(one, base, tried[one.name], describe_base(base, one, place.store)) for one in series
    ]
    return int(not is_good), "\n".join(parts)


def _try(series: Series, base: Source, declared: Declarations, place: Workspace) -> Sequence[PatchOutcome]:
    if find_source(base, series, declared.fixups, place.store):
        return [PatchOutcome(path.name, "", PatchState.APPLIES) for path in series.choose(base.version)]
    return try_series(base, series, declared.fixups, place.store, place.progress, keep_going=place.keep_going)


def _choose_series(request: Request, declared: Declarations) -> list[Series]:
    known = declared.series
    names = [name for name in request.series if name != "none" or name in known]
    raise_all(
        [
            UsageError(
                f"there is no series {name}{suggest(name, known)}",
                where="SERIES",
                hint=f"there are: {', '.join(known)}",
            )
            for name in names
            if name not in known
        ]
        + declared.find_faults("series", names)
    )
    return [known[name] for name in names]


def _describe(series: Series) -> Mapping[str, Any]:
    return {
        "title": series.title,
        "when": series.when.text,
        "patches": [
            {
                "file": patch.name,
                "subject": patch.subject,
                "when": patch.when.text,
                "flips": dict(patch.flips),
                "backports": {
                    backport.when.text: {"file": backport.path.name, "flips": dict(backport.flips)}
                    for backport in patch.backports
                },
            }
            for patch in series.patches
        ],
    }


def _render(series: Series) -> str:
    lines = [f"{series.name}: {series.title}"]
    if series.when.text:
        lines.append(f"  for {series.when.text}")
    for number, patch in enumerate(series.patches, 1):
        lines.append(f"  {number:3} {patch.subject}")
        if patch.when.text:
            lines.append(f"      for {patch.when.text}")
        lines += _render_flips(patch)
        for backport in patch.backports:
            lines += [f"      {backport.path.name} where {backport.when.text}", *_render_flips(backport)]
    return "\n".join(lines) + "\n"


def _render_flips(file: Patch | Backport) -> list[str]:
    return [f"      {test} -> {status.value}" for test, status in file.flips.items()]


def _render_outcomes(series: Series, base: Source, outcomes: Sequence[PatchOutcome], about: str) -> str:
    bad = [outcome for outcome in outcomes if outcome.state is not PatchState.APPLIES]
    verdict = "does not apply" if bad else f"applies, {len(outcomes)} patch(es)"
    lines = [f"{series.name} on {base.tree} ({base.version}, {base.commit[:12]}): {verdict}"]
    if not series.when.holds_for(base.version):
        lines.append(f"  it is meant for {series.when.text}; tried anyway")
    if about:
        lines.append(f"  {about}")
    for outcome in outcomes if bad else ():
        lines.append(f"  {outcome.patch}: {outcome.state}")
        if outcome.reject:
            said = f"as {outcome.reject.present_as}" if outcome.reject.present_as else outcome.reject.text
            lines += [f"      {line}".rstrip() for line in said.splitlines()]
    return "\n".join(lines) + "\n"


def edit_series(
    request: Request, declared: Declarations, place: Workspace, options: Options, where: Path | None
) -> tuple[int, str]:
    """Open one series on one tree; the text is the path of the worktree."""
    series, tree = _choose_one(request, declared)
    opened = find_worktree(series.name, tree.name, where, place.store)
    if options.dry_run:
        return 0, f"{opened.place}\n"
    base = fetch_tree(tree, place.store, place.progress)
    # fixups lie below, so that they never become part of the series
    below = apply_series(base, Series(), declared.fixups, place.store, place.progress)
    if not open_worktree(below, series, opened, place.store):
        place.progress.note("the worktree is already open, and was not changed")
    return 0, f"{opened.place}\n"


def write_series(
    request: Request, declared: Declarations, place: Workspace, options: Options, where: Path | None
) -> tuple[int, str]:
    """Write the worktree's commits to the user overlay's ``patches/``; the text is the changed files."""
    series, tree = _choose_one(request, declared)
    folder = place.root / "patches" / series.name
    if not folder.is_dir() or not place.is_own:
        shipped = SHIPPED / "patches" / series.name
        mine = place.root if place.is_own else Path.cwd()
        raise UsageError(
            "refresh writes only to patches/ of a user overlay",
            where=f"SERIES={series.name}",
            hint=f"mkdir -p {mine}/patches; cp -r {shipped} {mine}/patches/" if shipped.is_dir() else "",
        )
    opened = find_worktree(series.name, tree.name, where, place.store)
    changed = refresh_series(folder, series, opened, place.store, is_dry=options.dry_run)
    if not changed:
        place.progress.note(f"{series.name} is up to date")
    return 0, "".join(f"{path.relative_to(place.root)}\n" for path in changed)


def _choose_one(request: Request, declared: Declarations) -> tuple[Series, Tree]:
    series = _choose_series(request, declared)
    errors = []
    if len(series) != 1:
        errors.append(UsageError("expected one series", where="SERIES"))
    if not request.tree:
        errors.append(UsageError("is required: the tree to open the series on", where="KERNEL"))
    raise_all(errors)
    return series[0], _choose_tree(request, declared)


def _choose_tree(request: Request, declared: Declarations) -> Tree:
    # a path or TREE:REF has been added under that name
    return declared.trees.get(request.tree) or find_tree(request.tree, declared.trees)


Target = Callable[[Request, Declarations, Workspace, Options, Path | None], tuple[int, str]]
TARGETS: Mapping[str, Target] = {"series": show_series, "worktree": edit_series, "refresh": write_series}
