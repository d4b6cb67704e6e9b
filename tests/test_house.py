# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the house, as tests: linters, types, licences, who may import whom, who may print."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "orchestrator"
# pipeline order: a module imports only what stands before it
ORDER = [
    "errors", "project", "glossary", "status", "command", "store", "gc", "arch", "condition", "document",
    "guesttest", "selftest", "shape", "matrix", "ktap", "odds", "splat", "knownsplats", "printk", "console",
    "progress", "terminal", "budget", "jobserver", "workers", "debian", "tree", "repository", "remote",
    "fetch", "patch", "series", "fixup", "reject", "source", "refresh", "kconfigtree", "kconfig", "warning",
    "build", "rootfs", "hardware", "qemu", "vng", "monitor", "serial", "guest", "evidence", "laboratory",
    "armed", "boot", "accel", "record", "autopsy", "run", "upstream", "finding", "verdict", "cell", "entry",
    "history", "trials", "plan", "replay", "report", "junit", "bundle", "chart", "page", "workspace",
    "declarations", "inputs", "manifest", "pipeline", "dryrun", "patching", "grammar", "preferences",
    "difference", "merge", "listing", "configreport", "shell", "changelog", "ledger", "explain", "doctor",
    "schemas", "completion", "manpage", "cli", "__main__",
]  # fmt: skip


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "orchestrator":
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("orchestrator."):
            yield (node.module or "").split(".")[1], node.lineno


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
    assert sorted(ORDER) == sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("name", ORDER)
def test_imports_run_one_way(name: str) -> None:
    path = PACKAGE / f"{name}.py"
    wrong = [
        f"{path.name}:{line}: {found}"
        for found, line in imports_of(path)
        if ORDER.index(found) >= ORDER.index(name)
    ]
    assert not wrong


@pytest.mark.parametrize("name", [name for name in ORDER if name not in ("cli", "__main__")])
def test_only_cli_prints_and_exits(name: str) -> None:
    tree = ast.parse((PACKAGE / f"{name}.py").read_text())
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "sys.exit", "exit"} & set(calls)


@pytest.mark.parametrize("name", [name for name in ORDER if name != "command"])
def test_one_door_to_subprocesses(name: str) -> None:
    text = (PACKAGE / f"{name}.py").read_text()
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
