# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that the command line names by their path: how they are read, compiled, supervised and judged."""

import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.history.entry import make_entries
from orchestrator.kernel.build import find_toolchain
from orchestrator.plan.plan import Request, make_plan
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import PROGRAM, GuestTest
from orchestrator.project.program import NO_LIMITS, ProgramLimits, is_program_path, load_programs
from orchestrator.project.root import LIB
from orchestrator.result.record import Ended, JobRecord, ProgramEnd, TrialResult, parse_program_end
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.run.runner import compile_test, make_test_line, may_share_guest
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import cowbell, cowbell_with_store, is_running
from tests.guestprograms import render_test
from tests.samples import CONSOLE, DECLARED, GOOD, WARNING

MAIN = "int main(void) { return 3; }\n"
HEADED = "/* cowbell: needs=USERFAULTFD=y,KSM=y cpus=4 memory=4G timeout=90 user=nobody */\n" + MAIN


def load(path: Path, limits: ProgramLimits = NO_LIMITS) -> GuestTest:
    (test,) = load_programs([path], LIB, limits, ())
    return test


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def told(*paths: Path, limits: ProgramLimits = NO_LIMITS, known: tuple[str, ...] = ()) -> list[str]:
    """The errors, without the folder of the files."""
    with pytest.raises(ExceptionGroup) as raised:
        load_programs(paths, LIB, limits, known)
    assert all(isinstance(error, UsageError) for error in raised.value.exceptions)
    return [
        str(error).partition("\n")[0].replace(f"{paths[0].parent}/", "") for error in raised.value.exceptions
    ]


def make_elf(machine: int = 62, segments: tuple[int, ...] = (1,), kind: int = 2) -> bytes:
    head = struct.pack(
        "<4sBBB9xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 1, kind, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 0,
        0, 0,
    )  # fmt: skip
    return head + b"".join(struct.pack("<I52x", segment) for segment in segments)


# --- reading


def test_a_path_is_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "x.c", MAIN)
    assert all(map(is_program_path, ("./a", "/a/b", "x.c", "sub/x.sh")))
    assert not any(map(is_program_path, ("odirect.*", "upstream/cow", "upstream/*", "y.c", "own.c")))


def test_a_program_is_a_test_with_guests_of_its_own(tmp_path: Path) -> None:
    test = load(write(tmp_path / "CVE 1_2.c", MAIN))
    assert (test.id, test.language, test.timeout_s) == ("local.CVE-1_2", PROGRAM, 60)
    assert not test.is_built_in and not test.subtests and not may_share_guest(test, test)
    assert test.text == MAIN


def test_the_header_of_a_program(tmp_path: Path) -> None:
    test = load(write(tmp_path / "a.c", HEADED))
    assert (test.needs_kconfig, test.cpus, test.memory_mib) == ("USERFAULTFD=y KSM=y", 4, 4096)
    assert (test.timeout_s, test.user) == (90, "nobody")
    assert load(test.path, ProgramLimits(timeout_s=5)).timeout_s == 5


def test_all_errors_of_a_header_have_their_line(tmp_path: Path) -> None:
    text = "#!/bin/sh\n# cowbell: needs=CONFIG_KSM=y cpu=4 memory=4\n# cowbell: user=me cpus=1 cpus=1\n"
    text += "# cowbell: timeout=x\n"
    assert told(write(tmp_path / "a.sh", text)) == [
        "a.sh:2: needs: expected SYMBOL=y without CONFIG_, got CONFIG_KSM=y",
        "a.sh:2: cowbell: unknown word cpu=4; did you mean cpus?",
        "a.sh:2: memory: expected size like 2G, got 4",
        "a.sh:3: user: expected one of root, nobody, got me",
        "a.sh:3: cpus: is given twice",
        "a.sh:4: timeout: expected time like 30s or 45m, got x",
    ]


def test_the_id_depends_on_all_that_decides_the_result(tmp_path: Path) -> None:
    first = write(tmp_path / "a.c", f'#include "b.h"\n{MAIN}')
    helper = write(tmp_path / "b.h", "")
    before = load(first).content_id
    assert load(first).content_id == before
    others = [load(first, ProgramLimits(timeout_s=5)), load(first, ProgramLimits(forever_s=5))]
    write(helper, "int x;\n")
    others.append(load(first))
    write(first, HEADED)
    others.append(load(first))
    assert len({before, *(test.content_id for test in others)}) == 5


def test_a_file_that_declares_a_test_of_ours_is_one(tmp_path: Path) -> None:
    test = load(write(tmp_path / "own.c", render_test('gt_pass("");', timeout_s=7)))
    assert (test.id, test.language, test.timeout_s) == ("local.own", "c", 7)
    assert test.subtests == ("local.own",)
    (error,) = told(write(tmp_path / "wrong.c", "GUEST_TEST = {\n\t.kind = 5,\n};\n"))[:1]
    assert error.startswith("wrong.c:")
    assert told(test.path, limits=ProgramLimits(forever_s=3))[0].startswith("FOREVER: is for programs")


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.c", MAIN, ("", "")),
        ("a.sh", "exit 0\n", ("", "sh")),
        ("a.py", "pass\n", ("", "python3")),
        ("a", "#! /usr/bin/env python3 \n", ("", "python3")),
        ("a", "#!/bin/sh -e\n", ("", "sh")),
        ("a", make_elf(), ("x86_64", "")),
        ("a.sh", make_elf(183, (1, 2)), ("aarch64", "")),
        ("a", "#!/usr/bin/perl\n", "a:1: is a script for perl"),
        ("a.sh", "#!/bin/bash\n", "a.sh:1: is a script for bash"),
        ("a", "words\n", "a: is no program that a guest can run"),
        ("a", "", "a: is no program that a guest can run"),
        ("a", make_elf(segments=(3, 1)), "a: is linked dynamically"),
        ("a.o", make_elf(segments=(), kind=1), "a.o: is an ELF file, but no program"),
        ("a", make_elf()[:66], "a: is a truncated ELF file"),
        ("a", b"\x7fELF\x01\x01" + bytes(60), "a: is not a 64-bit little-endian program"),
    ],
)
def test_what_a_guest_can_run(
    name: str, content: str | bytes, expected: str | tuple[str, str], tmp_path: Path
) -> None:
    path = write(tmp_path / name, content)
    if isinstance(expected, str):
        assert told(path) == [expected]
    else:
        test = load(path)
        assert (test.arch, test.interpreter) == expected


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.c")
    (tmp_path / "folder").mkdir()
    (tmp_path / "circle.c").symlink_to("circle.c")
    names = ("none.c", "fifo.c", "folder", "circle.c")
    assert told(*(tmp_path / name for name in names)) == [
        "none.c: cannot be read: No such file or directory",
        "fifo.c: is not a regular file",
        "folder: is a folder, and a program is one file",
        "circle.c: cannot be read: Too many levels of symbolic links",
    ]


def test_two_programs_of_one_name(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.c", MAIN), write(tmp_path / "sub/a.sh", "true\n")
    assert told(first, second) == ["sub/a.sh: local.a is also a.c"]
    assert len(load_programs([first, first], LIB, NO_LIMITS, ())) == 1
    assert told(first, known=("local.a",)) == ["a.c: local.a is also a test of the user overlay"]


def test_a_module_beside_a_script_is_not_copied(tmp_path: Path) -> None:
    write(tmp_path / "helper.py", "")
    path = write(tmp_path / "a.py", "import os\nimport helper\n")
    assert told(path) == [
        "a.py: imports helper.py of its folder, and only the program is copied to the guest"
    ]


def test_a_binary_of_another_architecture(tmp_path: Path) -> None:
    test = load(write(tmp_path / "a", make_elf(183)))
    declared = replace(DECLARED, tests=(*DECLARED.tests, test))
    with pytest.raises(ExceptionGroup) as raised:
        make_plan(Request(rows=("demo",), tests=(test.id,)), declared)
    (error,) = raised.value.exceptions
    assert "is a program for aarch64, and row demo is for x86_64" in str(error)
    assert make_plan(Request(rows=("demo",), tests=(test.id,), arch="aarch64"), declared)


# --- the command


def test_words_of_the_command_line(tmp_path: Path) -> None:
    write(tmp_path / "my repro.c", MAIN)
    done = cowbell("-n", "test", "ROW=demo", "SERIES=none", "TESTS=./my repro.c,fork.basic-cow", cwd=tmp_path)
    assert done.returncode == 0 and "2 test(s)" in done.stdout, done.stderr
    for words, what in (
        (("test", "TESTS=./none.c nothing.at-all"), "none.c: cannot be read"),
        (("test", "TESTS=./my repro.c", "FOREVER=3", "TIMEOUT=3"), "TIMEOUT, FOREVER: cannot be combined"),
        (("test", "TESTS=./my repro.c", "FOREVER=3x"), "FOREVER: expected time like"),
        (("mutants", "TESTS=./my repro.c"), "TESTS: mutants takes tests by name"),
    ):
        done = cowbell("-n", *words, cwd=tmp_path)
        assert done.returncode == 2 and what in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("int main(void)\n{ return 3 }\n", "my a.c:2: local.my-a does not compile: expected"),
        ("int f(void) { return 3; }\n", "my a.c: local.my-a has no main()"),
        ("int g(void); int main(void) { return g(); }\n", "my a.c: local.my-a needs a library for g()"),
    ],
)
def test_a_program_that_does_not_compile_is_told_before_anything_is_done(
    text: str, what: str, tmp_path: Path
) -> None:
    write(tmp_path / "my a.c", text)
    done = cowbell("test", "ROW=demo", "TESTS=./my a.c", cwd=tmp_path)
    assert done.returncode == 2 and what in done.stderr, done.stderr
    assert "fetch" not in done.stderr


# --- judging


def make_result(end: ProgramEnd | None, stdout: str = "", **fields: object) -> TrialResult:
    console = CONSOLE.replace(GOOD.test, "local.a")
    result = replace(GOOD, test="local.a", stdout=stdout, console=console, program_end=end)
    return replace(result, **fields)  # type: ignore[arg-type]


def judge(result: TrialResult) -> list[Verdict]:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={result.test: ()}, results=(result,))
    return list(judge_job(job))


@pytest.mark.parametrize(
    ("end", "status", "reason"),
    [
        (ProgramEnd(0), Status.PASS, ""),
        (ProgramEnd(1), Status.FAIL, "exit status 1: a line"),
        (ProgramEnd(255), Status.FAIL, "exit status 255: a line"),
        (ProgramEnd(4), Status.SKIP, "exit status 4: a line"),
        (ProgramEnd(77), Status.SKIP, "exit status 77: a line"),
        (
            ProgramEnd(127), Status.BROKEN,
            "exit status 127: a command that it uses is not there in the guest",
        ),
        (ProgramEnd(signal="SIGSEGV"), Status.FAIL, "killed by SIGSEGV"),
        (ProgramEnd(running_s=300), Status.TIMEOUT, "still running after 300 s"),
        (ProgramEnd(running_s=150, is_forever=True), Status.PASS, "still running after 150 s"),
        (ProgramEnd(lacks="kernel is not built with KSM=y"), Status.SKIP, "kernel is not built with KSM=y"),
        (ProgramEnd(problem="cannot be started: Exec format error"), Status.BROKEN, "cannot be started: ..."),
        (ProgramEnd(), Status.BROKEN, "how the program ended was not recorded"),
        (None, Status.BROKEN, "how the program ended was not recorded"),
    ],
)  # fmt: skip
def test_how_a_program_ended_is_its_result(end: ProgramEnd | None, status: Status, reason: str) -> None:
    (verdict,) = judge(make_result(end, "more\na line\n\n"))
    assert (verdict.name, verdict.status) == ("local.a", status)
    assert verdict.reason.startswith(reason.removesuffix("..."))
    # a splat is never ignored, nor is a new taint flag
    console = make_result(None).console.replace("[    2.100000]", WARNING + "[    2.100000]")
    for splat in ({"console": console}, {"taint_after": 1 << 5}):
        (verdict,) = judge(make_result(end, **splat))
        assert verdict.status is Status.CRASH


def test_the_host_s_trouble_is_not_the_kernel_s() -> None:
    for end in (ProgramEnd(running_s=300), ProgramEnd(running_s=150, is_forever=True)):
        (verdict,) = judge(make_result(end, waited_s=200.0, duration_s=300.0))
        assert verdict.status is Status.BROKEN and "the host gave the guest no CPU" in verdict.reason
    oom = "[    2.060000] Out of memory: Killed process 77 (a) total-vm:200000kB, anon-rss:190000kB\n"
    console = make_result(None).console.replace("[    2.100000]", oom + "[    2.100000]")
    (verdict,) = judge(make_result(ProgramEnd(signal="SIGKILL"), console=console))
    assert verdict.status is Status.BROKEN and "ran out of memory" in verdict.reason
    (verdict,) = judge(make_result(None, ended=Ended.TIMEOUT, exit_status=None, how="the guest answers"))
    assert verdict.status is Status.TIMEOUT


TAP = "TAP version 13\n1..2\nok 1 - one\nok 2 - two\n"
FAILS = TAP.replace("ok 2", "not ok 2")
BOTH = {"local.a/one": Status.PASS, "local.a/two": Status.PASS}
ONE = {"local.a/one": Status.PASS, "local.a/two": Status.FAIL}


@pytest.mark.parametrize(
    ("stdout", "exit_status", "expected"),
    [
        (TAP, 0, BOTH),
        (TAP.replace("TAP version 13\n", ""), 0, BOTH),
        (FAILS, 1, ONE),
        (FAILS, 0, ONE),
        (FAILS.replace("TAP version 13\n", ""), 0, ONE),
        ("TAP version 13\n1..0 # SKIP no KSM\n", 0, {"local.a": Status.SKIP}),
        ("TAP version 13\n1..0 # SKIP no KSM\n", 4, {"local.a": Status.SKIP}),
        # what contradicts itself, or is cut short, does not pass
        (TAP, 1, {"local.a": Status.BROKEN}),
        (TAP.replace("1..2", "1..3"), 0, {"local.a": Status.BROKEN}),
        (TAP.replace("1..2\n", ""), 0, {"local.a": Status.BROKEN}),
        ("not ok 1 - one\n", 0, {"local.a": Status.BROKEN}),
        # nor does it hide a failure
        (TAP.replace("1..2", "1..3"), 1, {"local.a": Status.FAIL}),
        # words are no stream
        ("ok, that worked\nnot ok, again\n", 0, {"local.a": Status.PASS}),
    ],
)
def test_a_whole_stream_is_the_result(stdout: str, exit_status: int, expected: dict[str, Status]) -> None:
    verdicts = judge(make_result(ProgramEnd(exit_status), stdout))
    assert {verdict.name: verdict.status for verdict in verdicts} == expected


def test_the_stream_of_a_program_that_was_killed_does_not_pass() -> None:
    (verdict,) = judge(make_result(ProgramEnd(signal="SIGSEGV"), TAP))
    assert (verdict.name, verdict.status) == ("local.a", Status.FAIL)


def test_an_imported_result_has_no_declared_subtests() -> None:
    job = JobRecord("row", "plain", "x86_64", "tree", "", tests={})
    (entry,) = make_entries(job, make_result(ProgramEnd(0)))
    assert (entry.name, entry.raw) == ("local.a", Status.PASS)


# --- the supervisor, on this machine


def supervise(
    tmp_path: Path, *argv: str, limit_s: float = 30, **needs: object
) -> tuple[ProgramEnd | None, str]:
    """How a program ended according to the supervisor, and its output."""
    ending = tmp_path / "program-end"
    asked = {
        "argv": argv, "limit_s": limit_s, "user": "root", "needs_kconfig": "", "cpus": 1, "memory_mib": 0,
    }  # fmt: skip
    script = (
        "import os, pathlib, program; program.ENDING = pathlib.Path(os.environ['ENDING']); "
        "program.IDS = {'root': os.getuid()}; program.main()"
    )
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, json.dumps({**asked, **needs})],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(LIB), "ENDING": str(ending)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return parse_program_end(ending.read_text()), done.stdout


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its groups")


@needs_root
@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", ProgramEnd(0)),
        ("exit 77", ProgramEnd(77)),
        ("kill -SEGV $$", ProgramEnd(signal="SIGSEGV")),
        ("exec sleep 50", ProgramEnd(running_s=0.5)),
    ],
)
def test_the_supervisor_tells_how_a_program_ended(script: str, end: ProgramEnd, tmp_path: Path) -> None:
    found, _ = supervise(tmp_path, "sh", "-c", script, limit_s=0.5 if end.running_s else 30)
    assert found == end


@needs_root
def test_the_supervisor_ends_what_a_program_leaves_behind(tmp_path: Path) -> None:
    script = "setsid sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & sleep 0.3; exit 3"
    end, stdout = supervise(tmp_path, "sh", "-c", script)
    assert end == ProgramEnd(3)
    assert not is_running(int(stdout))


def test_the_supervisor_checks_the_requirements_first(tmp_path: Path) -> None:
    assert supervise(tmp_path, "false", cpus=9999) == (ProgramEnd(lacks="needs 9999 CPUs"), "")


@needs_root
def test_the_supervisor_tells_what_cannot_be_started(tmp_path: Path) -> None:
    end, _ = supervise(tmp_path, "/none")
    assert end == ProgramEnd(problem="cannot be started: No such file or directory")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"status": 999}', '{"status": 0, "x": 1}', '{"signal": "\\n"}']
)
def test_a_forged_end_is_none(text: str) -> None:
    assert parse_program_end(text) is None


def test_a_program_is_compiled_as_it_is(tmp_path: Path, store: Store) -> None:
    test = load(
        write(tmp_path / "my a.c", "#include <linux/userfaultfd.h>\n" + MAIN.replace("{", "{ int x;"))
    )
    program = compile_test(test, find_toolchain(ARCHES["x86_64"]), LIB, store)
    assert subprocess.run([program.path]).returncode == 3
    assert load(program.path).arch == "x86_64"


def test_the_words_of_the_supervisor(tmp_path: Path) -> None:
    line = make_test_line(load(write(tmp_path / "a.sh", "true\n"), ProgramLimits(forever_s=30)), 5.0)
    assert '"argv": ["sh", "/work/tests/local.a"]' in line and '"limit_s": 150.0' in line


# --- real guests

LEAK = """/* cowbell: needs=TRANSPARENT_HUGEPAGE=y timeout=30 user=nobody */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE (2 << 20)

int main(void)
{
	char *area = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page = (char *)(((unsigned long)area + HUGE - 1) & -HUGE), byte = 0;
	int data[2], taken[2], written[2], status;

	if (pipe(data) || pipe(taken) || pipe(written) || madvise(page, HUGE, MADV_HUGEPAGE))
		return 4;
	memset(page, 'o', HUGE);
	if (!fork()) {
		struct iovec part = { page, 1 };

		/* the pipe refers to the page, which the child then unmaps: only the parent maps it */
		if (vmsplice(data[1], &part, 1, 0) != 1 || munmap(page, HUGE))
			_exit(4);
		write(taken[1], "", 1);
		read(written[0], &byte, 1);
		read(data[0], &byte, 1);
		_exit(byte != 'o');
	}
	read(taken[0], &byte, 1);
	memset(page, 's', HUGE);
	write(written[1], "", 1);
	wait(&status);
	if (status)
		fprintf(stderr, "the child read what its parent wrote later\\n");
	return WEXITSTATUS(status);
}
"""


@pytest.mark.kernel
def test_programs_in_the_guests_of_the_demo(kernel_store_root: Path, tmp_path: Path) -> None:
    write(tmp_path / "leak.c", LEAK)
    write(tmp_path / "crash.sh", "sleep 1000 &\necho c > /proc/sysrq-trigger\n")
    write(tmp_path / "lacks.py", "# cowbell: needs=KSM=y\nraise SystemExit(1)\n")
    write(tmp_path / "loop.c", "#include <unistd.h>\nint main(void) { fork(); for (;;) pause(); }\n")
    names = ("leak.c", "crash.sh", "lacks.py")
    words = ("-s", "-B", "test", "ROW=demo", f"TESTS={','.join(str(tmp_path / name) for name in names)}")
    done = cowbell_with_store(kernel_store_root, *words, "--json")
    assert done.returncode == 1, done.stderr
    found = {
        (verdict["test"], job["variant"]): verdict["status"]
        for job in json.loads(done.stdout)["jobs"]
        for verdict in job["verdicts"]
    }
    assert found == {
        ("local.leak", "plain"): "fail",
        ("local.leak", "cow"): "pass",
        **{("local.crash", variant): "crash" for variant in ("plain", "cow")},
        **{("local.lacks", variant): "skip" for variant in ("plain", "cow")},
    }
    forever = (f"TESTS={tmp_path}/loop.c", "FOREVER=2s", "REPEAT=2", "SERIES=none")
    done = cowbell_with_store(kernel_store_root, "-s", "-B", "test", "ROW=demo", *forever)
    # on a busy host it is not known
    is_known = "the host gave the guest no CPU" not in done.stdout
    assert (done.returncode == 0 and "1 pass" in done.stdout) or not is_known, done.stdout + done.stderr
