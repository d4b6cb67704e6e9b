# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that the command line names by their path: how they are read, compiled, supervised and judged."""

import json
import os
import platform
import shlex
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.history.entry import make_entries
from orchestrator.kernel.build import find_toolchain
from orchestrator.kernel.guestmodules import NO_MODULE, make_program_modules
from orchestrator.parse.ktap import Rate
from orchestrator.plan.plan import Request, make_plan
from orchestrator.process.command import Completed
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import PROGRAM, GuestTest
from orchestrator.project.program import NO_LIMITS, ProgramLimits, is_program_path, load_programs
from orchestrator.project.root import LIB
from orchestrator.result.record import Ended, JobRecord, ProgramEnd, TrialResult, parse_program_end
from orchestrator.result.repeat import AUTO, Repeat
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.run.compile import compile_test
from orchestrator.run.runner import make_test_line, may_share_guest
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import cowbell, cowbell_with_store, is_running
from tests.guestprograms import LEAK, render_test
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
    assert not any(map(is_program_path, ("odirect.*", "kselftest/mm/cow", "kselftest/mm/*", "y.c", "own.c")))


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
        ("a", Path("/bin/true").read_bytes(), (platform.machine(), "")),
        ("a", "#!/usr/bin/perl\n", "a:1: is a script for perl"),
        ("a.sh", "#!/bin/bash\n", "a.sh:1: is a script for bash"),
        ("a", "words\n", "a: is no program that a guest can run"),
        ("a", "", "a: is no program that a guest can run"),
        ("a", make_elf(segments=(3, 1)), "a: is linked dynamically, and its loader ? is not on this host"),
        (
            "a",
            make_elf(183, (3, 1)),
            "a: is linked dynamically, and the libraries for aarch64 are not on this host",
        ),
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
        "folder: has no program",
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


# --- folders


def make_folder(path: Path, **files: str) -> Path:
    """A folder; ``_`` in a name stands for the dot of its suffix."""
    path.mkdir()
    for name, content in files.items():
        write(path / name.replace("_", "."), content)
    return path


def compile_here(test: GuestTest, store: Store) -> Path:
    return compile_test(test, find_toolchain(ARCHES[platform.machine()]), LIB, store).path


MAKEFILE = "CFLAGS = -O1\nx: x.o y.o\n\t$(CC) -o $@ $^\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"Makefile": MAKEFILE, "x_c": "int y(void);\nint main(void) { return y(); }\n"}, 3),
        ({"run_sh": "exit 5\n", "Makefile": "all:\n\ttrue\n"}, 5),
        ({"run_py": "import y\nraise SystemExit(y.x)\n", "y_py": "x = 6\n"}, 6),
        ({"run_c": '#include "y.h"\n' + MAIN, "other_py": ""}, 3),
        ({"only_c": MAIN, "README": "words\n"}, 3),
        ({"only_sh": "exit $(cat $1)\n", "data": "7\n"}, 7),
    ],
)
def test_a_folder_is_a_program(files: dict[str, str], expected: int, tmp_path: Path, store: Store) -> None:
    folder = make_folder(tmp_path / "my folder", y_c="int y(void) { return 3; }\n", y_h="", **files)
    if "Makefile" not in files:
        (folder / "y.c").unlink()
    made = compile_here(load(folder), store)
    assert subprocess.run(["sh", ".cowbell-start", "data"], cwd=made).returncode == expected
    # nothing is made in the folder of the user
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".o") == []


@pytest.mark.parametrize(
    ("files", "what"),
    [
        ({"a_sh": "", "b_py": ""}, "f: has 2 programs: a.sh, b.py"),
        ({"a_sh": "", "run_py": "", "run_c": MAIN}, "f: has 2 programs: run.py, run.c"),
        ({"a_txt": ""}, "f: has no program"),
        ({"Makefile": "# cowbell: cpu=4\n"}, "f/Makefile:1: cowbell: unknown word cpu=4; did you mean cpus?"),
    ],
)
def test_a_folder_without_one_program(files: dict[str, str], what: str, tmp_path: Path) -> None:
    assert told(make_folder(tmp_path / "f", **files)) == [what]


@pytest.mark.parametrize(
    ("makefile", "what"),
    [
        ("x: x.c\n\t$(CC) -o x x.c\n", "f/x.c:2: local.f does not compile: expected"),
        ("x: z.c\n", "f: local.f cannot be made: make: *** No rule to make target 'z.c'"),
        ("x:\n\ttrue\n", "f: its Makefile makes no program"),
        ("x:\n\tcp /bin/true /bin/false .\n", "f: its Makefile makes 2 programs: false, true"),
        ("x:\n\tcp /bin/true .\n", "f/true: is linked dynamically"),
    ],
)
def test_a_makefile_that_makes_no_program(makefile: str, what: str, tmp_path: Path, store: Store) -> None:
    folder = make_folder(tmp_path / "f", Makefile=makefile, x_c="int main(void)\n{ return 3 }\n")
    with pytest.raises(UsageError) as raised:
        compile_here(load(folder), store)
    assert str(raised.value).replace(f"{tmp_path}/", "").startswith(what)


def test_old_objects_beside_a_makefile_are_not_used(tmp_path: Path, store: Store) -> None:
    folder = make_folder(tmp_path / "f", Makefile="x: x.c\n\t$(CC) -o x x.c\n", x_c=MAIN)
    (folder / "x").write_bytes(Path("/bin/true").read_bytes())
    made = compile_here(load(folder), store)
    assert subprocess.run(["sh", ".cowbell-start"], cwd=made).returncode == 3


def test_the_id_of_a_folder_depends_on_its_files(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", run_sh="exit 0\n", data="1")
    (folder / ".git").mkdir()
    ids = [load(folder).content_id]
    write(folder / ".git/HEAD", "ref")
    assert load(folder).content_id == ids[0]
    (folder / "data").write_text("2")
    ids.append(load(folder).content_id)
    (folder / "data").chmod(0o755)
    ids.append(load(folder).content_id)
    (folder / "more").write_text("")
    ids.append(load(folder).content_id)
    assert len(set(ids)) == 4


def test_a_folder_with_a_module_needs_modules(tmp_path: Path, store: Store) -> None:
    test = load(make_folder(tmp_path / "f", Makefile="obj-m := x.o\nall:\n\tfalse\n", x_c=""))
    assert test.has_module and test.needs_kconfig == "MODULES=y MODULE_UNLOAD=y"
    # Kbuild makes it with each kernel, and nothing calls its Makefile before
    script = (compile_here(test, store) / ".cowbell-start").read_text()
    assert "insmod" in script and "rmmod" in script
    both = load(make_folder(tmp_path / "g", Kbuild="obj-m := x.o\n", x_c="", Makefile="y:\n", run_sh=""))
    assert both.has_module
    assert "./run.sh" in (compile_here(both, store) / ".cowbell-start").read_text()


def test_modules_are_made_from_their_sources_alone(tmp_path: Path, store: Store) -> None:
    """Files that an earlier make has left are for another kernel; no module is no failure of the kernel."""
    folder = make_folder(tmp_path / "f", Kbuild="obj-m := x.o\n", x_c="", x_o="old", x_ko="old", run_sh="")
    (folder / ".x.o.cmd").write_text("old")
    test = load(folder)
    copied = {path.name for path in compile_here(test, store).iterdir()}
    assert copied == {"Kbuild", "x.c", "run.sh", ".cowbell-start"}
    seen = []

    def make(place: Path, log: Path, made: tuple[str, ...], status: int) -> Completed:
        seen.append(sorted(path.name for path in place.iterdir()))
        log.write_text(f"{place}/x.c:1:2: error: no such thing\n" if status else "")
        for name in made:
            (place / name).write_text("new")
        return Completed(("make",), status, "", 0.0, 0.0, log)

    for number, (made, status, reason) in enumerate(
        [
            (("x.ko",), 0, ""),
            ((), 0, "its Kbuild makes no module for this kernel\n"),
            ((), 2, "its module does not compile for this kernel: x.c:1:2: error: no such thing\n"),
        ]
    ):
        target = tmp_path / str(number)
        make_program_modules([test], partial(make, made=made, status=status), tmp_path / "scratch", target)
        told_why = target / test.id / NO_MODULE
        assert (told_why.read_text() if told_why.exists() else "") == reason
        assert [path.name for path in (target / test.id).glob("*.ko")] == list(made)
    assert seen == [["Kbuild", "run.sh", "x.c"]] * 3


def test_what_a_folder_may_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(tmp_path / "f", run_sh="")
    os.mkfifo(folder / "pipe")
    (folder / "dangling").symlink_to("/none")
    assert told(folder) == [
        "f/dangling: is no regular file, and cannot be copied",
        "f/pipe: is no regular file, and cannot be copied",
    ]
    (folder / "pipe").unlink()
    (folder / "dangling").unlink()
    (folder / "large").touch()
    os.truncate(folder / "large", 300 << 20)
    assert told(folder) == ["f: is too large to be copied: more than 4096 files or 256 MiB"]


# --- arguments and libraries


def test_arguments_are_for_one_program(tmp_path: Path) -> None:
    first, second = write(tmp_path / "a.sh", "true\n"), write(tmp_path / "b.sh", "true\n")
    (test,) = load_programs([first], LIB, NO_LIMITS, (), ["-n", "a b"])
    assert '"argv": ["sh", "/work/tests/local.a", "-n", "a b"]' in make_test_line(test, 1.0)
    assert test.content_id != load(first).content_id
    for paths in ((first, second), ()):
        with pytest.raises(ExceptionGroup) as raised:
            load_programs(paths, LIB, NO_LIMITS, (), ["-n"])
        assert "are for exactly one program of TESTS=" in str(raised.value.exceptions[0])


def test_a_dynamic_program_takes_its_libraries_along(tmp_path: Path) -> None:
    test = load(Path("/bin/ls"))
    assert len(test.libraries) > 1 and all(path.is_file() for path in test.libraries)
    argv = json.loads(shlex.split(make_test_line(test, 1.0).split(" program ")[1])[0])["argv"]
    libs = tmp_path / "libs"
    libs.mkdir()
    for path in test.libraries:
        shutil.copy(path, libs)
    assert argv[0] == f"/work/libs/local.ls/{test.libraries[0].name}"
    words = [word.replace("/work/libs/local.ls", str(libs)) for word in argv[:-1]]
    assert subprocess.run([*words, "/bin/ls", str(libs)], capture_output=True, check=True).stdout


def test_libraries_that_are_not_here_are_named(tmp_path: Path) -> None:
    write(tmp_path / "x.c", "int f(void) { return 0; }\n")
    write(tmp_path / "a.c", "int f(void);\nint main(void) { return f(); }\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "libx.so", "x.c"], cwd=tmp_path, check=True)
    subprocess.run(["gcc", "-o", "a", "a.c", "-L.", "-lx"], cwd=tmp_path, check=True)
    assert told(tmp_path / "a") == ["a: needs libraries that this host does not have: libx.so"]
    subprocess.run(["gcc", "-o", "a", "a.c", "-L.", "-lx", "-Wl,-rpath,$ORIGIN"], cwd=tmp_path, check=True)
    assert tmp_path / "libx.so" in load(tmp_path / "a").libraries


def test_nothing_of_a_program_runs_on_this_host(tmp_path: Path) -> None:
    """Not even the audit library that it names, which its loader would load to list its libraries."""
    ran = f'__attribute__((constructor)) static void f(void) {{ creat("{tmp_path}/ran", 0600); }}\n'
    write(tmp_path / "x.c", f"#include <fcntl.h>\n{ran}unsigned la_version(unsigned v) {{ return v; }}\n")
    write(tmp_path / "a.c", MAIN)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", "x.so", "x.c"], cwd=tmp_path, check=True)
    audit = f"-Wl,--audit={tmp_path}/x.so"
    subprocess.run(["gcc", "-o", "a", "a.c", audit, "-Wl,--no-as-needed", "./x.so"], cwd=tmp_path, check=True)
    told(tmp_path / "a")
    subprocess.run(["gcc", "-o", "a", "a.c", audit], cwd=tmp_path, check=True)
    assert load(tmp_path / "a").libraries
    assert not (tmp_path / "ran").exists()


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
        (("test", "--", "-n"), "arguments after --: -n: are for exactly one program"),
        (("report", "--", "-n"), "report: takes no words after --"),
        (("test", "APPEND+=quiet init=/bin/sh"), "APPEND+: --, root= and init= are reserved"),
        (("test", "QEMU+='-device"), "QEMU+: No closing quotation"),
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
        (ProgramEnd(running_s=150, forever_s=30), Status.PASS, "still running after 150 s"),
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
    for end in (ProgramEnd(running_s=300), ProgramEnd(running_s=150, forever_s=30)):
        (verdict,) = judge(make_result(end, waited_s=270.0, duration_s=300.0))
        assert verdict.status is Status.BROKEN and "the host gave the guest no CPU" in verdict.reason
    (verdict,) = judge(make_result(end, waited_s=100.0, duration_s=160.0))
    assert verdict.status is Status.PASS, "it ran for the 30 s all the same"
    (verdict,) = judge(make_result(end, waited_s=5.0, duration_s=0.0))
    assert verdict.status is Status.BROKEN, "a record from elsewhere may say anything"
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


@pytest.mark.parametrize(
    ("numbers", "exit_status", "status", "reason"),
    [
        ((3, 0, 0, 0, 0), 0, Status.PASS, ""),
        ((3, 0, 0, 1, 0), 0, Status.PASS, ""),
        ((3, 1, 0, 0, 0), 1, Status.FAIL, "3 passed, 1 failed, 0 broken, 0 skipped, 0 warnings"),
        ((0, 0, 0, 2, 0), 32, Status.SKIP, "0 passed, 0 failed, 0 broken, 2 skipped, 0 warnings"),
        ((1, 0, 1, 0, 0), 2, Status.BROKEN, "1 passed, 0 failed, 1 broken, 0 skipped, 0 warnings"),
        ((1, 0, 0, 0, 1), 4, Status.BROKEN, "1 passed, 0 failed, 0 broken, 0 skipped, 1 warnings"),
        ((0, 0, 0, 0, 0), 0, Status.BROKEN, "0 passed, 0 failed, 0 broken, 0 skipped, 0 warnings"),
        ((3, 0, 0, 0, 0), 1, Status.BROKEN, "exit status 1 contradicts its summary"),
        ((3, 0, 0, 0, 0), 32, Status.BROKEN, "exit status 32 contradicts its summary"),
        ((3, 0, 0, 1, 0), 32, Status.PASS, ""),
    ],
)
def test_the_summary_of_ltp_is_the_result(
    numbers: tuple[int, ...], exit_status: int, status: Status, reason: str
) -> None:
    words = ("passed", "failed", "broken", "skipped", "warnings")
    summary = "\n".join(f"{word:8} {number}" for word, number in zip(words, numbers, strict=True))
    end = ProgramEnd(exit_status)
    result = make_result(end, exit_status=exit_status, stderr=f"x.c:1: TINFO: y\n\nSummary:\n{summary}\n")
    (verdict,) = judge(result)
    assert verdict.status is status and verdict.reason.startswith(reason), verdict


def test_the_stream_of_a_program_that_was_killed_does_not_pass() -> None:
    (verdict,) = judge(make_result(ProgramEnd(signal="SIGSEGV"), TAP))
    assert (verdict.name, verdict.status) == ("local.a", Status.FAIL)


def test_a_program_that_fails_sometimes_has_a_rate(tmp_path: Path) -> None:
    """Each run is a trial, and with REPEAT=auto enough of them are made."""
    path = write(tmp_path / "a.sh", "# cowbell: kind=race\n")
    for test in (load(path), load(write(path, "true\n"), ProgramLimits(is_race=True))):
        assert test.kind == "race"
        repeat = Repeat(AUTO)
        rates = repeat.list_target_rates([test])
        assert list(rates) == [test.id]
        passing, failing = make_result(ProgramEnd(0)), make_result(ProgramEnd(1), exit_status=1)
        assert repeat.wants_more(test, [passing] * 20) and not repeat.wants_more(test, [passing, failing])
        job = JobRecord(
            row="demo", variant="plain", arch="x86_64", tree="t", series="", tests={test.id: ()},
            races=(test.id,), results=(passing, passing, failing), target_rates=rates,
        )  # fmt: skip
        (verdict,) = judge_job(job)
        assert verdict.status is Status.FAIL and verdict.rate == Rate(1, 3)
    assert not Repeat(AUTO).list_target_rates([load(path)])


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
        "folder": "",
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


def test_the_supervisor_starts_in_a_copy_of_the_folder(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "f", data="1")
    (tmp_path / "work").mkdir()
    end, stdout = supervise(tmp_path / "work", "cat", "data", folder=str(folder))
    assert (end, stdout) == (ProgramEnd(0), "1")
    write(folder / ".cowbell-no-module", "its module does not compile\n")
    end, stdout = supervise(tmp_path / "work", "cat", "data", folder=str(folder))
    assert end == ProgramEnd(problem="its module does not compile")


# --- real guests


# passes with two arguments, a file beside it, and what APPEND+= and QEMU+= add
COUNTS = """#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char line[4096] = "";

	fgets(line, sizeof(line), fopen("/proc/cmdline", "r"));
	if (argc != 3 || access("data", R_OK) || !strstr(line, "cowbell.word=1"))
		return 1;
	return access("/sys/bus/virtio/devices/virtio4", F_OK) != 0;
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
    folder = make_folder(tmp_path / "my folder", Makefile="x: x.c\n\t$(CC) -o x x.c\n", x_c=COUNTS, data="")
    qemu = "-device virtio-rng-pci,id=more"
    more = (f"TESTS={folder}", "SERIES=none", "APPEND+=cowbell.word=1", f"QEMU+={qemu}", "--", "two", "words")
    done = cowbell_with_store(kernel_store_root, "-s", "test", "ROW=demo", *more)
    assert done.returncode == 0 and "1 pass" in done.stdout, done.stdout + done.stderr
    done = cowbell_with_store(kernel_store_root, "-s", "test", "ROW=demo", "TESTS=/bin/ls", "SERIES=none")
    assert done.returncode == 0 and "1 pass" in done.stdout, done.stdout + done.stderr
    wrong = ("test", "ROW=demo", "TESTS=/bin/ls", "SERIES=none", "QEMU+=-no-such-option")
    done = cowbell_with_store(kernel_store_root, "-s", *wrong)
    assert done.returncode == 2 and "QEMU+" in done.stderr, done.stdout + done.stderr
    forever = (f"TESTS={tmp_path}/loop.c", "FOREVER=2s", "REPEAT=2", "SERIES=none")
    done = cowbell_with_store(kernel_store_root, "-s", "-B", "test", "ROW=demo", *forever)
    # on a busy host it is not known
    is_known = "the host gave the guest no CPU" not in done.stdout
    assert (done.returncode == 0 and "1 pass" in done.stdout) or not is_known, done.stdout + done.stderr
