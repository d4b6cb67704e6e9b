# SPDX-License-Identifier: GPL-2.0-or-later
"""Make README's picture, ``docs/report.png``, and its verdicts, ``report.json``, of a run of ROW=demo.

``python -m tests.picture [RUN]`` takes the last run of the row that has all its variants, or the named one.
"""

import contextlib
import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.project.matrix import Row, load_matrix
from orchestrator.report.folder import judge_runs
from orchestrator.report.page import render_html
from orchestrator.report.report import Judged
from orchestrator.store.store import Store, open_default
from tests.browser import open_browser

ROOT = Path(__file__).parents[1]
ROW = "demo"
PICTURE = ROOT / "docs/report.png"
VERDICTS = ROOT / "docs/report.json"
WIDTH = 820
# of the page from its top to the end of the matrix
HEIGHT = "Math.ceil(document.querySelector('.wide').getBoundingClientRect().bottom + scrollY + 16)"


def find_run(store: Store, row: Row, names: Sequence[str]) -> Judged:
    """The named run, or else the last one of a row; raises ``UsageError`` if none has all its variants."""
    runs = store.path("runs")
    found = []
    for run_id in names or [path.parent.name for path in runs.glob(f"{row.name}-*/record.json")]:
        # a record of an older schema
        with contextlib.nullcontext() if names else contextlib.suppress(UsageError):
            found.append(judge_runs(store, [run_id]))
    found = [judged for judged in found if is_complete(judged, row)]
    if not found:
        raise UsageError(
            f"there is no run of all tests of {row.name} with the variants "
            f"{', '.join(variant.name for variant in row.variants)}",
            where=str(runs),
            hint=f"cowbell test ROW={row.name} makes one",
        )
    return max(found, key=lambda judged: judged.run.started)


def is_complete(judged: Judged, row: Row) -> bool:
    """Whether a run has the variants and the tests of a row, on the row's tree, and nothing else."""
    variants = [(variant.name, row.tree, variant.series) for variant in row.variants]
    jobs = judged.run.jobs
    return [(job.variant, job.tree, job.series) for job in jobs] == variants and all(
        job.row == row.name and set(job.tests) == set(row.tests) for job in jobs
    )


def list_verdicts(judged: Judged) -> dict[str, object]:
    """By variant, the kernel's version and the verdict of each test and subtest."""
    return {
        job.variant: {
            "version": job.version,
            "verdicts": {verdict.name: str(verdict.status) for verdict in verdicts},
        }
        for job, verdicts in judged.jobs
    }


def make_picture(judged: Judged, picture: Path, verdicts: Path) -> None:
    """Write the top of the report's page as PNG, and the verdicts that it shows as JSON."""
    with tempfile.TemporaryDirectory(prefix="cowbell-") as folder:
        page = Path(folder) / "report.html"
        page.write_text(render_html(judged))
        with open_browser(Path(folder) / "profile") as browser:
            browser.resize(WIDTH, 800)
            browser.open(page.as_uri())
            # the page limits the height of the matrix, and scrolls the rest
            browser.run("document.querySelector('.wide').style.maxHeight = 'none'")
            browser.resize(WIDTH, browser.run(HEIGHT))
            browser.shoot(picture)
    shown = {"sha256": hash_file(picture), "run": judged.run.run_id, "variants": list_verdicts(judged)}
    verdicts.write_text(json.dumps(shown, indent=1) + "\n")


def hash_file(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main(names: Sequence[str]) -> int:
    row = load_matrix(ROOT / "ci/matrix.yaml")[ROW]
    try:
        judged = find_run(open_default(), row, names)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    make_picture(judged, PICTURE, VERDICTS)
    print(f"{PICTURE}: {judged.run.run_id}, {judged.summary}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
