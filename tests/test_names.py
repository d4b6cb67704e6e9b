# SPDX-License-Identifier: GPL-2.0-or-later
"""One rule for names, wherever they are declared: they become paths, refs and words on a terminal."""

import json
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.kernel.fragment import load_fragments
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Declarations, Request, make_plan
from orchestrator.project.matrix import load_matrix
from orchestrator.report.junit import render_junit
from orchestrator.report.report import Judged
from orchestrator.result.record import RunRecord, load_run, save_run
from orchestrator.source.fixup import load_fixups
from orchestrator.source.series import Series
from orchestrator.source.tree import load_trees
from orchestrator.store.name import check_name, is_name, make_name
from orchestrator.store.store import Store
from tests.conftest import ROOT, cowbell
from tests.records import JOB

WRONG = (
    "../../x", "/x", "a/b", "..", ".", "a..b", "x.lock", "x.", "-x", "a b", "a,b", "a*", "a:b", "a\nb",
    "\x1b[2J", "\u202eabc", "caf\xe9", "x" * 65,
)  # fmt: skip


@pytest.fixture(scope="module")
def declared() -> Declarations:
    return load_declarations(ROOT)


@pytest.mark.parametrize("text", WRONG)
def test_names(text: str) -> None:
    with pytest.raises(ValueError, match="expected a name"):
        check_name(text)
    assert is_name(make_name(text))


def test_shipped_names(declared: Declarations) -> None:
    # a tree of a row may have a version of Debian's behind a colon
    trees = [name.partition(":")[0] for name in declared.trees]
    names = [*declared.rows, *trees, *declared.series, *declared.fragments]
    names += [variant.name for row in declared.rows.values() for variant in row.variants]
    names += [test.id for test in declared.tests]
    assert [name for name in names if not is_name(name)] == []


@pytest.mark.parametrize("text", [text for text in WRONG if text.isprintable()])
def test_names_in_yaml(tmp_path: Path, text: str) -> None:
    matrix, trees, fixups = (tmp_path / name for name in ("matrix.yaml", "trees.yaml", "fixups.yaml"))
    row = re.search(r"  - name: demo\n.*?(?=\n\n)", (ROOT / "ci/matrix.yaml").read_text(), re.S)
    assert row
    for old in ("  - name: demo", "      - name: plain"):
        new = old.replace(old.split()[-1], json.dumps(text))
        assert old in row[0]
        matrix.write_text(f"rows:\n{row[0].replace(old, new, 1)}\n")
        with pytest.raises(ExceptionGroup) as caught:
            load_matrix(matrix)
        (error,) = caught.value.exceptions
        assert re.search(r"matrix\.yaml:\d+: rows\[0\]\.(variants\[0\]\.)?name: expected a name", str(error))
    trees.write_text(f"trees:\n  {json.dumps(text)}: {{dir: /usr/src/linux}}\n")
    with pytest.raises(ExceptionGroup) as caught:
        load_trees(trees)
    assert "is not a name of a tree" in str(caught.value.exceptions[0])
    fixups.write_text(f"fixups:\n  - {{name: {json.dumps(text)}, when: kernel<4, why: x, make: {{A: b}}}}\n")
    with pytest.raises(ExceptionGroup) as caught:
        load_fixups(fixups)
    assert "fixups[0].name: expected a name" in str(caught.value.exceptions[0])


def test_names_of_files(tmp_path: Path) -> None:
    folder = tmp_path / "patches" / "my series"
    folder.mkdir(parents=True)
    (folder / "series").touch()
    (faults,) = load_declarations(tmp_path).faults.values()
    assert "is not a name of a series" in str(faults[0])
    (tmp_path / "my config.config").write_text("#: about x\nCONFIG_A=y\n")
    with pytest.raises(ExceptionGroup) as caught:
        load_fragments(tmp_path)
    assert "'my config' is not a name of a fragment" in str(caught.value.exceptions[0])


@pytest.mark.parametrize("word", ["../../../x.mbox", "/a/b c.mbox", "~/linux:HEAD~3..HEAD", "-", "cow"])
def test_variant_of_a_series_that_is_no_name(declared: Declarations, word: str) -> None:
    """Its manifest, its evidence and its results are named by the variant."""
    asked = replace(declared, series={**declared.series, word: Series(word)})
    jobs = make_plan(Request(rows=("demo",), series=(word,)), asked)
    assert [is_name(job.variant.name) for job in jobs] == [True, True]
    assert jobs[1].series.name == word


def test_store_has_no_path_out_of_it(store: Store) -> None:
    for kind, name in (("jobs", "x./../../.."), ("runs", "/etc"), ("..", "x")):
        with pytest.raises(ValueError, match="leads out of the store"):
            store.path(kind, name)
    with pytest.raises(ValueError, match="leads out"), store.scratch("../x"):
        pass


def test_text_of_a_record_is_printable(tmp_path: Path) -> None:
    evil = "\x1b]0;owned\x07\u202e\x00"
    run = RunRecord("x", f"cowbell {evil}", "", (replace(JOB, tree=evil, series=evil, left_out=evil),))
    save_run(run, tmp_path)
    read = load_run(tmp_path / "record.json")
    assert "\x1b" not in str(read)
    assert read.jobs[0].tree == "\\x1b]0;owned\\x07<U+202E>\\x00"
    ET.fromstring(render_junit(Judged(read)))


def test_error_with_any_word_is_printable() -> None:
    done = cowbell("ROW=\x1b[31mred\u202e", "TESTS=\x1b[2J*", "\x1bx")
    assert done.returncode == 2
    assert "\\x1bx" in done.stderr
    assert not [char for char in done.stderr if char in "\x1b\u202e"]


def test_what_is_no_utf8_is_replaced_in_a_record(tmp_path: Path) -> None:
    """Such bytes in the name of a folder must not cost the results."""
    save_run(RunRecord("x", "", "", (replace(JOB, origin="/tree-\udcff"),)), tmp_path)
    assert load_run(tmp_path / "record.json").jobs[0].origin == "/tree-?"
