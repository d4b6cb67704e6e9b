# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of a run that has every kind of verdict, with guest output that means harm."""

import datetime
import json
import re
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
from lxml import etree
from rich.console import Console

from orchestrator.history.entry import list_outcomes
from orchestrator.parse.ktap import parse_ktap
from orchestrator.report import folder, junit, page, report
from orchestrator.report.chart import list_bars, render_timeline
from orchestrator.report.folder import point_latest
from orchestrator.report.report import Judged, join_runs
from orchestrator.result import record
from orchestrator.result.record import Expected, Failure, RunRecord, load_run, save_run
from orchestrator.status import Status
from orchestrator.store.store import Store, make_folder, open_default
from tests.conftest import cowbell
from tests.records import make_log, make_run
from tests.samples import FAILED, GOOD, PAIR, PAIRED, SUBTESTS
from tests.schema import read_product


@pytest.fixture
def judged() -> Judged:
    return Judged(make_run())


def render_text(judged: Judged, width: int = 160, *, only_bad: bool = False) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        for title, table in report.make_tables(judged, width, only_bad=only_bad):
            console.print(title)
            console.print(table)
    return captured.get()


def test_table_tells_what_flipped(judged: Judged) -> None:
    line = next(line for line in render_text(judged).splitlines() if "odirect.rd-mprotect" in line)
    assert line.split("  ")[0].strip() == "odirect.rd-mprotect"
    assert "FAIL (expected)" in line
    assert line.rstrip().endswith("FAIL -> PASS")


def test_outputs_are_parsed_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each console and each KTAP stream, however many verdicts and reports are made of them."""
    run = make_run()
    # other tests have parsed the results already
    own = [replace(job, results=tuple(replace(result) for result in job.results)) for job in run.jobs]
    judged = Judged(replace(run, jobs=tuple(own)))
    results = [result for job in own for result in job.results]
    parsed: Counter[str] = Counter()

    def count(module: ModuleType, name: str) -> None:
        parse = getattr(module, name)

        def count_call(text: str, **options: bool) -> object:
            parsed[text] += 1
            return parse(text, **options)

        monkeypatch.setattr(module, name, count_call)

    count(record, "parse_console")
    count(record, "parse_ktap")
    count(page, "parse_console")
    make_folder(store.path("runs", judged.run.run_id))
    folder.write_reports(judged, store, print, is_new=True)
    folder.write_bundles(judged, store)
    assert list(report.list_explanations(judged))
    assert list(list_outcomes(judged.run))
    texts = Counter(text for result in results for text in (result.console, result.stdout, result.said))
    assert parsed.keys() >= {result.console for result in results}
    assert all(number <= texts[text] for text, number in parsed.items()), parsed - texts


def test_what_took_longest(judged: Judged) -> None:
    """It is told of several rows: the jobs with their longest test, the longest first."""
    assert not judged.longest
    slow = replace(GOOD, duration_s=61.0)
    jobs = judged.run.jobs
    jobs = (jobs[0], replace(jobs[1], row="night", results=(slow, replace(slow, trial=2, duration_s=2.0))))
    first, second = Judged(replace(judged.run, jobs=jobs)).longest.split("), ")
    assert first == f"night/cow 63 s ({GOOD.test} 63 s"
    assert second.startswith("demo/plain ")


def test_timeline_has_each_step_where_it_was(judged: Judged) -> None:
    began = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC)
    late = replace(GOOD, started="2024-05-01T10:01:30+00:00", duration_s=10.0)
    evil = replace(FAILED, test="x.<evil>", started="2024-05-01T10:01:00+00:00", duration_s=20.0)
    job = replace(judged.run.jobs[1], build_id="b", results=(evil, late))
    bars = list_bars(replace(judged.run, jobs=(job, judged.run.jobs[0])), {"b": (began, 50.0)})
    assert [(bar.stage, bar.seconds) for bar in bars] == [("build", 50.0), ("run", 20.0), ("run", 10.0)]
    root = ET.fromstring(render_timeline(bars))
    places = [
        (float(one.attrib["x"]), float(one.attrib["width"])) for one in root.iter() if "rect" in one.tag
    ]
    (x, width), (x1, width1), (x2, width2) = places
    assert (x1 - x) / width == pytest.approx(60 / 50, rel=0.01)
    assert (x2 - x) / width == pytest.approx(90 / 50, rel=0.01)
    assert x2 + width2 == pytest.approx(990, abs=1), "it fills the picture"
    assert render_timeline([]) == ""


def test_summary_is_not_as_expected(judged: Judged) -> None:
    assert not judged.is_as_expected
    assert "6 verdicts" in judged.summary
    assert "NOT as expected" in judged.summary
    assert not Judged(replace(judged.run, jobs=())).is_as_expected


def test_json_has_the_status_of_each_verdict(judged: Judged) -> None:
    told = json.loads(report.render_json(judged))
    assert told["schema"] == report.SCHEMA
    read_product(report.render_json(judged))
    assert [v["status"] for v in told["jobs"][0]["verdicts"]] == [
        "xfail",
        "fail",
        "timeout",
        "broken",
        "broken",
    ]


def test_ktap_is_read_by_our_own_parser(judged: Judged) -> None:
    stream = parse_ktap(report.render_ktap(judged))
    assert stream.is_complete, stream.problems
    assert [result.ok for result in stream.results] == [False, True]
    assert [r.status for r in stream.results[0].subtests] == [
        Status.XFAIL,
        Status.FAIL,
        Status.TIMEOUT,
        Status.BROKEN,
        Status.BROKEN,
    ]


def test_junit_survives_any_guest_output(judged: Judged) -> None:
    suites = ET.fromstring(junit.render_junit(judged))
    plain = suites[0]
    assert [plain.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["5", "2", "2", "1"]
    assert {child.tag for test in plain for child in test} == {"failure", "error", "skipped"}
    assert (plain[1][0].text or "").endswith(
        "repeat: cowbell -B test ROW=demo KERNEL=debian-5.10 SERIES=none TESTS=x.evil"
    )


def test_junit_times_of_a_suite_add_up(judged: Judged) -> None:
    """Only a test as a whole is timed, so its subtests share the time."""
    pair = replace(PAIRED, stdout=PAIR, duration_s=4.0)
    tests = {**SUBTESTS, GOOD.test: (GOOD.test,)}
    job = replace(judged.run.jobs[1], tests=tests, results=(pair, replace(GOOD, duration_s=0.6)))
    (suite,) = ET.fromstring(junit.render_junit(Judged(replace(judged.run, jobs=(job,)))))
    times = {case.get("name"): float(case.get("time") or 0) for case in suite}
    assert times == {"basic-cow[state=small]": 4.0, "basic-cow[state=thp]": 0.0, "rd-mprotect": 0.6}
    assert float(suite.get("time") or 0) == sum(times.values())


def make_wide_run(kernels: int) -> Judged:
    """The names, the verdicts and the kernels with the longest texts."""
    name = "iouring.fixed-softdirty[page=thp,state=mprotect]"
    failed, good = (
        replace(
            one,
            test="iouring.fixed-softdirty",
            stdout=one.stdout.replace(GOOD.test, name),
            console=make_log("iouring.fixed-softdirty"),
        )
        for one in (FAILED, GOOD)
    )
    plain = replace(
        make_run().jobs[0],
        tests={good.test: (name,)},
        expect=(Expected("*", Status.FAIL, "x"),),
        results=(failed,),
    )
    cow = replace(plain, variant="cow", series="cow", results=(good,))
    others = [replace(plain, variant=f"other-{number}") for number in range(kernels - 2)]
    return Judged(replace(make_run(), jobs=(plain, *others, cow)))


@pytest.mark.parametrize("kernels", [2, 3, 9])
@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_width_cuts_a_verdict(kernels: int, width: int) -> None:
    text = render_text(make_wide_run(kernels), width)
    assert all(len(line.rstrip()) <= width for line in text.splitlines())
    assert text.count("FAIL (expected)") == kernels - 1
    assert text.count("PASS (expected to fail)") == 1
    assert "FAIL -> PASS" in text
    assert "\N{HORIZONTAL ELLIPSIS}" not in text
    assert "iouring.fixed-softdirty[page=thp,state=mprotect]" in re.sub(r"(?<=softdirty)\s.*\n\s*", "", text)


def test_failed_shows_what_is_unexpected_alone(judged: Judged) -> None:
    text = render_text(judged, only_bad=True)
    assert "x.evil" in text
    assert "odirect.rd-mprotect" not in text
    titles = [title for title, _ in report.list_explanations(judged, only_bad=True)]
    assert [title.split()[0] for title in titles] == ["FAIL", "TIMEOUT", "BROKEN", "BROKEN"]
    plain, cow = json.loads(report.render_json(judged, only_bad=True))["jobs"]
    assert ([v["status"] for v in plain["verdicts"]], cow["verdicts"]) == (
        ["fail", "timeout", "broken", "broken"], [],
    )  # fmt: skip


def store_last_run(run: RunRecord) -> None:
    store = open_default()
    save_run(run, store.path("runs", run.run_id))
    point_latest(store, run.run_id)


def test_failed_1_repeats_what_was_unexpected_in_the_last_run(tmp_path: Path) -> None:
    names = ("odirect.rd-control", "odirect.rd-mprotect", "vmsplice.child-small")
    job = replace(make_run().jobs[0], expect=(), tests={name: (name,) for name in names})
    results = tuple(
        replace(
            one,
            test=name,
            stdout=one.stdout.replace(GOOD.test, name),
            console=make_log(name),
        )
        for one, name in zip((GOOD, FAILED, FAILED), names, strict=True)
    )
    command = f"cowbell -k test ROW=all TESTS=* KERNEL=debian-6.1 ACCEL=tcg DIR={tmp_path}/x"
    run = replace(make_run(), command=command, jobs=(replace(job, results=results),))
    store_last_run(run)
    repeated = "cowbell: cowbell -B KERNEL=debian-6.1 ACCEL=tcg ROW=demo TESTS="
    done = cowbell("-n", "test", "FAILED=1")
    assert done.returncode == 0, done.stderr
    assert f"{repeated}odirect.rd-mprotect,vmsplice.child-small -n test\n" in done.stderr
    assert "2 test(s), asked for again (-B)" in done.stdout
    assert "debian-6.1" in done.stdout
    done = cowbell("-n", "FAILED=1", "TESTS=odirect.*", "KERNEL=debian-5.10")
    assert f"{repeated}odirect.rd-mprotect -n KERNEL=debian-5.10\n" in done.stderr
    assert "debian-6.1" not in done.stdout
    for words, told in (
        (["TESTS=fork.*"], "no such result of the last run, demo-0123456789ab, was unexpected"),
        (["build", "test"], "FAILED=1: goes with test alone"),
    ):
        done = cowbell("-n", "FAILED=1", *words)
        assert (done.returncode, told in done.stderr) == (2, True), done.stderr
    store_last_run(replace(run, jobs=(replace(job, results=results[:1], tests={names[0]: (names[0],)}),)))
    done = cowbell("test", "FAILED=1")
    assert done.returncode == 2
    assert "nothing to repeat: no result of the last run, demo-0123456789ab, was unexpected" in done.stderr


def test_html_escapes_guest_output(judged: Judged) -> None:
    text = page.render_html(judged)
    assert "<script>document.title" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_junit_is_what_gitlab_reads(judged: Judged) -> None:
    schema = etree.XMLSchema(etree.parse(Path(__file__).with_name("junit.xsd")))
    later = replace(judged.run, run_id="demo-ba9876543210", jobs=judged.run.jobs[:1])
    for shown in (judged, join_runs([judged.run, later])):
        schema.assertValid(etree.fromstring(junit.render_junit(shown).encode()))
    for wrong in ('tests="5"', 'time="0.500"', 'message="'):
        broken = junit.render_junit(judged).replace(wrong, wrong.replace("=", '="no" x=', 1), 1)
        assert not schema.validate(etree.fromstring(broken.encode()))


def test_several_runs_are_one_report(judged: Judged) -> None:
    later = replace(judged.run, run_id="demo-ba9876543210", started="2024-01-16T12:00:00+00:00")
    joined = join_runs([judged.run, later])
    assert joined.run.started == later.started
    assert all(f"run: {run_id}" in render_text(joined) for run_id in (judged.run.run_id, later.run_id))
    assert len(joined.names) == len(set(joined.names)) == 4
    assert [group.row for group in joined.groups] == ["demo", "demo"]
    assert render_text(joined).count("FAIL -> PASS") == 2
    read_product(report.render_json(joined))
    assert len(parse_ktap(report.render_ktap(joined)).results) == 4
    assert join_runs([judged.run]) == judged


def test_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    run = replace(make_run(), jobs=make_run().jobs[1:])
    assert load_run(save_run(run, tmp_path)) == run


def test_a_job_that_failed_is_explained_once() -> None:
    failure = Failure("build", "the kernel does not build", "mm/memory.c:7", "error: x", "/log")
    job = replace(make_run().jobs[0], failure=failure, results=())
    told = list(report.list_explanations(Judged(replace(make_run(), jobs=(job,)))))
    ((title, text),) = told
    assert title == "build failed on plain"
    assert text == "mm/memory.c:7: the kernel does not build\nerror: x\nlog: /log"


def test_all_files_are_made_again_without_a_kernel(tmp_path: Path) -> None:
    runs = tmp_path / "store/runs"
    first = make_run()
    ids = [first.run_id, "demo-ba9876543210"]
    for run_id in ids:
        save_run(replace(first, run_id=run_id), runs / run_id)
    done = cowbell("report", f"RUN={','.join(ids)}", "--json")
    assert done.returncode == 1, done.stderr
    product = read_product(done.stdout)
    (folder,) = runs.glob("joined-*")
    assert product["run_id"] == folder.name
    assert {path.name for path in folder.iterdir()} == {
        "report.json", "report.ktap", "junit.xml", "report.html", *ids,
    }  # fmt: skip
    # what the page leads to is there, also in a copy
    assert cowbell("report", f"RUN={','.join(ids)}", f"DIR={tmp_path}/public").returncode == 1
    for path in (folder / "report.html", tmp_path / "public/index.html"):
        linked = {path.parent / link for link in re.findall(r'href="([^"#:]+)"', path.read_text())}
        assert linked == {one for run_id in ids for one in (path.parent / run_id / "evidence").iterdir()}
        assert len(linked) == 8
    done = cowbell("report", "RUN=demo-0123456789a,nothing,demo-ba9876543210")
    assert done.returncode == 2
    assert "did you mean demo-0123456789ab?" in done.stderr
    assert "there is no run nothing" in done.stderr
