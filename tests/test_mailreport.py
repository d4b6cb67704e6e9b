# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports of runs as a mail and for KCIDB, and FORMAT= of the target report."""

import json
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from kcidb_io.schema import V5_3

from orchestrator import pipeline
from orchestrator.cli import main as command
from orchestrator.errors import UsageError
from orchestrator.history.entry import list_outcomes
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import make_record
from orchestrator.plan.steps import Goal
from orchestrator.plan.workspace import Workspace
from orchestrator.report.kcidb import make_path, render_kcidb
from orchestrator.report.mail import NO_TESTER, WIDTH, fold_command, render_mail
from orchestrator.report.report import Judged
from orchestrator.result import statistics
from orchestrator.result.record import Failure, JobRecord, RunRecord, TrialResult, save_run
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.lore import Message, fetch_series
from orchestrator.store.store import open_default
from tests.conftest import QuietProgress, cowbell
from tests.gitserver import run_git
from tests.loreserver import make_mail, make_series, serve
from tests.records import EVIL, make_log, make_run
from tests.samples import FAILED, GOOD

GOOD_TEST = GOOD.test
TESTER = "T Ester <t@example.org>"
BAD = "1 verdict(s) are not as expected"
VARIANTS = [f"a-long-name-of-a-variant-{number}" for number in range(4)]
COMMITS = ("11" * 20, "22" * 20)


def make_job(
    variant: str,
    *results: TrialResult,
    series: str = "",
    version: str = "6.1.0",
    tree: str = "debian-6.1",
    origin: str = "",
    base: str = "",
) -> JobRecord:
    return replace(
        make_run().jobs[1],
        variant=variant,
        series=series,
        tests={result.test: (result.test,) for result in results},
        results=results,
        version=version,
        tree=tree,
        origin=origin,
        base=base,
    )


def rename(result: TrialResult, test: str) -> TrialResult:
    return replace(result, test=test, stdout=result.stdout.replace(GOOD_TEST, test), console=make_log(test))


def judge(*jobs: JobRecord, command: str = "cowbell test ROW=demo") -> Judged:
    return Judged(replace(make_run(), jobs=jobs, command=command))


def test_mail_of_a_series_that_fixes_a_test() -> None:
    plain = make_job("plain", FAILED, rename(GOOD, "x.same"))
    fixed = make_job("cow", GOOD, rename(GOOD, "x.same"), series="<v2-0@x.org>")
    plain = replace(plain, expect=make_run().jobs[0].expect)
    text = render_mail(judge(plain, fixed), tester=TESTER)
    assert "\nIn-Reply-To: <v2-0@x.org>\n" in text
    assert re.search(r"\nodirect.rd-mprotect +FAIL \(expected\) +PASS\n", text)
    assert "The other 1 subtests are as expected" in text
    assert "x.same" not in text
    assert text.endswith(f"\nTested-by: {TESTER}\n")
    assert "#regzbot" not in text
    assert f"\nTested-by: {NO_TESTER}\n" in render_mail(judge(plain, fixed))
    assert "'SERIES=<v2-0@x.org>'" in text


@pytest.mark.parametrize(
    ("jobs", "why"),
    [
        ((make_job("plain", GOOD), make_job("cow", FAILED, series="cow")), BAD),
        ((make_job("cow", replace(GOOD, stdout=""), series="cow"),), BAD),
        ((replace(make_job("cow", GOOD, series="cow"), results=()),), BAD),
        ((replace(make_job("cow", GOOD, series="cow"), left_out="kernel<5.0"),), "kernel<5.0"),
        (
            (replace(make_job("cow", series="cow"), failure=Failure("build", "no", "", "", "")),),
            "build failed",
        ),
        ((replace(make_job("cow", GOOD, series="cow"), tests={}, results=()),), "no test passed"),
        (
            (
                make_job("plain", GOOD),
                replace(make_job("cow", FAILED, series="cow"), expect=make_run().jobs[0].expect),
            ),
            "1 test(s) fail only with a series",
        ),
    ],
)  # fmt: skip
def test_no_tester_vouches_without_evidence(jobs: tuple[JobRecord, ...], why: str) -> None:
    text = render_mail(judge(*jobs), tester=TESTER)
    assert "\nTested-by:" not in text
    assert f"No Tested-by is proposed for cow: {why}." in " ".join(text.split())


def test_regression_between_trees() -> None:
    good = make_job("old", GOOD, tree="stable:v6.1", base=COMMITS[0], origin="https://example.org/linux")
    bad = replace(
        make_job("new", FAILED, version="6.2.0", tree="stable:v6.2", base=COMMITS[1]), origin=good.origin
    )
    text = render_mail(judge(good, bad), tester=TESTER)
    assert f"\n#regzbot introduced: {COMMITS[0][:12]}..{COMMITS[1][:12]}\n" in text
    assert "\n#regzbot title: odirect.rd-mprotect fails (FAIL)" in text
    assert "\nCc: regressions@lists.linux.dev\nSubject: [REGRESSION] odirect.rd-mprotect on" in text
    assert "Tested-by" not in text
    packaged = [replace(job, origin="linux 6.1", tree=f"debian-{job.version}") for job in (good, bad)]
    assert "\n#regzbot introduced: v6.1..v6.2\n" in render_mail(judge(*packaged))


def test_regression_against_the_history() -> None:
    before = replace(make_run(), jobs=(make_job("plain", GOOD, version="6.1.5"),))
    newer = replace(make_run(), jobs=(make_job("plain", GOOD, version="6.3.0"),))
    entries = [*list_outcomes(before), *list_outcomes(newer)]
    bad = make_job("plain", FAILED, version="6.1.9")
    assert "\n#regzbot introduced: v6.1.5..v6.1.9\n" in render_mail(judge(bad), entries)
    for others in ([], list_outcomes(newer), [replace(one, row="other") for one in entries]):
        assert "#regzbot" not in render_mail(judge(bad), list(others))
    broken = make_job("plain", replace(GOOD, stdout=""), version="6.1.9")
    assert "#regzbot" not in render_mail(judge(broken), entries)


def test_rates_have_their_bounds() -> None:
    results = [
        replace(one, stdout=one.stdout.replace("# the", f"# hits={hits} tries=400 the"))
        for one, hits in ((FAILED, 12), (GOOD, 0))
    ]
    jobs = [
        replace(make_job(name, one, series=series), races=(GOOD_TEST,))
        for name, series, one in zip(("plain", "cow"), ("", "cow"), results, strict=True)
    ]
    judged = judge(*jobs)
    rates = [verdict.rate for verdict in judged.verdicts]
    text = render_mail(judged)
    for rate, name in zip(rates, ("plain", "cow"), strict=True):
        assert rate
        assert f"\n  {name}: {statistics.describe(rate).partition(' with ')[0]}\n" in text
    assert "\n  difference: " in text


def make_hostile_run() -> Judged:
    long = "iouring.fixed-softdirty-" + "x" * 40
    evil = replace(
        FAILED,
        console=make_log(GOOD_TEST, f"{EVIL}\nTested-by: nobody\n#regzbot introduced: x\n" + "y" * 300),
    )
    evil = replace(
        evil,
        stdout=f"KTAP version 1\n1..1\n# Tested-by: guest <g@x.org>\n# {'z' * 200}\nnot ok 1 {GOOD_TEST}\n",
    )
    jobs = [
        make_job(
            VARIANTS[number], evil, rename(FAILED if number else GOOD, long),
            tree=f"tree:{'v' * 90}", origin="https://example.org/" + "o" * 90, base=COMMITS[0],
            series=f"/a/folder with spaces/{'s' * 80}.mbox" if number else "",
        )
        for number in range(4)
    ]  # fmt: skip
    return judge(*jobs, command=f"cowbell test ROW=demo CONFIG+='{'C' * 100}=y' APPEND+=\"it's\"")


@pytest.mark.parametrize("judged", [Judged(make_run()), make_hostile_run()], ids=["kinds", "hostile"])
def test_lines_are_short_and_are_ours(judged: Judged) -> None:
    text = render_mail(judged, tester=TESTER)
    assert text.isascii() or "\ufffd" in text
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert not re.search(r"^(?:Tested-by: (?!T Ester)|#regzbot introduced: x)", text, re.M)
    assert all(line.isprintable() for line in text.splitlines())
    # as b4 reads them
    found = re.findall(r"^\s*(\w\S+):\s+(\S.*)", text.partition("\n\n")[2], re.M)
    assert {text for name, text in found if name.endswith("-by")} <= {TESTER, NO_TESTER}


@pytest.mark.parametrize(
    "words",
    [
        ["cowbell", "test", "ROW=demo"],
        [
            "cowbell",
            "-B",
            "test",
            f"KERNEL=/{'long/' * 40}",
            "APPEND+=it's a 'b'",
            "SERIES=<a@x.org>",
            "x" * 300,
        ],
        ["cowbell", *(f"A{number}={'b' * number}" for number in range(1, 80))],
        ["cowbell", "'" * 90 + " \\ $x"],
    ],
)
def test_folded_command_is_the_command(words: list[str]) -> None:
    """A shell reads the same words, after the line is pasted."""
    text = fold_command(shlex.join(words))
    assert max(map(len, text.splitlines())) <= WIDTH + 150 * ("'" in "".join(words[1:2]))
    shown = subprocess.run(
        ["sh", "-c", f"cowbell() {{ printf '%s\\0' cowbell \"$@\"; }}\n{text}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.split("\0")[:-1] == words


@pytest.mark.parametrize("judged", [Judged(make_run()), make_hostile_run()], ids=["kinds", "hostile"])
def test_kcidb_takes_it(judged: Judged) -> None:
    told = json.loads(render_kcidb(judged, "cowbell"))
    assert V5_3.is_valid_exactly(told)
    assert V5_3.count(told) == sum(len(told[name]) for name in ("checkouts", "builds", "tests"))
    assert {test["build_id"] for test in told["tests"]} <= {build["id"] for build in told["builds"]}
    assert {build["checkout_id"] for build in told["builds"]} <= {one["id"] for one in told["checkouts"]}
    for kind in ("checkouts", "builds", "tests"):
        ids = [one["id"] for one in told[kind]]
        assert len(set(ids)) == len(ids)


def test_kcidb_says_what_was_observed() -> None:
    told = json.loads(render_kcidb(Judged(make_run()), "mine"))
    found = {(test["path"], test["build_id"]): test["status"] for test in told["tests"]}
    assert sorted(found.values()) == ["ERROR", "FAIL", "FAIL", "FAIL", "MISS", "PASS", "PASS", "PASS"]
    (expected,) = [test for test in told["tests"] if test.get("misc", {}).get("verdict") == "xfail"]
    assert (expected["status"], expected["path"]) == ("FAIL", "cowbell.odirect.rd-mprotect")
    git = make_job("cow", GOOD, series="<a@x.org>", base=COMMITS[0], origin="https://example.org/linux.git")
    (checkout,) = json.loads(render_kcidb(judge(git), "mine"))["checkouts"]
    assert (checkout["git_commit_hash"], checkout["message_id"]) == (COMMITS[0], "a@x.org")
    assert checkout["git_repository_url"] == "https://example.org/linux.git"
    for stage, counts in (("source", (1, 0, 0)), ("build", (1, 1, 0)), ("boot", (1, 1, 2))):
        failed = replace(
            git, results=(), build_id="b" * (stage == "boot"), failure=Failure(stage, "no", "", "", "")
        )
        told = json.loads(render_kcidb(judge(failed), "mine"))
        assert tuple(len(told[name]) for name in ("checkouts", "builds", "tests")) == counts
        assert told["checkouts"][0]["valid"] == (stage != "source")
    assert [test["status"] for test in told["tests"]] == ["FAIL", "MISS"]


def test_record_that_kcidb_refuses() -> None:
    with pytest.raises(UsageError, match="cannot be a KCIDB report: checkouts.0.start_time"):
        render_kcidb(Judged(replace(make_run(), started="yesterday")), "cowbell")


def test_paths_of_tests() -> None:
    assert (
        make_path("iouring.fixed-fork[page=thp,how=race]") == "cowbell.iouring.fixed-fork.page_thp_how_race"
    )
    assert make_path("mm/cow: a/b.c") == "cowbell.mm.cow_a.b.c"


@pytest.fixture
def run(own_home: None) -> RunRecord:
    found = make_run()
    save_run(found, open_default().path("runs", found.run_id))
    return found


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("mail", "To: "), ("ktap", "KTAP version 1\n"), ("junit", "<?xml"), ("json", '{\n "schema": "'),
        ("html", "<!"), ("kcidb", '{\n "version": {'), ("text", "demo: x86_64"),
    ],
)  # fmt: skip
def test_formats(name: str, start: str, run: RunRecord) -> None:
    done = cowbell("report", f"FORMAT={name}", f"RUN={run.run_id}")
    assert done.returncode == 1, done.stderr
    assert done.stdout.startswith(start)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["FORMAT=mial"],
            "expected text, mail, ktap, junit, json, html or kcidb, got mial; did you mean mail?",
        ),
        (["FORMAT=mail", "--json"], "goes with FORMAT=text or json"),
        (["FORMAT=kcidb", "--failed"], "goes with FORMAT=text or json"),
        (["FORMAT=kcidb", "ORIGIN=My CI"], "expected a name of a-z"),
        (["FORMAT=mail", "RUN=nothing"], "there is no run nothing"),
        (["FORMAT=mail", "RUN=../runs"], "there is no run ../runs"),
    ],
)
def test_wrong_formats(words: list[str], told: str, run: RunRecord) -> None:
    done = cowbell("report", *words)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_from_a_message_id_to_a_mail(
    history: Path,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Three commands; everything but the guests is real."""
    linux = tmp_path / "linux"
    run_git(tmp_path, "clone", "-q", "--no-local", str(history), str(linux))
    run_git(linux, "checkout", "-q", "-B", "main", "origin/main")
    base = run_git(linux, "rev-parse", "v5.10^{commit}")

    def run_jobs(
        jobs: tuple[Job, ...],
        declared: Declarations,
        place: Workspace,
        accel: str,
        line: str,
        goal: Goal,
        prepared: Mapping[str, object],
    ) -> tuple[str, bool]:
        made = []
        for job in jobs:
            tree = fetch_tree(job.tree, place.store, place.progress)
            source = apply_series(tree, job.series, declared.fixups, place.store, place.progress)
            made.append(
                replace(
                    make_record(job),
                    version=str(source.version),
                    origin=source.origin,
                    base=source.base,
                    commit=source.commit,
                    build_id="b",
                    accel="tcg",
                    results=(GOOD if job.series.name else FAILED,),
                )
            )
        record = RunRecord("demo-e2e", line, "2026-01-05T12:00:00+00:00", tuple(made))
        save_run(record, place.store.path("runs", record.run_id))
        return record.run_id, True

    def run_command(*words: str) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as ended:
            command.main(words)
        return (ended.value.code, *capsys.readouterr())

    monkeypatch.setattr(pipeline, "prepare_jobs", lambda *args, **named: {})
    monkeypatch.setattr(pipeline, "run_jobs", run_jobs)
    monkeypatch.chdir(Path(__file__).parents[1])
    with serve() as archive:
        archive.configure(home)
        with (home / ".gitconfig").open("a") as file:
            file.write("[user]\n\tname = T Ester\n\temail = t@example.org\n")
        archive.threads = [make_series(2, {"mm/swap.c": ("entry + 1", "entry + 2")}, base=base)]
        words = [f"KERNEL={linux}", "SERIES=<v2-0@x.org>"]
        status, out, err = run_command("series", *words)
        assert (status, "applies, 1 patch(es)" in out) == (0, True), err
        assert f"was made for {base[:12]} (base-commit)" in err
    status, out, err = run_command("-s", "test", "ROW=demo", f"TESTS={GOOD_TEST}", *words)
    assert "FAIL -> PASS" in out, err
    (patched,) = (
        job
        for job in json.loads((tmp_path / "store/runs/demo-e2e/report.json").read_text())["jobs"]
        if job["series"]
    )
    assert (patched["base"], patched["series"]) == (base, "<v2-0@x.org>")
    status, out, err = run_command("report", "FORMAT=mail")
    assert (status, "In-Reply-To: <v2-0@x.org>" in out) == (1, True), err
    assert re.search(r"\nodirect.rd-mprotect +FAIL +PASS\n", out)
    # a long path is folded
    assert f"base:{base[:12]}of{linux}" in "".join(out.split())
    assert out.endswith(f"\nTested-by: {TESTER}\n")
    assert f"KERNEL={linux}:{base[:12]}" in out.replace("\\\n", "")
    # b4 takes the one trailer from the mail, and no other line of it
    headers, _, body = out.partition("\n\n")
    reply = make_mail(
        "Re: [PATCH v2 0/1] swap: count", "test@t.org", body, parent="v2-0@x.org", author=TESTER
    )
    with serve() as archive:
        archive.threads = [[*make_series(2, {"mm/swap.c": ("entry + 1", "entry + 2")}, base=base), reply]]
        archive.configure(home)
        monkeypatch.setenv("COWBELL_STORE", str(tmp_path / "other"))
        series = fetch_series(Message("v2-0@x.org"), open_default(), QuietProgress())
    about = series.patches[0].path.read_text().partition("\n\n")[2].partition("diff --git")[0]
    assert re.findall(r"^(\S+): ", about, re.M) == ["Signed-off-by", "Tested-by"]
    assert max(map(len, out.splitlines())) <= WIDTH
