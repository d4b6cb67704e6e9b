# SPDX-License-Identifier: GPL-2.0-or-later
"""What people see of jobs at work: on a terminal, on one that can do nothing, on a pipe."""

import re
import subprocess
import sys
import time

import pexpect

from orchestrator.cli.wrap import wrap_text
from tests.conftest import ROOT

# two jobs at a time for as long as the test needs, then the product
DRIVER = """
import sys, time
from orchestrator.process.jobserver import Jobserver
from orchestrator.cli.terminal import Terminal
from orchestrator.process.workers import Limits, Task, work
from orchestrator.status import Status

def build(board, budget):
    board.stage("build", "linux 5.10 [bold]")
    board.command("make vmlinux")
    for done in range(30):
        board.count(done, 30, "files compiled")
        time.sleep(0.1)

def test(board, budget):
    board.expect(75)
    board.stage("run", "7 test(s)")
    time.sleep(3)
    board.verdict(Status.FAIL, "FAIL odirect.rd-mprotect 0.4s")
    board.detail("FAIL odirect.rd-mprotect: " + "word " * 20)
    board.note("a note")

with Terminal(verbosity=sys.argv.count("-v"), is_silent="-s" in sys.argv) as terminal:
    before_s = 100.0 if "known" in sys.argv else None
    work([Task("demo/plain", "a", build, before_s), Task("demo/cow", "b", test, 80.0)],
         Limits(Jobserver.make(2)), terminal)
print("product")
"""
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def spawn(*words: str, term: str = "xterm", size: tuple[int, int] = (24, 80)) -> "pexpect.spawn[str]":
    return pexpect.spawn(
        sys.executable,
        ["-c", DRIVER, *words],
        cwd=str(ROOT),
        env={"TERM": term, "PATH": "/usr/bin:/bin"},
        dimensions=size,
        encoding="utf-8",
        timeout=120,
    )


def run_on_pipe(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-c", DRIVER, *words]
    return subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True)


def test_live_view_has_jobs_counts_and_the_time_left() -> None:
    child = spawn()
    child.expect(r"demo/plain.*build.*\d+/30 files compiled")
    child.expect(r"demo/cow.*run.*7 test\(s\)")
    child.expect(r"0 of 2 kernels done")
    child.expect("product")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_time_left_is_told_when_all_jobs_have_run_before() -> None:
    told = ESCAPE.sub("", spawn("known").read())
    # 100 s of the one, and 75 of the other, which it corrects itself to
    assert re.search(r"0 of 2 kernels done, about 2:5\d left", told)
    assert " left" not in ESCAPE.sub("", spawn().read())


def test_a_narrow_terminal_tears_no_word() -> None:
    shown = ESCAPE.sub("", spawn("-v").read())
    assert re.search(r"demo/cow +FAIL odirect.rd-mprotect 0.4s\r\n", shown)
    # what comes before a return is overwritten
    lines = [line.rpartition("\r")[2].rstrip() for line in shown.split("\r\n") if "word" in line]
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines).split().count("word") == 20


def test_text_is_broken_at_blanks_and_continues_in_its_column() -> None:
    listed = f"    means       {'word ' * 20}"
    first, *rest = wrap_text(listed, 60).splitlines()
    assert first.startswith("    means       word")
    assert rest
    assert all(line.startswith(f"{' ' * 16}word") for line in rest)
    assert max(map(len, (first, *rest))) <= 60
    command = f"  cowbell -B test ROW=demo TESTS={'x' * 20} KERNEL=debian-5.10 SERIES=none"
    assert wrap_text(f"{command}\n\nshort\n", 60) == f"{command}\n\nshort\n", "it is to be pasted"
    assert wrap_text("y" * 100, 60) == "y" * 100, "a path stays whole"


def test_a_resize_breaks_nothing() -> None:
    child = spawn()
    child.expect("demo/plain")
    for size in ((10, 30), (2, 10), (50, 200)):
        child.setwinsize(*size)
        time.sleep(0.5)
    child.expect("product")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_a_dumb_terminal_gets_lines() -> None:
    told = spawn(term="dumb").read()
    assert "\x1b" not in told
    assert re.search(r"0:0\d +demo/plain +build +linux 5.10 \[bold\]", told)


def test_a_pipe_gets_lines_with_the_time_and_only_the_product_on_stdout() -> None:
    done = run_on_pipe()
    assert done.stdout == "product\n"
    assert "\x1b" not in done.stderr
    assert all(re.match(r" +\d+:\d\d  demo/", line) for line in done.stderr.splitlines())
    assert "demo/cow                          a note" in done.stderr
    assert "demo/cow                 FAIL odirect.rd-mprotect 0.4s\n" in done.stderr
    assert "FAIL odirect.rd-mprotect: word" not in done.stderr
    verbose = run_on_pipe("-v").stderr
    assert "FAIL odirect.rd-mprotect: word" in verbose
    assert "make vmlinux" not in verbose
    assert "make vmlinux" in run_on_pipe("-v", "-v").stderr


def test_silent_says_nothing() -> None:
    done = run_on_pipe("-s")
    assert (done.stdout, done.stderr) == ("product\n", "")


SECTIONS = """
import sys
from orchestrator.cli.terminal import Terminal
with Terminal(is_silent="-s" in sys.argv) as terminal:
    job = terminal.for_job("demo/plain")
    job.stage("build", "linux 5.10")
    job.note("a note")
    job.stage("run", "7 test(s)")
    terminal.end_job("demo/plain", "done")
    terminal.stage("source", "another")
    if "two" in sys.argv:
        terminal.for_job("demo/plain").stage("build", "linux 5.10")
        terminal.for_job("demo/cow").stage("build", "linux 5.10")
print("product")
"""
MARK = re.compile(r"\x1b\[0Ksection_(start|end):\d+:([\w.-]+)(\[collapsed=true\])?\r\x1b\[0K")


def mark_sections(*words: str, **env: str) -> str:
    argv = [sys.executable, "-c", SECTIONS, *words]
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, check=True)
    assert done.stdout == b"product\n"
    return done.stderr.decode()


def test_a_gitlab_log_has_a_section_for_each_stage() -> None:
    """What is seen of a section that is closed is the stage's line."""
    said = mark_sections(GITLAB_CI="true")
    open_now = ""
    for edge, name, options in MARK.findall(said):
        assert (edge == "start") == bool(options)
        assert bool(open_now) == (edge == "end")
        open_now = name if edge == "start" else ""
    assert not open_now
    starts = re.findall(r"section_start:[^\r]*\r\x1b\[0K *\d+:\d\d +([^\n]*)", said)
    assert [" ".join(title.split()) for title in starts] == [
        "demo/plain build linux 5.10",
        "demo/plain run 7 test(s)",
        "source another",
    ]
    plain = MARK.sub("", said)
    assert "\x1b" not in plain
    assert plain == mark_sections()


def test_no_sections_where_nobody_could_tell_whose_they_are() -> None:
    """With jobs side by side their lines are mixed."""
    marks = MARK.findall(mark_sections("two", GITLAB_CI="true"))
    assert "demo_cow" not in str(marks)


def test_no_sections_elsewhere() -> None:
    assert not MARK.search(mark_sections(GITLAB_CI="false"))
    assert mark_sections("-s", GITLAB_CI="true") == ""
