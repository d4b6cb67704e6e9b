# SPDX-License-Identifier: GPL-2.0-or-later
"""What words mean, what a machine lacks, what a user sets for all commands, and what clean leaves."""

import json
from pathlib import Path

import pytest

from orchestrator.cli.explain import find_subjects
from orchestrator.cli.glossary import CONTRACTS, EXITS, VERDICTS
from orchestrator.cli.registry import TARGETS
from orchestrator.cli.variables import VARIABLES
from orchestrator.parse.splat import SplatKind
from orchestrator.plan.declarations import load_declarations
from orchestrator.project.changelog import load_changelog
from orchestrator.status import Status
from tests.conftest import ROOT, cowbell


@pytest.mark.parametrize(
    ("word", "kind", "told"),
    [
        ("BROKEN", "verdict", VERDICTS["BROKEN"]),
        ("fail", "verdict", "KTAP calls it XFAIL"),
        ("XPASS", "verdict", "update the expectation"),
        ("3", "exit status", EXITS[3]),
        ("demo", "row", "cowbell test ROW=demo"),
        ("debian-6.1", "tree", "KERNEL=debian-6.1:VERSION; cowbell list trees -v"),
        ("mainline", "tree", "KERNEL=mainline:REF"),
        ("ACCEL", "variable", "auto, kvm, tcg"),
        ("build", "target", TARGETS["build"].about),
        ("FAIL (expected)", "verdict", VERDICTS["FAIL (expected)"]),
        ("failed as expected", "verdict", VERDICTS["FAIL (expected)"]),
        ("C-READ", "contract", CONTRACTS["C-READ"]),
        ("29b", "changelog entry", "O_DIRECT reads lose no data"),
        ("odirect", "family", "odirect.rd-control, "),
        ("plain", "variant", "demo, "),
        ("demo/cow", "job", "cow"),
        ("cow", "series", "SERIES=cow"),
        ("kasan", "fragment", "CONFIG=base,kasan"),
        ("hung-task", "kind of splat", "CRASH"),
        ("warning:do_wp_page/handle_mm_fault", "fingerprint", "do_wp_page, called by handle_mm_fault"),
        ("flipped", "term", "between fail and pass"),
        ("not exercised", "term", "skipped"),
    ],
)
def test_explain(word: str, kind: str, told: str) -> None:
    done = cowbell("explain", word)
    assert done.returncode == 0
    assert f"{word}: {kind}\n" in done.stdout
    assert told in done.stdout


def test_explain_knows_the_words_of_a_report() -> None:
    declared = load_declarations(ROOT)
    entries = load_changelog([ROOT / "guest-tests/changelog.yaml"], declared.tests)
    raws = set(Status) - {Status.XFAIL, Status.XPASS}
    words = {raw.against(expected).label(raw) for expected in raws for raw in raws}
    words |= {variant.name for row in declared.rows.values() for variant in row.variants}
    words |= {*Status, *SplatKind, *declared.rows, *declared.trees, *declared.series, *declared.fragments}
    for test in declared.tests:
        words |= {test.id, test.family, test.kind, *test.subtests, *test.changelog.split()}
        words |= {test.contract} if test.contract.startswith("C-") else set()
    find_subjects(sorted(words), declared, entries)
    used = {test.contract for test in declared.tests if test.contract.startswith("C-")}
    assert used == set(CONTRACTS)


def test_documents_say_the_same() -> None:
    text = (ROOT / "README.md").read_text()
    for word, told in (*VERDICTS.items(), *EXITS.items()):
        assert f"| {word} | {told} |" in text


def test_explain_several_with_a_test() -> None:
    told = cowbell("explain", "SKIP", "odirect.rd-*").stdout
    assert "SKIP: verdict" in told
    assert "odirect.rd-control: control: a stalled O_DIRECT read" in told


def test_every_word_that_is_not_known_at_once() -> None:
    done = cowbell("explain", "BRKEN", "odirect.rd-mprotct", "99")
    assert done.returncode == 2
    for text in ("did you mean BROKEN?", "did you mean odirect.rd-mprotect?", "there is no 99"):
        assert text in done.stderr
    assert "expected a word" in cowbell("explain").stderr


def test_list_of_a_kind() -> None:
    told = cowbell("list", "tests").stdout
    assert "odirect.rd-stress" in told
    assert "(race; needs " in told
    assert [line.split()[0] for line in cowbell("list", "targets").stdout.splitlines()] == list(TARGETS)
    done = cowbell("list", "test")
    assert (done.returncode, "did you mean tests?" in done.stderr) == (2, True)


def test_doctor_names_what_is_missing_and_the_command(tmp_path: Path) -> None:
    """A machine with nothing but a C compiler's name on its PATH."""
    bare = tmp_path / "bin"
    bare.mkdir()
    done = cowbell("doctor", "ROW=demo,aarch64-64k", "--json", PATH=str(bare))
    assert done.returncode == 1
    told = json.loads(done.stdout)
    assert {"git", "qemu-system-x86", "qemu-system-arm", "gcc-aarch64-linux-gnu", "mmdebstrap"} <= set(
        told["packages"]
    )
    rows = {finding["need"]: finding["rows"] for finding in told["findings"]}
    assert rows["qemu-system-aarch64"] == ["aarch64-64k"]
    text = cowbell("doctor", "ROW=demo", PATH=str(bare)).stdout
    assert "MISSING  qemu-system-x86_64" in text
    assert "apt-get install --no-install-recommends bc binutils" in text
    assert "cannot run: demo" in text


def test_doctor_is_content_where_rows_run() -> None:
    done = cowbell("doctor", "ROW=demo")
    assert done.returncode == 0, done.stdout
    assert "every row can run" in done.stdout


@pytest.fixture
def preferences(home: Path) -> Path:
    path = home / ".config" / "cowbell.yaml"
    path.parent.mkdir(parents=True)
    return path


def test_a_users_defaults_come_after_the_environment(preferences: Path) -> None:
    preferences.write_text("ACCEL: tcg\nROW: demo\nSIZE: 5G\n")
    told = json.loads(cowbell("-p", "--json", "KERNEL=a", ROW="x").stdout)["variables"]
    assert told["ACCEL"] == {"value": "tcg", "origin": f"{preferences}:1"}
    assert told["ROW"] == {"value": "x", "origin": "environment"}
    assert told["KERNEL"]["origin"] == "command line"
    assert told["SIZE"]["value"] == "5G"
    assert set(told) == set(VARIABLES)


def test_wrong_defaults_are_told_with_their_line(preferences: Path) -> None:
    preferences.write_text("ACCEL: tcg\nKERNLE: x\nROW: [demo]\n")
    done = cowbell("list")
    assert done.returncode == 2
    assert f"{preferences}:2" in done.stderr
    assert "did you mean KERNEL?" in done.stderr
    assert f"{preferences}:3" in done.stderr
    preferences.write_text("\nACCEL: hvf\n")
    done = cowbell("list")
    assert f"ACCEL ({preferences}:2): expected auto, kvm or tcg, got hvf" in done.stderr


def test_clean_leaves_kernels_and_results(tmp_path: Path) -> None:
    store = tmp_path / "store"
    for name in ("trees/t/a", "programs/b", "trees/t/source", "kernels/d", "results/e", "runs/f"):
        (store / name).mkdir(parents=True)
    shown = cowbell("clean", "-n", COWBELL_STORE=str(store))
    assert shown.returncode == 0
    assert (store / "trees/t/a").exists()
    assert cowbell("clean", COWBELL_STORE=str(store)).returncode == 0
    left = {str(path.relative_to(store)) for path in store.rglob("?") if path.name != "t"}
    assert left == {"kernels/d", "results/e", "runs/f"}
