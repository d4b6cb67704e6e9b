# SPDX-License-Identifier: GPL-2.0-or-later
"""Strict YAML and what is read with it: every error at once, each with its line; the shipped files load."""

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.kernel.fragment import load_fragments
from orchestrator.project import yamlfile as doc
from orchestrator.project.guesttest import load_tests, select_tests
from orchestrator.project.matrix import load_expectations, load_matrix
from orchestrator.source.series import load_series
from orchestrator.source.tree import load_trees
from orchestrator.status import Status
from tests.conftest import ROOT

ROW = """\
rows:
  - name: demo
    about: a row
    arch: x86_64
    tree: debian-5.10
    kconfig: [base]
    guest: {cpus: 2, memory: 1G}
    tests: ["*"]
    limits: {build: 45m, boot: 20s}
    variants:
      - name: plain
        expect:
          - {test: a.b, status: fail, why: it is broken, when: kernel<5.19}
      - {name: mended, series: cow}
"""


def read_errors(file: Path, text: str | bytes) -> list[str]:
    """What is wrong with a matrix, each as ``LINE: what``."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises((ExceptionGroup, UsageError)) as raised:
        load_matrix(file)
    errors = raised.value.exceptions if isinstance(raised.value, ExceptionGroup) else [raised.value]
    assert all(isinstance(error, UsageError) for error in errors)
    return [str(error).removeprefix(f"{file}:").lstrip() for error in errors]


def spoil(*changes: tuple[str, str]) -> str:
    text = ROW
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return text


def test_matrix(tmp_path: Path) -> None:
    (tmp_path / "matrix.yaml").write_text(ROW)
    row = load_matrix(tmp_path / "matrix.yaml")["demo"]
    assert (row.guest.cpus, row.guest.memory_mib) == (2, 1024)
    assert (row.limits.build_s, row.limits.boot_s) == (2700, 20)
    plain, mended = row.variants
    assert plain.expect[0].status is Status.FAIL
    assert plain.expect[0].when.text == "kernel<5.19"
    assert (plain.series, mended.series, mended.expect) == ("", "cow", ())


def test_expectations_of_a_row_follow_those_of_its_variants(tmp_path: Path) -> None:
    row = (ROOT / "ci" / "matrix.yaml").read_text().split("  - name: x86_64-swap")[1].split("\n\n")[0]
    own = "      - name: cow\n        expect: [{test: swap.*, status: fail, why: a bug}]"
    text = "rows:\n  - name: x86_64-swap" + row.replace("      - name: cow", own)
    (tmp_path / "matrix.yaml").write_text(text)
    plain, cow = load_matrix(tmp_path / "matrix.yaml")["x86_64-swap"].variants
    assert [one.test for one in plain.expect] == ["ropin.stablewr[device=stable]"]
    assert [one.test for one in cow.expect] == ["swap.*", "ropin.stablewr[device=stable]"]


def test_every_error_at_once_with_line_and_path(tmp_path: Path) -> None:
    text = spoil(
        ("x86_64", "x86-64"),
        ("cpus: 2, memory: 1G", "cpus: 0, memory: 2048"),
        ("45m", "45"),
        ("status: fail", "status: fial"),
        ("kernel<5.19", "kernel=5.19"),
        ('["*"]', "'*'"),
    )
    assert read_errors(tmp_path / "matrix.yaml", text) == [
        "4: rows[0].arch: expected one of x86_64, aarch64, riscv64, got x86-64; did you mean x86_64?",
        "7: rows[0].guest.cpus: expected a whole number of at least 1, got 0",
        "7: rows[0].guest.memory: expected size like 2G, got 2048",
        "8: rows[0].tests: expected a list",
        "9: rows[0].limits.build: expected time like 30s or 45m, got 45",
        "13: rows[0].variants[0].expect[0].status: expected one of fail, timeout, crash, skip, got fial; "
        "did you mean fail?",
        "13: rows[0].variants[0].expect[0].when: expected arch=NAME[,NAME] or kernel>=VERSION (or <, <=, >), "
        "got 'kernel=5.19'",
    ]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("tree:", "tere:", ["5: rows[0]: unknown key tere; did you mean tree?", "2: rows[0]: missing tree"]),
        ("    tree: debian-5.10\n", "", ["2: rows[0]: missing tree"]),
        ("    arch:", "    name: again\n    arch:", ["4: rows[0]: duplicate key name"]),
        ("tree: debian-5.10", "tree: [debian-5.10]", ["expected one value, got a list or a mapping"]),
        ("tree: debian-5.10", "tree:", ["5: rows[0].tree: expected some text, got nothing"]),
        ("{cpus: 2, memory: 1G}", "2", ["7: rows[0].guest: expected a mapping (key: value)"]),
        ("memory: 1G", "memory: 1g", ["expected size like 2G, got 1g"]),
        ("memory: 1G", "memory: 0G", ["expected size like 2G, got 0G"]),
        ("memory: 1G", "memory: 99999T", ["guest.memory: expected at most 1T, got"]),
        ("memory: 1G", f"memory: {'9' * 5000}M", ["guest.memory: expected at most 1000000000, got 999"]),
        ("cpus: 2", "cpus: 99999999999999", ["guest.cpus: expected at most 1000000000, got 9999999"]),
        ("cpus: 2", "cpus: 256", ["guest.cpus: expected at most 255, got 256"]),
        ("boot: 20s", "boot: 99999h", ["limits.boot: expected at most 168, got 99999"]),
        ("memory: 1G", "memory: 1.5G", ["expected size like 2G, got 1.5G"]),
        ("boot: 20s", "boot: 20 s", ["expected time like 30s or 45m, got 20 s"]),
        ("cpus: 2", "cpus: two", ["expected a whole number of at least 1, got two"]),
        ("name: mended", "name: plain", ["variants: names must differ, got plain, plain"]),
        ("series: cow", "[series]: cow", ["expected a plain key"]),
    ],
)
def test_error(tmp_path: Path, old: str, new: str, told: list[str]) -> None:
    errors = read_errors(tmp_path / "matrix.yaml", spoil((old, new)))
    assert len(errors) == len(told)
    for error, text in zip(errors, told, strict=True):
        assert text in error


def test_unknown_key_is_shown_where_the_key_is(tmp_path: Path) -> None:
    text = spoil(("variants:", "vraiants:"))
    assert "10: rows[0]: unknown key vraiants; did you mean variants?" in read_errors(
        tmp_path / "m.yaml", text
    )


def test_unknown_keys_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    keys = [f"key{i}" for i in range(8)]
    added = "".join(f"    {key}: x\n" for key in keys)
    errors = read_errors(tmp_path / "m.yaml", spoil(("    arch:", f"{added}    arch:")))
    assert [error.split()[-1] for error in errors] == keys


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("# only a comment\n", "is empty"),
        ("rows:\n  - [\n", "3: is not YAML"),
        ("rows:\n\t- x\n", "2: is not YAML"),
        ("rows: []\n---\nrows: []\n", "2: is not YAML"),
        ("rows: *absent\n", "1: is not YAML"),
        ("rows: \0\n", "is not YAML"),
        (b"rows:\n  - name: caf\xe9\n", "is not UTF-8 text"),
        ("just words\n", "1: expected a mapping"),
        ("- rows\n", "1: expected a mapping"),
        ("rows: &a [*a]\n", "expected a mapping"),
        ("row: []\n", "unknown key row; did you mean rows?"),
    ],
)
def test_what_is_no_matrix(tmp_path: Path, text: str | bytes, told: str) -> None:
    assert told in read_errors(tmp_path / "matrix.yaml", text)[0]


def test_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file or directory"):
        load_matrix(tmp_path / "absent.yaml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        load_matrix(tmp_path)


def test_two_rows_of_one_name(tmp_path: Path) -> None:
    again = ROW.removeprefix("rows:\n")
    assert "two rows are named demo" in read_errors(tmp_path / "matrix.yaml", ROW + again)[0]


def test_row_without_tests_is_refused(tmp_path: Path) -> None:
    """A row that tests nothing would be green."""
    assert "tests" in read_errors(tmp_path / "matrix.yaml", spoil(('["*"]', "[]")))[0]


def test_duplicate_key_of_a_free_mapping(tmp_path: Path) -> None:
    (tmp_path / "trees.yaml").write_text(
        "trees:\n  one: {debian: a, suite: b}\n  one: {debian: c, suite: d}\n"
    )
    with pytest.raises(ExceptionGroup) as raised:
        load_trees(tmp_path / "trees.yaml")
    assert [str(error) for error in raised.value.exceptions] == [
        f"{tmp_path}/trees.yaml:3: trees: duplicate key one"
    ]


def test_duplicate_key_with_nothing_around_it(tmp_path: Path) -> None:
    (tmp_path / "file.yaml").write_text("a: 1\na: 2\n")
    with pytest.raises(ExceptionGroup):
        doc.load_document(tmp_path / "file.yaml", doc.mapping_of(doc.scalar(doc.text)))


def test_shipped_matrix_names_what_there_is() -> None:
    rows = load_matrix(ROOT / "ci" / "matrix.yaml")
    trees = load_trees(ROOT / "patches" / "trees.yaml")
    fragments = load_fragments(ROOT / "kconfigs")
    tests = load_tests(ROOT / "guest-tests")
    assert rows
    for row in rows.values():
        assert row.tree in trees
        assert set(row.kconfig) <= set(fragments)
        assert select_tests(tests, row.tests)
        for variant in row.variants:
            assert not variant.series or (ROOT / "patches" / variant.series / "series.yaml").is_file()


@pytest.mark.parametrize(
    "file", sorted((ROOT / "patches").glob("*/series.yaml")), ids=lambda file: file.parent.name
)
def test_shipped_series(file: Path) -> None:
    series = load_series(file.parent)
    assert series.patches
    assert series.when.text
    for patch in series.patches:
        assert patch.path.read_text().startswith("From ")


EXPECTATIONS = """\
expectations:
  - {test: a.b, status: fail, why: it is broken, when: kernel<5.19}
  - {test: "a.*", status: skip, why: it is elsewhere, series: none cow}
"""


def test_expectations(tmp_path: Path) -> None:
    file = tmp_path / "expectations.yaml"
    file.write_text(EXPECTATIONS)
    plain, both = load_expectations(file)
    assert (plain.test, plain.status, plain.when.text) == ("a.b", Status.FAIL, "kernel<5.19")
    assert plain.series == frozenset([""])
    assert (both.status, both.series) == (Status.SKIP, frozenset(["", "cow"]))
    file.write_text(EXPECTATIONS.replace("test: a.b", "tset: a.b").replace("status: skip", "status: pass"))
    with pytest.raises(ExceptionGroup) as raised:
        load_expectations(file)
    assert [str(error).removeprefix(f"{file}:") for error in raised.value.exceptions] == [
        "2: expectations[0]: unknown key tset; did you mean test?",
        "2: expectations[0]: missing test",
        "3: expectations[1].status: expected one of fail, timeout, crash, skip, got pass",
    ]
