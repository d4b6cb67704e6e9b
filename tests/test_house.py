# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of the code as tests: linters, types, licences, imports between layers, printing."""

import ast
import graphlib
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.layers import LAYERS, MODULES, PACKAGE, find_path


def imports_of(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "orchestrator":
            package = (node.module or "").removeprefix("orchestrator").removeprefix(".")
            names = [f"{package}.{alias.name}".removeprefix(".") for alias in node.names]
            yield from ((name if name in MODULES else package, node.lineno) for name in names)


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


def find_layer(name: str) -> int:
    (found,) = [number for number, layer in enumerate(LAYERS) if name.split(".")[0] in layer]
    return found


def test_packages_say_what_they_are_for() -> None:
    for package in {name.split(".")[0] for name in MODULES if "." in name}:
        assert ast.get_docstring(ast.parse((PACKAGE / package / "__init__.py").read_text()))


@pytest.mark.parametrize("name", MODULES)
def test_imports_run_one_way(name: str) -> None:
    path = find_path(name)
    wrong = [
        f"{path.name}:{line}: {found}"
        for found, line in imports_of(path)
        if found.split(".")[0] != name.split(".")[0] and find_layer(found) >= find_layer(name)
    ]
    assert not wrong


def test_no_modules_import_each_other() -> None:
    graph = {name: [found for found, _ in imports_of(find_path(name))] for name in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_no_name_stands_for_two_classes() -> None:
    classes = [
        (node.name, name)
        for name in MODULES
        for node in ast.walk(ast.parse(find_path(name).read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    twice = {name for name, number in Counter(name for name, _ in classes).items() if number > 1}
    assert not [(name, module) for name, module in classes if name in twice]


@pytest.mark.parametrize("name", [name for name in MODULES if name not in ("cli.main", "__main__")])
def test_only_cli_prints_and_exits(name: str) -> None:
    tree = ast.parse((find_path(name)).read_text())
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not {"print", "sys.exit", "exit"} & set(calls)


@pytest.mark.parametrize("name", [name for name in MODULES if name != "process.command"])
def test_one_door_to_subprocesses(name: str) -> None:
    text = (find_path(name)).read_text()
    starts = r"subprocess\.(run|Popen|call|check_\w+)\(|os\.(system|exec\w+|fork|spawn\w*)\("
    assert not re.search(starts, text)
    assert not re.search(r"^(import|from) subprocess", text, re.M)


def test_no_test_module_is_imported() -> None:
    """Shared helpers are in modules of their own; scripts that a test starts keep to it as well."""
    imported = re.compile(r"\b(?:from|import) tests\.test_|\bfrom tests import [^;\\n]*\btest_")
    wrong = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if imported.search(line)
    ]
    assert not wrong


def test_every_source_has_its_licence() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = re.compile(r"\.(py|c|h|yaml|toml|j2)$|^Makefile$|^ci/setup$|^\.ci/run$|/guest-(init|setup)$")
    licence = "SPDX-License-Identifier: GPL-2.0-or-later"
    without = [
        name
        for name in files.stdout.splitlines()
        if wanted.search(name) and licence not in (ROOT / name).read_text()[:300]
    ]
    assert without == []
