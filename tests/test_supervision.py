# SPDX-License-Identifier: GPL-2.0-or-later
"""How guests die, with real ones: each death gets its verdict in time, and nothing is left behind.

The kernel is the demo row's plain one. Some handlers of its magic SysRq keys are replaced in a copy of its
image, so that a test can have the real thing: an oops, CPUs that spin, a triple fault.
"""

import os
import signal
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import Rootfs, make_rootfs
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.steps import build_job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.guest import GuestShape
from orchestrator.project.guesttest import load_tests
from orchestrator.result.record import JobRecord, TrialResult
from orchestrator.result.verdict import Verdict, judge_job
from orchestrator.run.compile import compile_test
from orchestrator.run.runner import run_tests
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, find_processes, wait_for
from tests.guestprograms import render_test

pytestmark = pytest.mark.kernel


# SysRq key and handler, and the machine code that takes its place
SABOTAGE = {
    "sysrq_handle_unrt": "0f0b",  # n: ud2
    "sysrq_handle_thaw": "ebfe",  # j: jmp .
    "sysrq_handle_show_timers": "faebfe",  # q: cli; jmp .
    # p: lidt of an empty table, ud2
    "sysrq_handle_showregs": "4883ec10 48c7042400000000 48c744240800000000 0f011c24 0f0b",
}

# what a test does in the guest, the verdict, and words of its reason
FAULTS = {
    "aftermath": (
        """/* what a kernel would find out late: after the end of the test, while its guest is being ended */
	if (!fork()) {
		char line[1000];
		FILE *log = fopen("/dev/kmsg", "r");

		setsid();
		fclose(stdin), fclose(stdout), fclose(stderr);
		while (fgets(line, sizeof(line), log) && !strstr(line, "cowbell: end fault.aftermath"))
			;
		system("echo 'WARNING: CPU: 0 PID: 1 at mm/memory.c:1 late+0x1/0x2' > /dev/kmsg");
		_exit(0);
	}
	gt_pass("looks well");""",
        "crash",
        "WARNING at mm/memory.c:1 late",
    ),
    "disk": (
        """static char block[1 << 20];
	int fd = open("big", O_CREAT | O_WRONLY, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		;
	gt_broken("write: %s", strerror(errno));""",
        "broken",
        "No space left on device",
    ),
    "escapes": (
        """FILE *log = fopen("/dev/kmsg", "w");
	fprintf(log, "\\033]0;title\\007\\033[2J\\033[31mKTAP version 1\\n"), fflush(log);
	fprintf(log, "1..1\\n"), fflush(log);
	fprintf(log, "ok 1 fault.escapes\\n"), fflush(log);
	log = fopen("/dev/console", "w");
	fprintf(log, "\\033[2J\\033]0;title\\007\\r\\nKTAP version 1\\r\\n1..1\\r\\nok 1 fault.escapes\\r\\n");
	fprintf(log, "cowbell: ready\\r\\ncowbell: end fault.escapes\\r\\n"), fflush(log);
	_exit(0);""",
        "broken",
        "",
    ),
    "flood": (
        """static char line[1024];
	FILE *log = fopen("/dev/console", "w");
	memset(line, 'x', sizeof(line) - 2);
	line[sizeof(line) - 2] = '\\n';
	for (int i = 0; i < 1 << 20; i++)
		fputs(line, log);
	gt_pass("a GiB");""",
        "broken",
        "flooded the console",
    ),
    "irqs-off": (
        """for (int cpu = 0; cpu < 2; cpu++)
		if (!fork()) {
			cpu_set_t set;

			CPU_ZERO(&set);
			CPU_SET(cpu, &set);
			sched_setaffinity(0, sizeof(set), &set);
			press("q");
		}
	for (;;)
		pause();""",
        "crash",
        "it answers neither SSH nor network; CPU 0 in sysrq_handle_show_timers, "
        "CPU 1 in sysrq_handle_show_timers",
    ),
    "memory": (
        """for (;;)
		memset(malloc(1 << 20), 1, 1 << 20);""",
        "broken",
        "the guest ran out of memory (Out of memory: Killed process",
    ),
    "oops": ('press("n"); gt_pass("survived");', "crash", "invalid opcode"),
    "panic": (
        'press("c"); gt_pass("survived");',
        "crash",
        "Kernel panic - not syncing: sysrq triggered crash",
    ),
    "panic-forged": (
        'system("echo Kernel panic - not syncing: forged > /dev/kmsg"); gt_pass("lied");',
        "broken",
        "a program wrote to the kernel log, which goes on after it: Kernel panic - not syncing: forged",
    ),
    "panic-forged-long": (
        'system("echo Kernel panic - not syncing: forged > /dev/kmsg; sleep 12"); gt_pass("lied");',
        "broken",
        "a program wrote to the kernel log, which goes on after it: Kernel panic - not syncing: forged",
    ),
    "panic-not": ('gt_pass("in the guest of the forged ones");', "pass", ""),
    "panic-stays": (
        'system("echo 0 > /proc/sys/kernel/panic"); press("c"); gt_pass("survived");',
        "crash",
        "Kernel panic - not syncing: sysrq triggered crash",
    ),
    "reboot": ("reboot(RB_AUTOBOOT);", "broken", "shut itself down"),
    "soft-lockup": (
        'system("echo 1 > /proc/sys/kernel/watchdog_thresh"); press("j");',
        "crash",
        "BUG: soft lockup",
    ),
    "ssh": (
        'system("killall -9 dropbear"); for (;;) pause();',
        "broken",
        "SSH was lost, but the kernel runs: its network",
    ),
    "stuck": ("signal(SIGALRM, SIG_IGN); for (;;) pause();", "timeout", "the guest answers"),
    "triple": ('press("p"); gt_pass("survived");', "crash", "(triple fault?): QEMU reports guest-reset"),
    "unusable": (
        'system("mount -t tmpfs none /bin"); gt_pass("hid all programs");',
        "broken",
        "the taint of the kernel could not be read",
    ),
    "unusable-disk": (
        'system("mount -o remount,ro /"); gt_pass("nothing can be written");',
        "broken",
        "its guest could not be used afterwards: sh: 1: cannot create /work/usable: Read-only file system",
    ),
    "unusable-log": (
        'system("dmesg -n 1; echo N > /sys/module/printk/parameters/ignore_loglevel"); gt_pass("mute");',
        "broken",
        "the kernel log did not reach the console",
    ),
    "well": ('gt_pass("and the guests go on");', "pass", ""),
}


PRESS = """\
#include <fcntl.h>
#include <sched.h>
#include <sys/reboot.h>

static inline void press(const char *key)
{
	int fd = open("/proc/sysrq-trigger", O_WRONLY);

	if (write(fd, key, 1) != 1)
		gt_broken("no sysrq");
}
"""


def make_fault(name: str, body: str) -> str:
    limit_s = 1 if name in ("irqs-off", "soft-lockup", "stuck", "wait") else 60
    return render_test(body, timeout_s=limit_s, may_crash=name == "aftermath", head=PRESS)


def sabotage(vmlinux: Path, copy: Path) -> Path:
    """A copy of the kernel in which the handlers do something else."""
    listed = subprocess.run(["nm", vmlinux], capture_output=True, text=True, check=True).stdout
    addresses = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines() if line[0] != " "}
    image = bytearray(vmlinux.read_bytes())
    (table,) = struct.unpack_from("<Q", image, 32)
    (count,) = struct.unpack_from("<H", image, 56)
    segments = [struct.unpack_from("<II6Q", image, table + 56 * number) for number in range(count)]
    for name, code in SABOTAGE.items():
        (offset,) = (
            begin + addresses[name] - address
            for kind, _, begin, address, _, size, _, _ in segments
            if kind == 1 and address <= addresses[name] < address + size
        )
        machine_code = bytes.fromhex(code)
        image[offset : offset + len(machine_code)] = machine_code
    copy.write_bytes(image)
    return copy


@dataclass
class Bench:
    """Runs faults on the sabotaged kernel, and knows where what they leave would be."""

    machine: Machine
    store: Store
    folder: Path

    def run(self, faults: dict[str, str], machine: Machine | None = None) -> list[TrialResult]:
        results: list[TrialResult] = []
        for result in self.go(faults, machine):
            results.append(result)
        return results

    def go(
        self, faults: dict[str, str], machine: Machine | None = None, *, is_own: bool = False
    ) -> Iterator[TrialResult]:
        """The results of faults, as of built-in tests, or as of a user's own."""
        project = self.folder / "project"
        (project / "fault").mkdir(parents=True)
        for name, body in faults.items():
            (project / "fault" / f"{name}.c").write_text(make_fault(name, body))
        lib_dir = ROOT / "guest-tests" / "lib"
        toolchain = self.machine.kernel.request.toolchain
        programs = [
            compile_test(test, toolchain, lib_dir, self.store)
            for test in load_tests(project, None if is_own else project / "lib")
        ]
        return run_tests(machine or self.machine, programs, lib_dir, self.results, QuietProgress())

    @property
    def results(self) -> Path:
        return self.folder / "results"

    def check_clean(self) -> None:
        """No process is left, and no file that grew with what a guest did."""
        assert find_processes(str(self.results)) == []
        assert sum(path.stat().st_size for path in self.results.rglob("*")) < 16 << 20


@pytest.fixture(scope="session")
def machine(kernel_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    declared = load_declarations(ROOT)
    place = Workspace(ROOT, kernel_store, QuietProgress())
    (job,) = (job for job in make_plan(Request(rows=("demo",)), declared) if job.variant.name == "plain")
    kernel = build_job(job, declared, place)
    image = sabotage(kernel.folder / "vmlinux", tmp_path_factory.mktemp("kernel") / "vmlinux")
    rootfs = make_rootfs(kernel.request.arch, kernel_store, place.progress)
    # a disk that is soon full
    small = image.with_name("root.img")
    subprocess.run(["cp", "--sparse=always", rootfs.image, small], check=True)
    subprocess.run(["resize2fs", "-f", small, "400M"], check=True, capture_output=True)
    rootfs = replace(rootfs, image=small)
    return Machine(replace(kernel, image=image), rootfs, GuestShape(2, 256), "tcg", boot_limit_s=20)


@pytest.fixture
def bench(machine: Machine, kernel_store: Store, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(machine, kernel_store, tmp_path)
    yield found
    found.check_clean()


@pytest.fixture(scope="session")
def outcomes(
    machine: Machine, kernel_store: Store, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, tuple[TrialResult, Verdict]]:
    """Every fault in one run, in guests as fresh as they have to be."""
    found = Bench(machine, kernel_store, tmp_path_factory.mktemp("faults"))
    results = found.run({name: body for name, (body, _, _) in FAULTS.items()})
    found.check_clean()
    assert [result.test for result in results] == [f"fault.{name}" for name in FAULTS]
    return {result.test.removeprefix("fault."): (result, judge([result])[0]) for result in results}


def judge(results: Sequence[TrialResult]) -> tuple[Verdict, ...]:
    tests = {result.test: (result.test,) for result in results}
    return judge_job(JobRecord("row", "variant", "x86_64", "tree", "", tests, results=tuple(results)))


@pytest.mark.parametrize("name", FAULTS)
def test_fault(outcomes: dict[str, tuple[TrialResult, Verdict]], name: str) -> None:
    result, verdict = outcomes[name]
    _, status, words = FAULTS[name]
    assert (verdict.status, words in verdict.reason) == (status, True), verdict
    assert verdict.reason or status == "pass"
    assert len(verdict.reason.splitlines()) < 2
    assert "\x1b" not in verdict.reason + verdict.evidence
    assert result.core == ""
    assert ("after the end of the test" in verdict.reason) is (name == "aftermath")


def test_oops_is_survived(outcomes: dict[str, tuple[TrialResult, Verdict]]) -> None:
    """The test after an oops runs in the same guest, and the splat is not counted twice."""
    assert outcomes["oops"][0].boot == outcomes["panic"][0].boot
    assert outcomes["oops"][0].is_guest_usable


def test_hang_leaves_evidence(outcomes: dict[str, tuple[TrialResult, Verdict]]) -> None:
    """The places of all CPUs and the output of an NMI; its panic does not affect the verdict."""
    result, verdict = outcomes["irqs-off"]
    assert "NMI: Not continuing" in result.said
    assert "NMI" not in result.console
    assert "Kernel panic" not in verdict.reason
    stuck, _ = outcomes["stuck"]
    assert "sysrq: Show Blocked State" in stuck.said
    assert "task:fault.stuck" in stuck.said


WAIT = {"wait": "for (;;) pause();", "well": 'gt_pass("before and after");'}


@pytest.mark.parametrize(
    ("number", "words"),
    [(signal.SIGKILL, "QEMU was killed by signal 9"), (signal.SIGSTOP, "QEMU is stopped")],
    ids=["kill -9", "stop"],
)
def test_qemu_that_is_killed_or_stopped(bench: Bench, number: int, words: str) -> None:
    """An infrastructure error: no verdict, earlier results are kept, and the time limit holds."""
    finished: list[TrialResult] = []

    def interfere() -> None:
        consoles = bench.results / "boot-1" / "console.log"
        wait_for(lambda: consoles.exists() and "begin fault.wait" in consoles.read_text(), 60)
        for pid in find_processes(str(bench.results)):
            os.kill(pid, number)

    thread = threading.Thread(target=interfere, daemon=True)
    thread.start()
    began = time.monotonic()
    with pytest.raises(InfraError, match=words):
        finished.extend(bench.go({"a-first": WAIT["well"], "wait-long": WAIT["wait"]}))
    # the time limit of the test is 300 seconds
    assert time.monotonic() - began < 60
    thread.join()
    assert [result.test for result in finished] == ["fault.a-first"]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_full_disk_of_the_host(bench: Bench, tmp_path: Path) -> None:
    """The guest does not see the error, and its time limit is not waited for."""
    write = """static char block[1 << 20];
	int fd = open("big", O_CREAT | O_WRONLY, 0600);
	while (write(fd, block, sizeof(block)) > 0)
		fsync(fd);
	gt_fail("the kernel lost a write");"""
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48M", "none", small], check=True)
    began = time.monotonic()
    try:
        with pytest.raises(InfraError, match="the host's disk is full or failed: write.*No space left"):
            Bench(bench.machine, bench.store, small).run({"big": write})
    finally:
        subprocess.run(["umount", small], check=True)
    assert time.monotonic() - began < 60


def test_own_test_cannot_forge_the_result_of_the_next(bench: Bench) -> None:
    forge = """FILE *next = fopen("/work/tests/fault.b-next", "w");
	fputs("#!/bin/sh\\necho KTAP version 1; echo 1..1; echo ok 1 fault.b-next\\n", next);
	fclose(next);
	gt_pass("the next one passes");"""
    results = list(bench.go({"a-forge": forge, "b-next": 'gt_fail("the truth");'}, is_own=True))
    assert [verdict.status for result in results for verdict in judge([result])] == ["pass", "fail"]
    # as of trusted tests the forgery would work: it is what this test is about
    (bench.folder / "project").rename(bench.folder / "before")
    results = list(bench.go({"a-forge": forge, "b-next": 'gt_fail("the truth");'}))
    assert [verdict.status for result in results for verdict in judge([result])] == ["pass", "pass"]


def test_panic_at_boot(bench: Bench, tmp_path: Path) -> None:
    nothing = tmp_path / "root.img"
    nothing.write_bytes(bytes(1 << 20))
    machine = replace(bench.machine, rootfs=Rootfs("nothing", nothing))
    with pytest.raises(StageFailure, match=r"Kernel panic.*VFS.*did not reach init") as raised:
        bench.run(WAIT, machine)
    assert raised.value.stage == "boot"


def test_parallel_guests_do_not_meet(bench: Bench) -> None:
    """Ports, consoles and monitors are each one's own."""
    results: dict[int, list[TrialResult]] = {}

    def work(number: int) -> None:
        own = Bench(bench.machine, bench.store, bench.folder / str(number))
        results[number] = own.run({f"test-{number}": f'gt_pass("{number}");'})

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = [judge(results[number])[0] for number in range(3)]
    assert [(v.name, v.status) for v in verdicts] == [(f"fault.test-{n}", "pass") for n in range(3)]


def test_memory_is_kept_on_request(bench: Bench) -> None:
    machine = replace(bench.machine, keep_core=True)
    (result,) = bench.run({"panic": 'press("c");'}, machine)
    core = Path(result.core)
    assert core.read_bytes()[:4] == b"\x7fELF"
    # without its zeros
    assert core.stat().st_blocks * 512 < 128 << 20
    assert str(core) in judge([result])[0].evidence
    core.unlink()
