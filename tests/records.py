# SPDX-License-Identifier: GPL-2.0-or-later
"""Records of jobs and runs, in memory and in a store, that tests of several modules share."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.history.database import VARIANT_FILE, add_result, find_entries, open_history
from orchestrator.history.entry import Entry
from orchestrator.plan.plan import Job
from orchestrator.project.guesttest import GuestTest
from orchestrator.result.record import (
    Ended,
    Expected,
    Failure,
    JobRecord,
    RunRecord,
    TargetRate,
    TrialResult,
    save_job,
    save_result,
    save_run,
)
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import QuietProgress
from tests.samples import FAILED, GOOD, SUBTESTS

# guest output that must be escaped wherever it is shown
EVIL = "\x00\x1b[31m]]><script>document.title='owned'</script>&\ufffd"
STARTED = "2024-05-01T10:00:00.000+00:00"
RESULT = replace(
    GOOD, content_id="0123456789abcdef", started=STARTED, console_at=77, host="one", duration_s=0.5
)
FAILED_RESULT = replace(
    RESULT,
    exit_status=1,
    stdout=RESULT.stdout.replace("ok 1", "not ok 1"),
    started="2024-05-02T10:00:00.000+00:00",
)
JOB = JobRecord(
    row="demo", variant="plain", arch="x86_64", tree="debian-6.1", series="", tests=SUBTESTS,
    version="6.1.176", commit="c0ffee", build_id="b", config_id="k", rootfs_id="r", accel="tcg",
    expect=(Expected("odirect.*", Status.FAIL, "it is lost"),),
)  # fmt: skip
VARIANT = "abcdefabcdef"


def store_result(store: Store, result: TrialResult, job: JobRecord = JOB, variant: str = VARIANT) -> Path:
    """Save a result and enter it in the history, as the pipeline does; returns its file."""
    progress = QuietProgress()
    folder = store.path("results", variant)
    save_job(job, folder / VARIANT_FILE)
    path = folder / f"{result.test}.{result.content_id[:12]}.json"
    save_result(result, path)
    add_result(store, job, result, folder, progress)
    assert not progress.notes
    return path


def store_trials(
    store: Store,
    run_id: str,
    command: str,
    job: Job,
    test: GuestTest,
    results: Sequence[TrialResult],
    failure: Failure | None = None,
    target_rates: Mapping[str, TargetRate] | None = None,
) -> None:
    """Save the record of a run of one test of a job."""  # fmt: skip
    record = JobRecord(
        row="demo", variant=job.variant.name, arch="x86_64", tree=job.tree.name, series=job.series.name,
        tests={test.id: test.subtests}, results=tuple(results), failure=failure,
        races=(test.id,) if test.kind == "race" else (), target_rates=target_rates or {},
    )  # fmt: skip
    save_run(RunRecord(run_id, command, "2026-01-01", (record,)), store.path("runs", run_id))


def store_run(store: Store, number: int, *jobs: JobRecord) -> RunRecord:
    """Save the record of a run that started on that day of June 2024."""
    run = RunRecord(f"demo-{number:012}", "cowbell test", f"2024-06-{number:02}T00:00:00+00:00", jobs)
    save_run(run, store.path("runs", run.run_id))
    return run


def read_entries(store: Store) -> list[Entry]:
    """Every entry of the history, which is read without a message."""
    notes: list[str] = []
    with open_history(store, notes.append) as db:
        found = find_entries(db)
    assert not notes
    return found


def make_log(test: str, said: str = "") -> str:
    """The console log of a test that printed a text."""
    return f"[    2.000000] cowbell: begin {test}\n{said}\n[    2.100000] cowbell: end {test}\n"


def make_run() -> RunRecord:
    """A run with a verdict of every kind; one test printed ``EVIL``."""
    evil = replace(FAILED, test="x.evil", console=make_log("x.evil", EVIL), stderr=EVIL)
    evil = replace(evil, stdout=f"KTAP version 1\n1..1\n# {EVIL}\nnot ok 1 x.evil\n")
    hung = replace(
        GOOD, test="x.hung", console=make_log("x.hung"), ended=Ended.TIMEOUT, exit_status=None, stdout=""
    )
    mute = replace(GOOD, test="x.mute", console=make_log("x.mute"), stdout="")
    plain = JobRecord(
        row="demo",
        variant="plain",
        arch="x86_64",
        tree="debian-5.10",
        series="",
        tests={name: (name,) for name in ("odirect.rd-mprotect", "x.evil", "x.hung", "x.mute", "x.never")},
        expect=(Expected("odirect.*", Status.FAIL, "the page is copied"),),
        version="5.10.262",
        results=(FAILED, evil, hung, mute),
    )
    cow = replace(
        plain, variant="cow", series="cow", tests={GOOD.test: (GOOD.test,)}, expect=(), results=(GOOD,)
    )
    return RunRecord("demo-0123456789ab", "cowbell test ROW=demo", "2024-01-15T12:00:00+00:00", (plain, cow))


def make_large_run(kernels: int, tests: int) -> RunRecord:
    """A run with a verdict for each of many tests on many kernels; on each kernel another test fails."""
    names = [f"family{number % 10}.test-{number}" for number in range(tests)]
    jobs = []
    for number in range(kernels):
        results = [
            replace(
                FAILED if at == number else GOOD,
                test=name,
                stdout=(FAILED if at == number else GOOD).stdout.replace(GOOD.test, name),
                console=make_log(name, "a line of the kernel\n" * 10),
            )
            for at, name in enumerate(names)
        ]
        job = replace(
            make_run().jobs[1],
            variant=f"kernel-{number}",
            version=f"6.1.{number}",
            tests={name: (name,) for name in names},
            summaries={name: "a read survives mprotect() plus a write to the same page" for name in names},
            results=tuple(results),
        )
        jobs.append(job)
    return replace(make_run(), jobs=tuple(jobs))
