# SPDX-License-Identifier: GPL-2.0-or-later
"""Requests and declarations become jobs, or every wrong word is told."""

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, UsageError
from orchestrator.guest.vng import FRAGMENT
from orchestrator.kernel.prebuilt import Prebuilt
from orchestrator.pipeline import build_jobs, explain_jobs, run_jobs
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.project.condition import Condition, Version
from orchestrator.project.guesttest import SELFTEST
from orchestrator.project.matrix import Expectation, Variant
from orchestrator.result.record import JobRecord, load_run
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, MakeSeries, Mirror, QuietProgress
from tests.samples import DECLARED, FAILS, ROW, SMALL, make_test

CONFIGURED = replace(
    DECLARED,
    fragments={name: replace(DECLARED.fragments["base"], name=name) for name in ("base", "debug", FRAGMENT)},
)


def plan(request: Request) -> list[tuple[str, str, str, str]]:
    jobs = make_plan(request, DECLARED)
    return [(job.row.name, job.variant.name, job.tree.name, job.series.name) for job in jobs]


def told(request: Request, declared: Declarations = DECLARED) -> list[str]:
    with pytest.raises(ExceptionGroup) as raised:
        make_plan(request, declared)
    assert all(isinstance(error, UsageError) for error in raised.value.exceptions)
    return [str(error).partition("\n")[0] for error in raised.value.exceptions]


def test_empty_request_is_the_whole_matrix() -> None:
    assert plan(Request()) == [
        ("demo", "plain", "debian-5.10", ""),
        ("demo", "mended", "debian-5.10", "cow"),
        ("small", "only", "debian-6.1", "cow"),
    ]
    jobs = make_plan(Request(), DECLARED)
    assert [len(job.tests) for job in jobs] == [3, 3, 2]
    assert jobs[0].variant.expect == (FAILS,)


def test_overrides() -> None:
    assert plan(Request(rows=("small",))) == [("small", "only", "debian-6.1", "cow")]
    assert {job[2] for job in plan(Request(tree="debian-6.1"))} == {"debian-6.1"}
    jobs = make_plan(Request(tests=("vmsplice.*",)), DECLARED)
    assert [[test.id for test in job.tests] for job in jobs] == [["vmsplice.child"]] * 3


def test_another_architecture_is_of_every_row() -> None:
    jobs = make_plan(Request(arch="aarch64"), DECLARED)
    assert [job.row.arch for job in jobs] == ["aarch64"] * 3
    assert [job.name for job in jobs] == [job.name for job in make_plan(Request(), DECLARED)]


def test_another_config_is_of_every_row() -> None:
    jobs = make_plan(Request(config=("base", "debug")), CONFIGURED)
    assert [job.row.kconfig for job in jobs] == [("base", "debug")] * 3


def test_a_kernel_for_vng_has_its_fragment_once() -> None:
    jobs = make_plan(Request(boot="vng"), CONFIGURED)
    assert [(job.boot, job.row.kconfig) for job in jobs] == [("vng", ("base", FRAGMENT))] * 3
    jobs = make_plan(Request(boot="vng", config=(FRAGMENT, "base")), CONFIGURED)
    assert {job.row.kconfig for job in jobs} == {(FRAGMENT, "base")}
    assert {(job.boot, job.row.kconfig) for job in make_plan(Request(), CONFIGURED)} == {("qemu", ("base",))}


def test_without_a_word_a_kernel_that_is_made_for_vng_is_booted_by_it() -> None:
    """That is how ``shell`` asks; a request for QEMU stays one."""
    rows = {"demo": ROW, "small": replace(SMALL, kconfig=("base", FRAGMENT))}
    declared = replace(CONFIGURED, rows=rows)
    assert [job.boot for job in make_plan(Request(boot=""), declared)] == ["qemu", "qemu", "vng"]
    assert {job.boot for job in make_plan(Request(boot="qemu"), declared)} == {"qemu"}


def test_no_series_is_the_plain_kernel() -> None:
    assert plan(Request(series=("none",))) == [
        ("demo", "plain", "debian-5.10", ""),
        ("small", "plain", "debian-6.1", ""),
    ]


def test_series_is_compared_with_the_plain_kernel() -> None:
    assert plan(Request(rows=("demo",), series=("other", "cow"))) == [
        ("demo", "plain", "debian-5.10", ""),
        ("demo", "other", "debian-5.10", "other"),
        ("demo", "mended", "debian-5.10", "cow"),
    ]
    plain, other, _ = make_plan(Request(rows=("demo",), series=("other", "cow")), DECLARED)
    assert plain.variant.expect == (FAILS,)
    assert other.variant.expect == ()


def test_the_same_word_twice_is_one_job() -> None:
    assert plan(Request(rows=("small", "small"))) == plan(Request(rows=("small",)))
    assert plan(Request(rows=("demo",), series=("cow", "cow"))) == plan(
        Request(rows=("demo",), series=("cow",))
    )


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (Request(rows=("smal",)), "ROW: there is no row smal; did you mean small?"),
        (Request(tree="debian-5.1"), "KERNEL: there is no kernel debian-5.1; did you mean debian-5.10?"),
        (Request(arch="aarch65"), "ARCH: there is no architecture aarch65; did you mean aarch64?"),
        (Request(config=("bas",)), "CONFIG: there is no fragment bas; did you mean base?"),
        (Request(tests=("vmsplice.childs",)), "TESTS: no test matches 'vmsplice.childs'"),
    ],
)
def test_wrong_word(asked: Request, error: str) -> None:
    assert told(asked) == [error]


def test_every_wrong_word_at_once() -> None:
    assert told(
        Request(rows=("demmo", "small"), tree="debian-6.2", series=("cwo",), tests=("odirect.raed",))
    ) == [
        "ROW: there is no row demmo; did you mean demo?",
        "KERNEL: there is no kernel debian-6.2; did you mean debian-6.1?",
        "SERIES: there is no series cwo; did you mean cow?",
        "TESTS: no test matches 'odirect.raed'",
    ]


def test_wrong_words_of_the_matrix_name_the_row() -> None:
    row = replace(ROW, tree="debian-9", kconfig=("base", "kasn"), variants=(Variant("a", "caw", ()),))
    errors = told(Request(), replace(DECLARED, rows={"demo": row, "again": replace(row, name="again")}))
    for name in ("demo", "again"):
        at_row = [error for error in errors if error.startswith(f"matrix.yaml: row {name}: ")]
        assert len([error for error in at_row if "kernel debian-9" in error]) == 1
        assert len([error for error in at_row if "fragment kasn" in error]) == 1
        assert len([error for error in at_row if "series caw" in error]) == 1


def test_each_wrong_series_of_a_row_is_told() -> None:
    row = replace(ROW, variants=(Variant("a", "caw", ()), Variant("b", "oter", ())))
    assert told(Request(), replace(DECLARED, rows={"demo": row})) == [
        "matrix.yaml: row demo: there is no series caw; did you mean cow?",
        "matrix.yaml: row demo: there is no series oter; did you mean other?",
    ]


def test_wrong_glob_of_the_matrix_names_the_row() -> None:
    row = replace(ROW, tests=("frob.*",))
    (error,) = told(Request(), replace(DECLARED, rows={"demo": row}))
    assert error == "matrix.yaml: row demo: no test matches 'frob.*'"


def test_what_is_expected_in_every_row_comes_after_the_rows_own() -> None:
    """By series, and of the tests of the job alone."""
    every = tuple(
        Expectation(test, Status.FAIL, "known", Condition(), series=frozenset(series))
        for test, series in (("odirect.read", [""]), ("odirect.write", ["", "cow"]), ("vmsplice.*", ["cow"]))
    )
    declared = replace(DECLARED, expectations=every)
    plain, mended, small = make_plan(Request(), declared)
    assert [e.test for e in plain.variant.expect] == ["odirect.*", "odirect.read", "odirect.write"]
    assert [e.test for e in mended.variant.expect] == ["odirect.write", "vmsplice.*"]
    assert [e.test for e in small.variant.expect] == ["odirect.write"]
    request = Request(rows=("demo",), series=("other",), tests=("vmsplice.child",))
    plain, other = make_plan(request, declared)
    assert [e.test for e in plain.variant.expect] == ["odirect.*"]
    assert other.variant.expect == ()
    # also of the kernel without series that its row does not have
    (plain,) = make_plan(Request(rows=("small",), series=("none",)), declared)
    assert [e.test for e in plain.variant.expect] == ["odirect.read", "odirect.write"]


def test_what_is_expected_of_a_selftest_s_results_is_of_the_selftest() -> None:
    """Their names are not declared, so they go by the name of the test."""
    selftest = replace(make_test("kselftest/mm/cow"), language=SELFTEST)
    every = tuple(
        Expectation(test, Status.FAIL, "known", Condition(), series=frozenset([""]))
        for test in ("kselftest/mm/cow/hugetlb", "kselftest/mm/cow2/x", "odirect.read/x", "odirect.read")
    )
    row = replace(ROW, variants=(Variant("plain", "", ()),))
    declared = replace(
        DECLARED,
        rows={"demo": row},
        fragments={**DECLARED.fragments, "kselftest": DECLARED.fragments["base"]},
        tests=(make_test("odirect.read"), selftest),
        expectations=every,
    )
    (job,) = make_plan(Request(), replace(declared, rows={"demo": replace(row, tests=("*", "*/*/*"))}))
    assert [test.id for test in job.tests] == ["odirect.read", "kselftest/mm/cow"]
    assert [e.test for e in job.variant.expect] == ["kselftest/mm/cow/hugetlb", "odirect.read"]


def make_built(*names: str) -> dict[str, Prebuilt]:
    """Kernels by ROW/VARIANT, or ROW/VARIANT/SERIES."""
    found = {}
    for name in names:
        row, variant, series = (*name.split("/"), "")[:3]
        base = Source("s", f"tree of {row}", series, Version.parse("5.10"), "b", "c", "t")
        found[f"{row}/{variant}"] = Prebuilt(row, variant, series, base)
    return found


def test_prebuilt_kernels_are_the_jobs_of_their_rows() -> None:
    built = make_built(
        "small/only/cow",
        "small/plain",
        "demo/zoom/other",
        "demo/mended/cow",
        "demo/alone/other",
        "demo/plain",
    )
    jobs = make_plan(Request(boot="vng"), replace(CONFIGURED, built=built))
    # the one without series first, also where the row has none; then the row's, then the others by name
    assert [job.name for job in jobs] == [
        "demo/plain", "demo/mended", "demo/alone", "demo/zoom", "small/plain", "small/only",
    ]  # fmt: skip
    assert [job.built for job in jobs] == [built[job.name] for job in jobs]
    assert [job.series.name for job in jobs] == ["", "cow", "other", "other", "", "cow"]
    assert [job.variant.series for job in jobs] == ["", "cow", "other", "other", "", "cow"]
    assert [job.tree.name for job in jobs] == ["tree of demo"] * 4 + ["tree of small"] * 2
    assert [len(job.tests) for job in jobs] == [3, 3, 3, 3, 2, 2]
    assert {job.boot for job in jobs} == {"vng"}
    assert jobs[0].variant.expect == (FAILS,)


def test_selftests_need_the_source_of_a_prebuilt_kernel() -> None:
    selftest = replace(make_test("kselftest/mm/cow"), language=SELFTEST)
    declared = replace(
        DECLARED,
        rows={"demo": replace(ROW, tests=("*", "*/*/*"))},
        fragments={**DECLARED.fragments, "kselftest": DECLARED.fragments["base"]},
        tests=(make_test("odirect.read"), selftest),
        built=make_built("demo/plain"),
    )
    assert told(Request(), declared) == [
        "BUILT: kselftest/mm/cow is built from the kernel's source, and only a kernel is here"
    ]


def test_rows_without_a_prebuilt_kernel_are_an_error_of_the_build() -> None:
    declared = replace(DECLARED, built=make_built("demo/plain", "demo/mended/cow"))
    rows = {"small": SMALL, "demo": ROW, "last": replace(SMALL, name="last")}
    with pytest.raises(InfraError) as raised:
        make_plan(Request(), replace(declared, rows=rows))
    assert raised.value.what == "there is no kernel of row small, last, nor a reason why"
    assert raised.value.where == "BUILT"
    assert raised.value.hint == "there are: demo/plain, demo/mended"


@pytest.fixture
def job(make_series: MakeSeries) -> Job:
    series = make_series("young", {"mm/swap.c": ("+ 1", "+ 2")}, when="kernel>=5.15 kernel<5.16")
    return Job(
        replace(ROW, tree=FAKE_TREE.name), Variant("young", "young", ()), FAKE_TREE, series, DECLARED.tests
    )


def run_once(job: Job, place: Workspace) -> tuple[tuple[JobRecord, ...], bool]:
    run_id, is_new = run_jobs([job], DECLARED, place, "tcg", "cowbell test")
    return load_run(place.store.path("runs", run_id) / "record.json").jobs, is_new


def test_series_for_another_kernel_is_left_out_with_the_reason(
    job: Job, mirror: Mirror, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    """Only the fetched tree tells its version, so the plan has the job and the way through leaves it out."""
    place = Workspace(tmp_path, store, progress)
    reason = "series young is for kernel>=5.15 kernel<5.16, fake-5.10 is 5.10.226"
    (record,), is_new = run_once(job, place)
    assert (record.left_out, record.results, record.failure) == (reason, (), None)
    assert record.version == "5.10.226"
    assert is_new
    assert run_once(job, place) == ((record,), False)
    fetched, step = explain_jobs([job], DECLARED, place, "tcg")
    assert (fetched.stage, fetched.why) == ("source", "")
    assert (step.stage, step.subject) == ("plan", f"demo/young: left out, {reason}")
    assert list(build_jobs([job], DECLARED, place)) == []
    assert progress.notes[-1] == f"left out: demo/young: {reason}"
    assert not (store.root / "kernels").exists()


def test_expectation_for_another_kernel_is_not_expected(
    job: Job, mirror: Mirror, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    old = replace(FAILS, when=Condition.parse("kernel<5.0"))
    here = replace(FAILS, test="vmsplice.*", when=Condition.parse("kernel<5.19 arch=x86_64"))
    job = replace(job, variant=replace(job.variant, expect=(old, here)))
    fetch_tree(FAKE_TREE, store, progress)
    (record,), _ = run_once(job, Workspace(tmp_path, store, progress))
    assert [expected.test for expected in record.expect] == ["vmsplice.*"]
