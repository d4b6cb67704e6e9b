# SPDX-License-Identifier: GPL-2.0-or-later
"""The declarations of the targets: variables, options, help, examples, and the reference made of them."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from orchestrator.cli import helptext, reference
from orchestrator.cli.call import CommandLine
from orchestrator.cli.commandline import read_command_line
from orchestrator.cli.options import OPTIONS
from orchestrator.cli.registry import TARGETS, list_groups, list_products
from orchestrator.cli.schemas import _PARTS
from orchestrator.cli.target import Target
from orchestrator.cli.variables import VARIABLES, Setting
from orchestrator.errors import UsageError
from orchestrator.plan.declarations import load_declarations
from tests.conftest import ROOT, cowbell

EVERY = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
VALUES = {"FIND": "fix", "ACCEL": "tcg", "BOOT": "vng", "LLVM": "1", "DEBUG": "1", "VMCORE": "1",
          "GDB": "1", "TRACE": "function:x", "SAMPLE": "9", "SEED": "9", "REPEAT": "2",
          "CONFIDENCE": "0.9", "SHARD": "5m", "SIZE": "1G", "FAILED": "1", "TIMEOUT": "9s", "FOREVER": "9s",
          "FORMAT": "mail"}  # fmt: skip


def read(line: str) -> CommandLine:
    """A command line as it is typed, with what stands before and after the command left out."""
    found = re.search(r"\bcowbell ([^|>)]*)", line)
    assert found
    return read_command_line(shlex.split(found[1]))


def find_errors(*words: str) -> list[str]:
    try:
        read_command_line(words)
    except ExceptionGroup as group:
        return [str(error) for error in group.exceptions if isinstance(error, UsageError)]
    return []


@EVERY
def test_variables_are_taken_by_the_targets_that_declare_them_only(target: Target) -> None:
    for name in VARIABLES:
        errors = find_errors(target.name, f"{name}={VALUES.get(name, 'x')}")
        if target.name == "completion" or name in target.variables:
            assert errors == []
        else:
            (error,) = errors
            assert error.startswith(f"{target.name}: does not use {name}=\n")
            assert all(used in error for used in target.variables or ("none",))


@EVERY
def test_options_are_taken_by_the_targets_that_declare_them_only(target: Target) -> None:
    for option in OPTIONS.values():
        for flag in option.flags:
            words = [flag, *(["1"] if option.parsing.get("metavar") else [])]
            errors = find_errors(*words, target.name)
            expected = (
                []
                if option in target.options
                else [f"{target.name}: does not take {', '.join(option.flags)}"]
            )
            assert [error.splitlines()[0] for error in errors] == expected


@EVERY
def test_help_has_the_examples_and_only_the_own_variables_and_options(target: Target) -> None:
    text = helptext.render_target(target)
    assert all(len(line) <= 80 or line.strip() in dict(target.examples) for line in text.splitlines())
    listed = re.findall(r"^  ([A-Z_+]+) ", text, re.M)
    assert listed == list(target.variables)
    flags = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.M))
    assert flags == {option.name for option in target.own_options}
    common = {flag for option in target.options if option.is_common for flag in option.flags[:1]}
    assert set(re.findall(r" (--?[\w-]+)[,;]", text)) >= common
    for command, about in target.examples:
        assert f"  {command}\n      {about}\n" in text


@EVERY
def test_examples_are_valid_commands(target: Target) -> None:
    declared = load_declarations(ROOT)
    for command, _ in target.examples:
        line = read(command)
        assert line.targets == (target.name,)
        rows, series = line.settings["ROW"].words, line.settings["SERIES"].words
        assert set(rows) <= set(declared.rows)
        assert all(name in declared.series or "/" in name or name in ("none", "fix") for name in series)


def test_help_fits_a_terminal_and_names_everything() -> None:
    done = cowbell("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    for name in (*TARGETS, *VARIABLES, *OPTIONS):
        assert re.search(rf"^  (-\w, )?{name}\b", done.stdout, re.M), name
    assert cowbell("help").stdout == done.stdout


def test_help_of_targets() -> None:
    page = helptext.render_target(TARGETS["gc"])
    for words in (("help", "gc"), ("gc", "--help"), ("-h", "gc")):
        done = cowbell(*words)
        assert (done.returncode, done.stdout, done.stderr) == (0, page, "")
    assert cowbell("help", "gc", "test").stdout == f"{page}\n{helptext.render_target(TARGETS['test'])}"


def test_variables_of_a_target_are_printed() -> None:
    assert [line.split()[0] for line in cowbell("-p", "report").stdout.splitlines()] == [
        "RUN",
        "FORMAT",
        "ORIGIN",
        "DIR",
    ]
    assert cowbell("-p", "manpage").stdout == ""


def test_version() -> None:
    done = cowbell("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"cowbell (\d+\.\d+\.\d+|\(not installed\))\n", done.stdout)


def make_project(folder: Path) -> Path:
    text = (ROOT / "ci/matrix.yaml").read_text()
    found = re.search(r"^  - name: demo\n(?:    .*\n|\n)*", text, re.M)
    assert found
    (folder / "ci").mkdir(parents=True)
    rows = [found[0].replace("name: demo", f"name: {name}", 1) for name in ("first", "second")]
    (folder / "ci/matrix.yaml").write_text("rows:\n" + "".join(rows))
    return folder


def list_rows(*words: str, cwd: Path, **env: str) -> set[str]:
    done = cowbell("-n", *words, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return set(re.findall(r"^run +([\w-]+)/", done.stdout, re.M))


def test_bare_command_tests_the_first_row_of_a_project(tmp_path: Path) -> None:
    project = make_project(tmp_path / "mine")
    below = project / "some/where"
    below.mkdir(parents=True)
    assert list_rows(cwd=project) == list_rows(cwd=below) == {"first"}
    assert list_rows(cwd=project, ROW="second") == {"second"}
    assert list_rows("-C", str(project), cwd=tmp_path) == {"first"}


def test_bare_command_prints_help_outside_a_project(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "kconfigs", tmp_path / "no-rows/kconfigs")
    for cwd in (tmp_path, tmp_path / "no-rows", ROOT):
        done = cowbell(cwd=cwd)
        assert (done.returncode, done.stdout) == (0, helptext.render_overview())
    assert list_rows(cwd=tmp_path, ROW="demo") == {"demo"}
    assert list_rows("SERIES=none", cwd=tmp_path) == {"demo"}


def test_rows_are_selected_by_name_glob_and_all(tmp_path: Path) -> None:
    project = make_project(tmp_path / "mine")
    assert list_rows("test", cwd=project) == {"first"}
    assert list_rows("ROW=second,demo", cwd=project) == {"second", "demo"}
    assert list_rows("ROW=*st", cwd=project) == {"first"}
    assert list_rows("ROW=all", cwd=project) == {"first", "second"}
    assert list_rows("test", cwd=ROOT) == {"demo"}
    assert len(list_rows("test", "ROW=x86_64-*", cwd=ROOT)) == 6
    done = cowbell("ci", cwd=project)
    assert "test first:" in done.stdout
    assert "test second:" in done.stdout


def test_variables_of_other_targets_are_ignored_in_environment_and_preferences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KERNEL", "/nonexistent")
    line = read_command_line(["report"], {"ROW": Setting("demo", "cowbell.yaml:1")})
    assert {line.settings[name].origin for name in ("KERNEL", "ROW")} == {"default"}
    assert read_command_line(["test"]).settings["KERNEL"] == Setting("/nonexistent", "environment")


def test_options_of_the_calling_make_are_no_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKELEVEL", "1")
    monkeypatch.setenv("MAKEFLAGS", "ksB")
    assert read_command_line(["report"]).options.keep_going
    assert find_errors("-k", "report") != []


def test_every_schema_is_of_a_target() -> None:
    assert set(list_products()) == set(_PARTS)


def test_reference_has_each_target_with_its_variables_and_examples() -> None:
    text = reference.render_reference()
    assert re.findall(r"^### cowbell (\S+)$", text, re.M) == [
        target.name for targets in list_groups().values() for target in targets
    ]
    for target in TARGETS.values():
        section = reference.render_target(target)
        assert section in text
        assert re.findall(r"^\| `([A-Z_+]+)=` \|", section, re.M) == list(target.variables)
        assert all(option.usage in section for option in target.own_options)
        assert all(command in section for command, _ in target.examples)
    assert not re.search(r"^\|(?:[^|\\]|\\.)*\|(?:[^|\\]|\\.)*\|.+", text, re.M), "a cell too many"
