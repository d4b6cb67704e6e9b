# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house, as tests: linters, types, licences, who may import whom, who may print."""

import ast
import itertools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orchestrator"
# pipeline order, rooms and what is in them: a module imports only what stands before it
ORDER = [
    "ground.errors", "ground.project", "ground.glossary", "ground.status", "ground.command", "ground.store",
    "ground.gc", "ground.progress", "ground.budget", "ground.jobserver", "ground.workers",
    "parsers.ktap", "parsers.splat", "parsers.printk", "parsers.console",
    "declarations.arch", "declarations.condition", "declarations.document", "declarations.guesttest",
    "declarations.selftest", "declarations.shape", "declarations.matrix", "declarations.knownsplats",
    "sources.debian", "sources.tree", "sources.repository", "sources.remote", "sources.fetch",
    "sources.versions", "sources.patch", "sources.series", "sources.fixup", "sources.reject",
    "sources.source", "sources.refresh",
    "kernels.fragment", "kernels.kconfigtree", "kernels.kconfig", "kernels.configcheck", "kernels.warning",
    "kernels.build",
    "kernels.handover",
    "guests.rootfs", "guests.hardware", "guests.qemu", "guests.vng", "guests.monitor", "guests.serial",
    "guests.guest", "guests.evidence", "guests.laboratory", "guests.armed", "guests.boot", "guests.accel",
    "runs.record", "runs.autopsy", "runs.run", "runs.upstream",
    "verdicts.odds", "verdicts.finding", "verdicts.verdict", "verdicts.variant", "verdicts.trials",
    "histories.entry", "histories.history", "histories.difference", "histories.join",
    "histories.merge",
    "reports.replay", "reports.report", "reports.junit", "reports.bundle", "reports.chart", "reports.page",
    "reports.folder",
    "jobs.plan", "jobs.workspace", "jobs.declared", "jobs.inputs", "jobs.manifest",
    "jobs.stages",
    "pipeline",
    "bisects.answer", "bisects.gitbisect", "bisects.line", "bisects.versionline", "bisects.outcome",
    "bisects.bisection",
    "gitlab.shares", "gitlab.child", "gitlab.touched", "gitlab.check", "gitlab.request",
    "targets.dryrun", "targets.patching", "targets.configreport", "targets.shell", "targets.changelog",
    "targets.ledger", "targets.bisect", "targets.seriesmatrix",
    "commandline.grammar", "commandline.preferences", "commandline.terminal", "commandline.call",
    "commandline.listing", "commandline.explain", "commandline.doctor", "commandline.schemas",
    "commandline.completion", "commandline.manpage",
    "actions", "cli", "__main__",
]  # fmt: skip


def find_path(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "orchestrator":
            room = (node.module or "").removeprefix("orchestrator").removeprefix(".")
            names = [f"{room}.{alias.name}".removeprefix(".") for alias in node.names]
            yield from ((name if name in ORDER else room, node.lineno) for name in names)


@pytest.mark.parametrize("tool", [["ruff", "check", "."], ["mypy"]], ids=["ruff", "mypy"])
def test_linters(tool: list[str]) -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name(tool[0]), *tool[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_order_names_every_module() -> None:
    paths = [path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py") if path.stem != "__init__"]
    assert sorted(ORDER) == sorted(".".join(path.with_suffix("").parts) for path in paths)


def test_rooms_stand_in_order_and_say_what_is_in_them() -> None:
    """What is in a room stands together, so that rooms, too, import one way."""
    rooms = [room for room, _ in itertools.groupby(name.rpartition(".")[0] for name in ORDER)]
    assert len(set(filter(None, rooms))) == len([room for room in rooms if room])
    for room in filter(None, rooms):
        assert ast.get_docstring(ast.parse((PACKAGE / room / "__init__.py").read_text()))


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name: str) -> None:
    path = find_path(name)
    wrong = [
        f"{path.name}:{line}: {found}"
        for found, line in imports_of(path)
        if ORDER.index(found) >= ORDER.index(name)
    ]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ("cli", "__main__")])
def test_only_cli_prints_and_exits(name: str) -> None:
    tree = ast.parse((find_path(name)).read_text())
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "sys.exit", "exit"} & set(calls)


@pytest.mark.parametrize("name", [name for name in ORDER if name != "ground.command"])
def test_one_door_to_subprocesses(name: str) -> None:
    text = (find_path(name)).read_text()
    starts = r"subprocess\.(run|Popen|call|check_\w+)\(|os\.(system|exec\w+|fork|spawn\w*)\("
    assert not re.search(starts, text)
    assert not re.search(r"^(import|from) subprocess", text, re.M)


def test_every_source_has_its_licence() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = re.compile(r"\.(py|c|h|yaml|toml|j2)$|^Makefile$|^ci/setup$|^\.ci/run$|/guest-(init|lab)$")
    licence = "SPDX-License-Identifier: GPL-2.0-or-later"
    without = [
        name
        for name in files.stdout.splitlines()
        if wanted.search(name) and licence not in (ROOT / name).read_text()[:300]
    ]
    assert without == []
