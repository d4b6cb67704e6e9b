# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that people debug: splats, the memory of a guest in crash(8) and drgn, gdb, and traces."""

import os
import re
import shlex
import struct
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import make_rootfs
from orchestrator.kernel.build import Kernel
from orchestrator.kernel.symbols import read_functions
from orchestrator.parse.console import parse_console
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.steps import build_job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.guest import GuestShape
from orchestrator.project.trace import FRAGMENT, parse_trace
from orchestrator.result.record import Ended, JobRecord, TrialResult
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.run.compile import compile_test
from orchestrator.run.runner import run_tests
from orchestrator.status import Status
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress
from tests.guestprograms import render_test, write_test

pytestmark = pytest.mark.kernel
DRGN = """
print(prog["init_uts_ns"].name.release.string_().decode())
for frame in prog.crashed_thread().stack_trace():
    print(frame.name, *(frame.source()[:2] if frame.name.startswith("sysrq") else ()))
"""


@dataclass(frozen=True)
class Crash:
    """A guest of row demo with debug info, after ``echo c > /proc/sysrq-trigger``."""

    kernel: Kernel
    result: TrialResult

    @property
    def core(self) -> Path:
        return Path(self.result.core)


@pytest.fixture(scope="module")
def machine(kernel_store: Store) -> Machine:
    declared = load_declarations(ROOT)
    # with ftrace as well, so that one kernel is built for all tests here
    request = Request(rows=("demo",), series=("none",), added=(FRAGMENT,), debug=True)
    (job,) = make_plan(request, declared)
    place = Workspace(ROOT, kernel_store, QuietProgress())
    kernel = build_job(job, declared, place)
    image = make_rootfs(kernel.request.arch, kernel_store, place.progress)
    return Machine(kernel, image, GuestShape(2, 256), "tcg", 20)


def press(key: str, machine: Machine, store: Store, folder: Path) -> TrialResult:
    """The result of a test that writes a key to ``/proc/sysrq-trigger``."""
    body = f'FILE *file = fopen("/proc/sysrq-trigger", "w");\n\tfputs("{key}", file), fflush(file);'
    test = write_test(folder / "tests", "panic.c", render_test(body, timeout_s=10))
    lib_dir = ROOT / "guest-tests/lib"
    program = compile_test(test, machine.kernel.request.toolchain, lib_dir, store)
    (result,) = run_tests(machine, [program], lib_dir, folder / "results", QuietProgress())
    return result


def judge(result: TrialResult) -> Verdict:
    tests = {result.test: (result.test,)}
    (verdict,) = judge_job(JobRecord("demo", "plain", "x86_64", "tree", "", tests, results=(result,)))
    return verdict


@pytest.fixture(scope="module")
def crash(machine: Machine, kernel_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Crash:
    folder = tmp_path_factory.mktemp("debug")
    return Crash(machine.kernel, press("c", replace(machine, keep_core=True), kernel_store, folder))


def test_a_panic_has_a_call_trace_with_source_lines(crash: Crash) -> None:
    assert crash.result.ended is Ended.RESET
    (splat,) = parse_console(crash.result.console).faults
    assert splat.title == "Kernel panic - not syncing: sysrq triggered crash"
    assert splat.fingerprint == "panic:sysrq_handle_crash/__handle_sysrq/write_sysrq_trigger"
    verdict = judge(crash.result)
    assert re.search(r" sysrq_handle_crash\+0x\S+ \(drivers/tty/sysrq\.c:\d+\)\n", verdict.evidence)
    assert str(crash.core) in verdict.evidence


def jump_to_bug(vmlinux: Path, copy: Path) -> str:
    """A copy of a 5.10 whose magic SysRq key n jumps to a BUG() in mm/; returns the file:line of that."""
    symbols = {function.name: function.address for function in read_functions(vmlinux)}
    listed = subprocess.run(["nm", vmlinux], capture_output=True, text=True, check=True).stdout
    table = {name: int(at, 16) for at, name in re.findall(r"^(\w+) \w (__\w+___bug_table)$", listed, re.M)}
    image = bytearray(vmlinux.read_bytes())
    (headers,), (count,) = struct.unpack_from("<Q", image, 32), struct.unpack_from("<H", image, 56)
    segments = [struct.unpack_from("<II6Q", image, headers + 56 * number) for number in range(count)]

    def find_offset(address: int) -> int:
        for kind, _, begin, at, _, size, _, _ in segments:
            if kind == 1 and at <= address < at + size:
                return int(begin + address - at)
        raise AssertionError(f"{address:#x} is in no segment")

    for entry in range(table["__start___bug_table"], table["__stop___bug_table"], 12):
        code, name, line, flags = struct.unpack_from("<iiHH", image, find_offset(entry))
        text = find_offset(entry + name)
        file = image[text : image.index(0, text)].decode()
        if file.startswith("mm/") and not flags:
            # the first instruction is for ftrace
            handler = symbols["sysrq_handle_unrt"] + 5
            jump = struct.pack("<Bi", 0xE9, entry + code - handler - 5)
            image[find_offset(handler) : find_offset(handler) + 5] = jump
            copy.write_bytes(image)
            return f"{file}:{line}"
    raise AssertionError("there is no BUG() in mm/")


def test_a_bug_has_its_file_and_line(machine: Machine, kernel_store: Store, tmp_path: Path) -> None:
    place = jump_to_bug(machine.kernel.folder / "vmlinux", tmp_path / "vmlinux")
    broken = replace(machine, kernel=replace(machine.kernel, image=tmp_path / "vmlinux"))
    result = press("n", broken, kernel_store, tmp_path)
    (splat,) = parse_console(result.console).faults
    assert splat.title == f"kernel BUG at {place}!"
    verdict = judge(result)
    assert (verdict.status, verdict.reason) == (Status.CRASH, splat.title)
    assert re.search(rf"RIP: 0010:\S+\+0x\S+ \([^)]*{place}\)", verdict.evidence), verdict.evidence
    (function,) = re.findall(r"RIP: 0010:(\w+)[+.]", result.console)[:1]
    assert splat.fingerprint.startswith(f"bug:{function}")


def test_crash_opens_the_memory_of_a_guest(crash: Crash) -> None:
    done = subprocess.run(
        ["crash", "-s", "--no_crashrc", crash.kernel.folder / "vmlinux", crash.core],
        input="sys\nbt\nlog\nquit\n",
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"RELEASE: 5\.10\.", done.stdout)
    assert 'PANIC: "Kernel panic - not syncing: sysrq triggered crash"' in done.stdout
    assert re.search(r"#\d+ \[\w+\] sysrq_handle_crash at ", done.stdout)
    assert "cowbell: begin family.panic" in done.stdout


def test_drgn_opens_the_memory_of_a_guest(crash: Crash, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(DRGN)
    words = ["-m", "drgn", "-q", "-c", str(crash.core), "--no-default-symbols"]
    done = subprocess.run(
        [sys.executable, *words, "-s", crash.kernel.folder / "vmlinux", script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5.10.")
    assert re.search(r"^sysrq_handle_crash \S*drivers/tty/sysrq\.c \d+$", done.stdout, re.M)


def test_gdb_attaches_to_a_guest(crash: Crash, kernel_store: Store) -> None:
    """By the line that is printed, with the scripts of the tree; then the guest goes on."""
    words = ["shell", "ROW=demo", "SERIES=none", "ACCEL=tcg", "GDB=1", f"CONFIG+={FRAGMENT}"]
    with subprocess.Popen(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=ROOT,
        env=os.environ | {"COWBELL_STORE": str(kernel_store.root)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as shell:
        assert shell.stdin
        assert shell.stderr
        line = next(line for line in shell.stderr if line.startswith("gdb "))
        socket = Path(line.split()[-1].rstrip("'\n"))
        assert socket.is_socket()
        assert socket.parent.stat().st_mode & 0o77 == 0
        more = ["-batch", "-ex", "lx-version", "-ex", "info line do_wp_page", "-ex", "detach"]
        done = subprocess.run(
            [*shlex.split(line), *more], capture_output=True, text=True, timeout=300, check=False
        )
        assert "Linux version 5.10." in done.stdout, done.stderr
        assert re.search(r'Line \d+ of ".*mm/memory\.c"', done.stdout)
        said, _ = shell.communicate("echo still $((40 + 2)) here\nexit 7\n", timeout=300)
    assert said == "still 42 here\n"
    assert shell.returncode == 7
    assert not socket.parent.exists()


def test_traces_of_a_test(machine: Machine, kernel_store: Store) -> None:
    """The functions, events and kprobes of two tests that share a guest, each in a file of its own."""
    words = "function_graph:do_wp_page,kmem:mm_page_alloc,p:broken do_wp_page vmf=%di"
    traces = run_traced(machine, kernel_store, words, "fork.basic-cow", "fork.basic-cow")
    assert len(traces) == 2
    for trace in traces:
        assert trace.startswith("# cowbell: lost: ")
        # the call graph of a function, with the time stamps of the kernel log
        assert re.search(r"^ +\d+\.\d+ \|.* do_wp_page\(\) \{$", trace, re.M)
        assert "wp_page_copy" in trace
        assert "mm_page_alloc: page=" in trace
        assert re.search(r"broken: \(do_wp_page\+0x0/0x\w+\) vmf=0x\w{16}", trace)
        assert len(trace) < 3 << 20


def test_the_functions_of_a_test(machine: Machine, kernel_store: Store) -> None:
    (trace,) = run_traced(machine, kernel_store, "function:do_wp_page,wp_page_*", "fork.basic-cow")
    assert re.search(r" do_wp_page <-\w+$", trace, re.M)
    names = set(re.findall(r": (\w+) <-", trace))
    assert {"do_wp_page", "wp_page_copy"} <= names
    assert all(name == "do_wp_page" or name.startswith("wp_page_") for name in names)


def run_traced(machine: Machine, store: Store, words: str, *tests: str) -> list[str]:
    """The traces of tests that pass in one guest."""
    shape = replace(machine.shape, memory_mib=1024)
    traced = replace(machine, shape=shape, trace=parse_trace(words))
    known = {test.id: test for test in load_declarations(ROOT).tests}
    lib_dir = ROOT / "guest-tests/lib"
    programs = [
        replace(compile_test(known[name], machine.kernel.request.toolchain, lib_dir, store), trial=number)
        for number, name in enumerate(tests, 1)
    ]
    with store.scratch("traces") as folder:
        results = list(run_tests(traced, programs, lib_dir, folder, QuietProgress()))
        assert {result.boot for result in results} == {"boot-1"}
        subtests = {name: known[name].subtests for name in tests}
        for result in results:
            job = JobRecord("demo", "plain", "x86_64", "tree", "", subtests, results=(result,))
            assert {verdict.raw for verdict in judge_job(job)} == {Status.PASS}, judge_job(job)
        return [Path(result.trace).read_text() for result in results]


def test_a_function_that_is_not_there_is_no_failure_of_the_kernel(
    machine: Machine, kernel_store: Store, tmp_path: Path
) -> None:
    traced = replace(machine, trace=parse_trace("function:do_wp_pages"))
    with pytest.raises(StageFailure, match="does not trace the function do_wp_pages") as caught:
        press("c", traced, kernel_store, tmp_path)
    assert caught.value.stage == "setup"


def test_a_panic_takes_the_trace_with_it(machine: Machine, kernel_store: Store, tmp_path: Path) -> None:
    result = press("c", replace(machine, trace=parse_trace("function:do_wp_page")), kernel_store, tmp_path)
    assert result.ended is Ended.RESET
    assert judge(result).reason == "Kernel panic - not syncing: sysrq triggered crash"
    assert result.trace.startswith("none: it was lost with the guest")
