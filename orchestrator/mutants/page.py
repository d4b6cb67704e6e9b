# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes a measurement of mutants as one HTML page that needs no network."""

from collections import Counter

from orchestrator.mutants.score import Measurement, State, compute_score
from orchestrator.report.page import load_template


def render_html(found: Measurement) -> str:
    by_file: dict[str, Counter[State]] = {}
    for one in found.results:
        by_file.setdefault(one.site.file, Counter())[one.state] += 1
    return load_template("orchestrator.mutants", "mutants.html.j2").render(
        found=found,
        score=compute_score(found.results),
        states=[state for state in State if any(one.state is state for one in found.results)],
        by_file=by_file,
    )
