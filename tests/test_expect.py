# SPDX-License-Identifier: GPL-2.0-or-later
"""The target expect: what a run adds to and removes from ci/expectations.yaml, and what it never does."""

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.expect import Proposal, propose
from orchestrator.errors import UsageError
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Declarations
from orchestrator.project.expectationfile import NewEntry, edit_expectations
from orchestrator.project.matrix import Expectation, load_expectations
from orchestrator.report.report import Judged
from orchestrator.result.record import Expected, Failure, JobRecord, TrialResult, save_run
from orchestrator.status import Status
from orchestrator.store.store import open_default
from tests.conftest import ROOT, cowbell
from tests.records import make_log, make_run
from tests.samples import FAILED, GOOD, WARNING

TEST = "odirect.rd-mprotect"
OTHER = "odirect.rd-softdirty"
FILE = """\
# SPDX-License-Identifier: GPL-2.0-or-later
# Kept.
expectations:
  # the first part
  - test: odirect.rd-mprotect   # kept or gone with it
    status: fail
    when: kernel>=6.1 kernel<6.2 arch=x86_64
    why: >-
      two lines
      of text

  # the second part
  - {test: vmsplice.child-small, status: fail, when: kernel<5.0, why: "it: has a colon"}
  -
    test: fork.*
    status: fail
    why: a glob
# the end
"""
ADDED = NewEntry(
    "odirect.rd-stress", Status.FAIL, "kernel>=6.1 kernel<6.2 arch=x86_64", "FILL IN: a: b # c", ("", "cow")
)


def load(tmp_path: Path, text: str) -> tuple[Path, tuple[Expectation, ...]]:
    file = tmp_path / "expectations.yaml"
    file.write_bytes(text.encode())
    return file, load_expectations(file)


def list_removed(before: str, after: str) -> list[str]:
    lines = after.splitlines()
    return [line for line in before.splitlines() if line not in lines]


def test_all_other_bytes_stay(tmp_path: Path) -> None:
    file, known = load(tmp_path, FILE)
    assert edit_expectations(file, FILE, [], []) == FILE
    added = edit_expectations(file, FILE, [ADDED], [])
    new = (
        "  - test: odirect.rd-stress\n    status: fail\n    when: kernel>=6.1 kernel<6.2 arch=x86_64\n"
        "    series: none cow\n    why: 'FILL IN: a: b # c'\n"
    )
    assert added == FILE.replace("expectations:\n", f"expectations:\n{new}")
    first = edit_expectations(file, FILE, [], known[:1])
    assert first == FILE[: FILE.index("  - test")] + FILE[FILE.index("\n  # the second") :]
    assert list_removed(FILE, edit_expectations(file, FILE, [], known[1:2])) == [
        '  - {test: vmsplice.child-small, status: fail, when: kernel<5.0, why: "it: has a colon"}'
    ]
    last = edit_expectations(file, FILE, [], known[2:])
    assert last == FILE[: FILE.index("  -\n")] + "# the end\n"
    assert [one.test for one in load(tmp_path, edit_expectations(file, FILE, [ADDED], known[::2]))[1]] == [
        "odirect.rd-stress",
        "vmsplice.child-small",
    ]


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", "expectations:\n"),
        ("expectations: []\n", "expectations:\n"),
        ("# a comment\nexpectations: []   # none\n# more", "# a comment\nexpectations:\n"),
    ],
)
def test_list_without_entries(text: str, added: str, tmp_path: Path) -> None:
    file = tmp_path / "expectations.yaml"
    made = edit_expectations(file, text, [ADDED], [])
    assert made.startswith(added)
    _, known = load(tmp_path, made)
    assert [(one.test, one.series) for one in known] == [("odirect.rd-stress", frozenset(["", "cow"]))]
    empty = edit_expectations(file, made, [], known)
    assert load(tmp_path, empty)[1] == ()


def test_ends_of_lines_and_indents_stay(tmp_path: Path) -> None:
    text = (
        "expectations:\r\n- test: fork.*\r\n  status: fail\r\n  why: x\r\n- {test: a.b, status: fail, why: y}"
    )
    file, known = load(tmp_path, text)
    made = edit_expectations(file, text, [ADDED], known[1:])
    assert "\n- test: fork.*\r\n  status: fail\r\n  why: x\r\n" in made
    assert "\n- test: odirect.rd-stress\n  status: fail\n" in made


def test_list_on_one_line_is_refused(tmp_path: Path) -> None:
    text = "expectations: [{test: fork.*, status: fail, why: x}]\n"
    file, _ = load(tmp_path, text)
    with pytest.raises(UsageError, match="has its list on one line"):
        edit_expectations(file, text, [ADDED], [])


# --- what a run implies


@pytest.fixture(scope="module")
def shipped() -> Declarations:
    return load_declarations(ROOT)


def rename(result: TrialResult, test: str) -> TrialResult:
    return replace(result, test=test, stdout=result.stdout.replace(TEST, test), console=make_log(test))


def make_job(*results: TrialResult, series: str = "", expect: tuple[Expected, ...] = ()) -> JobRecord:
    return replace(
        make_run().jobs[1],
        variant=series or "plain",
        series=series,
        version="6.1.7",
        tests={result.test: (result.test,) for result in results},
        results=results,
        expect=expect,
    )


CRASHED = replace(GOOD, console=GOOD.console.replace("[    2.100000]", f"{WARNING}[    2.100000]"))
FILE_PATH = Path("/overlay/ci/expectations.yaml")


def ask(declared: Declarations, *jobs: JobRecord, globs: tuple[str, ...] = ()) -> Proposal:
    return propose(Judged(replace(make_run(), jobs=jobs)), declared, FILE_PATH, globs)


def expect_it(
    declared: Declarations, when: str, test: str = TEST, **more: object
) -> tuple[Declarations, Expected]:
    """Declarations with that expectation alone, and as a job has it."""
    (one,) = [e for e in declared.expectations if e.test == TEST]
    parsed = replace(one, test=test, when=one.when.parse(when), where=f"{FILE_PATH}:7")
    parsed = dataclasses.replace(parsed, **more)  # type: ignore[arg-type]
    return replace(declared, expectations=(parsed,)), Expected(test, parsed.status, parsed.why)


def test_failure_is_expected_where_it_was_seen(shipped: Declarations) -> None:
    declared = replace(shipped, expectations=())
    plain, cow = make_job(FAILED, rename(GOOD, OTHER)), make_job(FAILED, series="cow")
    found = ask(declared, plain, cow)
    (entry,) = found.added
    assert (entry.test, entry.status, entry.series) == (TEST, Status.FAIL, ("", "cow"))
    assert entry.when == "kernel>=6.1 kernel<6.2 arch=x86_64"
    assert entry.why.startswith("FILL IN")
    assert (found.removed, found.left) == ((), ())
    assert ask(declared, plain, globs=("vmsplice.*",)) == Proposal((), (), ())
    assert ask(declared, make_job(GOOD)) == Proposal((), (), ())


def test_subtests_that_fail_alike_are_one_entry(shipped: Declarations) -> None:
    declared = replace(shipped, expectations=())
    (test,) = [one for one in declared.tests if one.id == "odirect.rd-fork"]
    assert len(test.subtests) > 1
    for failing in (test.subtests, test.subtests[:1]):
        lines = [
            f"{'not ok' if name in failing else 'ok'} {n} {name}" for n, name in enumerate(test.subtests, 1)
        ]
        text = "\n".join(["KTAP version 1", f"1..{len(lines)}", *lines, ""])
        result = replace(FAILED, test=test.id, stdout=text, console=make_log(test.id))
        job = replace(make_job(result), tests={test.id: test.subtests})
        (entry,) = ask(declared, job).added
        assert entry.test == (test.id if failing == test.subtests else failing[0])


@pytest.mark.parametrize(
    ("job", "why"),
    [
        (make_job(replace(GOOD, stdout="")), "BROKEN says nothing about the kernel"),
        (
            replace(make_job(GOOD), results=(), failure=Failure("boot", "panic", "", "", "")),
            "the stage boot failed",
        ),
        (make_job(CRASHED), "a crash, warning:do_wp_page"),
        (make_job(FAILED, series="/tmp/fix.mbox"), "is not a series of patches/"),
        (make_job(rename(FAILED, "mine.test")), "it is not a test"),
        (replace(make_job(FAILED), version=""), "does not know the version"),
    ],
    ids=["broken", "boot", "crash", "series", "test", "version"],
)
def test_what_is_never_expected(job: JobRecord, why: str, shipped: Declarations) -> None:
    found = ask(replace(shipped, expectations=()), job)
    assert (found.added, found.removed) == ((), ())
    ((_, reason),) = found.left
    assert why in reason


def test_crash_is_expected_by_name_and_fingerprint(shipped: Declarations) -> None:
    declared = replace(shipped, expectations=())
    assert not ask(declared, make_job(CRASHED), globs=("odirect.*",)).added
    (entry,) = ask(declared, make_job(CRASHED), globs=(TEST,)).added
    assert (entry.status, entry.fingerprint.startswith("warning:do_wp_page")) == (Status.CRASH, True)


def test_pass_removes_an_expectation_of_these_kernels(shipped: Declarations) -> None:
    own = "kernel>=6.1 kernel<6.2 arch=x86_64"
    declared, expected = expect_it(shipped, own)
    found = ask(declared, make_job(GOOD, expect=(expected,)))
    assert (found.removed, found.added, found.left) == (declared.expectations, (), ())


@pytest.mark.parametrize(
    ("when", "more", "job", "why"),
    [
        ("kernel>=5.9 kernel<6.2 arch=x86_64", {}, make_job(GOOD), "covers more than the run tested"),
        ("kernel>=6.1 kernel<6.2", {}, make_job(GOOD), "covers more than the run tested"),
        ("kernel>=6.1 arch=x86_64", {}, make_job(GOOD), "covers more than the run tested"),
        (
            "kernel>=6.1 kernel<6.2 arch=x86_64",
            {"series": frozenset(["", "cow"])},
            make_job(GOOD),
            "covers more than the run tested",
        ),
        (
            "kernel>=6.1 kernel<6.2 arch=x86_64",
            {"test": "odirect.rd-*"},
            make_job(GOOD),
            "covers more than the run tested",
        ),
        (
            "kernel>=6.1 kernel<6.2 arch=x86_64",
            {"test": "odirect.rd-*"},
            make_job(GOOD, rename(FAILED, OTHER)),
            "its expectation holds for odirect.rd-softdirty",
        ),
        (
            "kernel>=6.1 kernel<6.2 arch=x86_64",
            {"where": "/elsewhere.yaml:3"},
            make_job(GOOD),
            "is not in /overlay/ci/expectations.yaml",
        ),
        (
            "kernel>=6.1 kernel<6.2 arch=x86_64",
            {},
            replace(make_job(GOOD), races=(TEST,)),
            "a race may pass by chance",
        ),
    ],
)
def test_pass_that_removes_nothing(
    when: str, more: dict[str, object], job: JobRecord, why: str, shipped: Declarations
) -> None:
    declared, expected = expect_it(shipped, when, **more)  # type: ignore[arg-type]
    found = ask(declared, replace(job, expect=(expected,)))
    assert (found.added, found.removed) == ((), ())
    assert [why in reason for _, reason in found.left] == [True]


def test_expectation_that_comes_first_is_named(shipped: Declarations) -> None:
    declared, expected = expect_it(shipped, "kernel<7.0")
    over = replace(expected, until="2020-01-01", is_over=True)
    ((_, reason),) = ask(declared, make_job(FAILED, expect=(over,))).left
    assert reason == f"its expectation has ended: change until: at {FILE_PATH}:7"
    row = declared.rows["demo"]
    variant = replace(row.variants[0], expect=declared.expectations)
    own = replace(declared, rows={"demo": replace(row, variants=(variant,))}, expectations=())
    timed_out = Expected(TEST, Status.FAIL, expected.why)
    job = replace(make_job(CRASHED, expect=(timed_out,)), variant=variant.name)
    ((_, reason),) = ask(own, job, globs=(TEST,)).left
    assert "expect: of the row comes first" in reason


# --- the target


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    folder = tmp_path / "overlay"
    (folder / "kconfigs").mkdir(parents=True)
    return folder


def store(*jobs: JobRecord) -> str:
    run = replace(make_run(), jobs=jobs)
    save_run(run, open_default().path("runs", run.run_id))
    return run.run_id


def test_round_trip(overlay: Path) -> None:
    """What is written makes the run as expected, and is removed again when the test passes."""
    file = overlay / "ci/expectations.yaml"
    run_id = store(make_job(FAILED, series="cow"))
    shown = cowbell("-C", str(overlay), "-n", "expect", f"RUN={run_id}")
    assert (shown.returncode, file.exists()) == (0, False), shown.stderr
    assert f"+  - test: {TEST}\n" in shown.stdout
    assert "1 would be added, 0 would be removed, 0 not written" in shown.stdout
    done = cowbell("-C", str(overlay), "expect", f"RUN={run_id}")
    assert (done.returncode, "1 added, 0 removed" in done.stdout) == (0, True), done.stderr
    (written,) = load_expectations(file)
    assert (written.test, written.status, written.series) == (TEST, Status.FAIL, frozenset(["cow"]))
    assert not [one for one in load_declarations(overlay).faults.values() if one]
    expected = Expected(written.test, written.status, written.why)
    assert Judged(
        replace(make_run(), jobs=(make_job(FAILED, series="cow", expect=(expected,)),))
    ).is_as_expected
    file.write_text(f"# mine\n{file.read_text()}")
    run_id = store(make_job(GOOD, series="cow", expect=(expected,)))
    done = cowbell("-C", str(overlay), "expect", f"RUN={run_id}")
    assert (done.returncode, "0 added, 1 removed" in done.stdout) == (0, True), done.stderr
    assert file.read_text() == "# mine\nexpectations: []\n"


def test_unexpected_result_that_is_not_written_is_told(overlay: Path) -> None:
    run_id = store(make_job(replace(GOOD, stdout=""), rename(FAILED, OTHER), series="cow"))
    done = cowbell("-C", str(overlay), "expect", f"RUN={run_id}")
    assert done.returncode == 1
    assert f"not written: {TEST} on demo/cow: BROKEN says nothing about the kernel" in done.stdout
    assert [one.test for one in load_expectations(overlay / "ci/expectations.yaml")] == [OTHER]
    done = cowbell("-C", str(overlay), "expect", "RUN=nothing")
    assert (done.returncode, "there is no run nothing" in done.stderr) == (2, True)
