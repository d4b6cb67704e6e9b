# SPDX-License-Identifier: GPL-2.0-or-later
"""Text and JSON of what there is, what is set, and what would be done."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.grammar import Setting

if TYPE_CHECKING:
    from orchestrator.dryrun import Step
    from orchestrator.plan import Declarations


def render_settings(settings: Mapping[str, Setting]) -> str:
    return "".join(f"{name:<6} = {s.value:<24} # {s.origin}\n" for name, s in settings.items())


def render_settings_json(settings: Mapping[str, Setting]) -> str:
    listed = {name: {"value": s.value, "origin": s.origin} for name, s in settings.items()}
    return json.dumps(listed, indent=1) + "\n"


def render_steps(steps: Sequence["Step"]) -> str:
    return "".join(f"{s.stage:<8} {s.subject}\n           {s.why or 'up to date'}\n" for s in steps)


def render_steps_json(steps: Sequence["Step"]) -> str:
    return json.dumps([dataclasses.asdict(step) for step in steps], indent=1) + "\n"


def list_declared(declared: "Declarations") -> Mapping[str, Mapping[str, str]]:
    """What there is of each kind: by name, what it is in a line."""
    return {
        "rows": {name: row.about for name, row in declared.rows.items()},
        "kernels": {name: str(tree) for name, tree in declared.trees.items()},
        "series": {
            name: f"{len(series.patches)} patch(es), {series.title}"
            for name, series in declared.series.items()
        },
        "fragments": {name: fragment.about for name, fragment in declared.fragments.items()},
        "cases": {case.id: case.summary for case in declared.cases},
    }


def render_declared(
    listed: Mapping[str, Mapping[str, str]], own: Mapping[str, frozenset[str]] | None = None
) -> str:
    """What there is; ``own`` is what is marked as the user's, by kind."""
    lines = []
    for kind, entries in listed.items():
        mine = (own or {}).get(kind, frozenset())
        lines.append(f"{kind}:")
        lines += [f"{'*' if name in mine else ' '} {name:<24} {about}" for name, about in entries.items()]
    if own:
        lines.append("* of your own folder; the others come with Cowbell")
    return "\n".join(lines) + "\n"


def render_declared_json(listed: Mapping[str, Mapping[str, str]]) -> str:
    return json.dumps(listed, indent=1) + "\n"
