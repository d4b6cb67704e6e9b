# SPDX-License-Identifier: GPL-2.0-or-later
"""Declarations, tests and trial results that tests of several modules share."""

from dataclasses import replace
from pathlib import Path

from orchestrator.kernel.fragment import Fragment
from orchestrator.plan.plan import Declarations
from orchestrator.project.condition import Condition
from orchestrator.project.guest import GuestShape
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.matrix import Expectation, Row, TimeLimits, Variant
from orchestrator.result.record import Ended, JobRecord, TrialResult
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.source.series import Patch, Series
from orchestrator.source.tree import DebianTree
from orchestrator.status import Status

# --- a matrix of two rows


def make_test(name: str) -> GuestTest:
    return GuestTest(name, Path(name), "c", f"id of {name}", "it works", "deterministic", 10)


FAILS = Expectation("odirect.*", Status.FAIL, "known", Condition())
ROW = Row(
    name="demo",
    about="a row",
    arch="x86_64",
    tree="debian-5.10",
    kconfig=("base",),
    guest=GuestShape(2, 1024),
    tests=("*",),
    limits=TimeLimits(60, 10),
    variants=(Variant("plain", "", (FAILS,)), Variant("mended", "cow", ())),
)
SMALL = replace(
    ROW, name="small", tree="debian-6.1", tests=("odirect.*",), variants=(Variant("only", "cow", ()),)
)
TREES = {name: DebianTree(name, "linux-source", "suite") for name in ("debian-5.10", "debian-6.1")}
DECLARED = Declarations(
    rows={"demo": ROW, "small": SMALL},
    trees=TREES,
    series={name: Series(name, patches=(Patch(Path(name)),)) for name in ("cow", "other")},
    fragments={"base": Fragment("base", "all", Condition(), (), "", frozenset())},
    tests=tuple(map(make_test, ("odirect.read", "odirect.write", "vmsplice.child"))),
)

# --- trial results, and the console log of each

STDOUT = "KTAP version 1\n1..1\n# the read is whole\nok 1 odirect.rd-mprotect\n"
CONSOLE = (
    "[    2.000000] cowbell: begin odirect.rd-mprotect\n[    2.100000] cowbell: end odirect.rd-mprotect\n"
)
WARNING = """[    2.050000] ------------[ cut here ]------------
[    2.050000] WARNING: CPU: 0 PID: 77 at mm/memory.c:3190 do_wp_page+0x1f0/0x420
[    2.050000] CPU: 0 PID: 77 Comm: rd-mprotect Not tainted 5.10.262 #1
[    2.050000] Call Trace:
[    2.050000]  handle_mm_fault+0x8c1/0x1270
[    2.050000]  do_user_addr_fault+0x1a1/0x3c0
[    2.050000] ---[ end trace 0000000000000000 ]---
"""
GOOD = TrialResult(
    test="odirect.rd-mprotect",
    content_id="0",
    ended=Ended.EXIT,
    exit_status=0,
    stdout=STDOUT,
    stderr="",
    console=CONSOLE,
    console_lost=0,
    taint_before=0,
    taint_after=0,
    duration_s=0.5,
    accel="tcg",
    boot="boot-1",
)
FAILED = replace(GOOD, stdout=STDOUT.replace("ok 1", "not ok 1"), exit_status=1)
# a result that says nothing about the kernel
BROKEN = replace(GOOD, stdout="")
# a test with two subtests, and its output when both pass
NAMES = ("fork.basic-cow[state=small]", "fork.basic-cow[state=thp]")
SUBTESTS = {GOOD.test: (GOOD.test,), "fork.basic-cow": NAMES}
PAIRED = replace(GOOD, test="fork.basic-cow", console=CONSOLE.replace(GOOD.test, "fork.basic-cow"))
PAIR = "KTAP version 1\n1..2\nok 1 fork.basic-cow[state=small]\nok 2 fork.basic-cow[state=thp]\n"
DETERMINISTIC = GuestTest(GOOD.test, Path("x.c"), "c", "0", "it works", "deterministic", 5)
RACE = replace(DETERMINISTIC, kind="race")


def make_rated(hits: int, tries: int, **fields: object) -> TrialResult:
    """A result that reports a rate: it failed in ``hits`` of ``tries``."""
    told = f"# rate: {hits} of {tries} tries\n"
    line = "not ok" if hits else "ok"
    stdout = f"KTAP version 1\n1..1\n{told}{line} 1 {GOOD.test}\n"
    return replace(GOOD, stdout=stdout, exit_status=int(bool(hits)), **fields)  # type: ignore[arg-type]


def judge(*results: TrialResult, **fields: object) -> list[Verdict]:
    """The verdicts of a job with the results; ``fields`` are others of its record."""
    tests = {result.test: SUBTESTS[result.test] for result in results}
    job = JobRecord(
        row="row", variant="plain", arch="x86_64", tree="tree", series="", tests=tests, results=tuple(results)
    )
    return list(judge_job(replace(job, **fields)))  # type: ignore[arg-type]
