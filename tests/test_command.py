# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands: what they see, what is kept of what they say, and that nothing of them outlives its reason."""

import contextlib
import os
import signal
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.process import command
from orchestrator.process.command import Deadline, read_wait_s
from tests.conftest import is_running, read_line, start_python, wait_for

# a child and a grandchild write their pids and stay
FAMILY = "echo $$ > child; sh -c 'echo $$ > grandchild; exec sleep 600' & wait"
# the same, with a grandchild that takes no hint
DEAF = "echo $$ > child; sh -c 'trap \"\" TERM; echo $$ > grandchild; sleep 600; sleep 600' & wait"


def read_pids(folder: Path) -> list[int]:
    files = [folder / "child", folder / "grandchild"]
    wait_for(lambda: all(file.exists() and file.read_text().endswith("\n") for file in files))
    return [int(file.read_text()) for file in files]


def assert_ended(pids: list[int]) -> None:
    wait_for(lambda: not any(map(is_running, pids)))


def test_a_deadline_is_put_off_by_what_somebody_else_took() -> None:
    taken = [100.0]
    deadline = Deadline.after(0.0, lambda: taken[0])
    assert deadline.is_over
    taken[0] += 50
    assert 49 < deadline.remaining_s() <= 50
    assert deadline.allowed_s == 0.0


def test_tools_of_administrators_are_found_by_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert Path(command.find_tool("depmod", "kmod")).parent.name == "sbin"
    assert command.run(["sh", "-c", "command -v depmod"]).output.endswith("sbin/depmod")


def test_time_without_a_cpu_is_known() -> None:
    """Two loops on one CPU: each waits while the other runs."""
    cpu = min(os.sched_getaffinity(0))
    loop = f"import os; os.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    loops = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(2)]
    try:
        wait_for(lambda: all(read_wait_s(one.pid) > 0.1 for one in loops))
    finally:
        for one in loops:
            one.kill()
            one.wait()
    assert read_wait_s(loops[0].pid) == 0.0


def test_output_status_and_time() -> None:
    done = command.run(["sh", "-c", "echo one; echo two >&2; exit 3"], check=False)
    assert (done.returncode, done.output) == (3, "one\ntwo")
    assert done.wall_s > 0
    assert done.line == "sh -c 'echo one; echo two >&2; exit 3'"


def test_cpu_time_is_the_command_s() -> None:
    busy = command.run(["sh", "-c", "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done"])
    assert busy.cpu_s > 0.02
    assert command.run(["sleep", "0.2"]).cpu_s < 0.1


def test_failure_carries_command_status_and_words() -> None:
    with pytest.raises(InfraError) as raised:
        command.run(["sh", "-c", "echo cannot open the frobnicator; exit 4"])
    assert raised.value.what == "sh ended with status 4"
    assert "cannot open the frobnicator" in raised.value.hint
    assert "sh -c 'echo cannot" in raised.value.hint


def test_full_disk_is_told_by_name() -> None:
    with pytest.raises(InfraError, match=r"no space left on device \(dd\)"):
        command.run(["dd", "if=/dev/zero", "of=/dev/full", "count=1"])


def test_missing_tool_names_its_package() -> None:
    with pytest.raises(InfraError) as raised:
        command.find_tool("qemu-system-frob", "qemu-system-misc")
    assert raised.value.what == "qemu-system-frob is not installed"
    assert raised.value.hint == "apt-get install --no-install-recommends qemu-system-misc"


def test_missing_folder_is_the_host_s_trouble(tmp_path: Path) -> None:
    with pytest.raises(InfraError, match="true cannot be started"):
        command.run(["true"], cwd=tmp_path / "absent")


def test_environment_is_filtered(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ARCH", "CROSS_COMPILE", "MAKEFLAGS", "LANG", "KBUILD_OUTPUT", "PYTHONPATH", "KCFLAGS"):
        monkeypatch.setenv(name, "de_DE")
    monkeypatch.setenv("https_proxy", "proxy:1")
    monkeypatch.setenv("CCACHE_DIR", "/cache")
    seen = dict(line.split("=", 1) for line in command.run(["env"], env={"MORE": "1"}).output.splitlines())
    wanted = {"https_proxy": "proxy:1", "CCACHE_DIR": "/cache", "LC_ALL": "C", "MORE": "1"}
    assert wanted.items() <= seen.items()
    assert "de_DE" not in seen.values()
    assert seen["HOME"] == os.environ["HOME"]


def test_standard_input_is_empty_or_what_was_given() -> None:
    assert command.run(["cat"], deadline=Deadline.after(10)).output == ""
    data = b"0123456789abcde\n" * (1 << 16)
    assert command.run(["wc", "-c"], stdin=data, deadline=Deadline.after(10)).output == str(len(data))


def test_output_that_is_not_utf_8() -> None:
    assert command.run(["printf", r"caf\351\r\nno end"]).output == "caf\ufffd\nno end"


def test_log_has_everything_and_memory_the_tail(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines: list[str] = []
    done = command.run(["seq", "1000"], log=log, on_line=lines.append)
    assert log.read_text() == "".join(f"{i}\n" for i in range(1, 1001))
    assert lines == [str(i) for i in range(1, 1001)]
    assert done.output.splitlines() == [str(i) for i in range(981, 1001)]
    assert done.log == log


def test_log_is_written_as_it_comes(tmp_path: Path) -> None:
    """What is said before a kill -9 is on disk, and a long build can be watched."""
    log = tmp_path / "log"
    on_disk: list[str] = []
    talk = ["sh", "-c", "echo one; sleep 0.1; echo two"]
    command.run(talk, log=log, on_line=lambda _: on_disk.append(log.read_text()))
    assert on_disk == ["one\n", "one\ntwo\n"]


@pytest.mark.parametrize("line", ["x" * 1023 + "\n", "x" * 1024], ids=["lines", "one line without end"])
def test_huge_output_does_not_fill_memory(tmp_path: Path, line: str) -> None:
    data = tmp_path / "data"
    data.write_text(line * (16 << 10))
    tracemalloc.start()
    try:
        command.run(["cat", str(data)], log=tmp_path / "log", deadline=Deadline.after(30))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (tmp_path / "log").stat().st_size == data.stat().st_size
    assert peak < 4 << 20


def test_deadline_ends_the_group_and_shows_the_tail(tmp_path: Path) -> None:
    began = time.monotonic()
    with pytest.raises(InfraError) as raised:
        command.run(["sh", "-c", f"echo so far; {FAMILY}"], cwd=tmp_path, deadline=Deadline.after(2))
    assert raised.value.what.startswith("sh did not end within")
    assert "so far" in raised.value.hint
    assert time.monotonic() - began < 30
    assert_ended(read_pids(tmp_path))


def test_deadline_holds_for_a_command_that_never_stops_talking() -> None:
    began = time.monotonic()
    with pytest.raises(InfraError, match="did not end"):
        command.run(["sh", "-c", "while echo on; do sleep 0.01; done"], deadline=Deadline.after(0.3))
    assert time.monotonic() - began < 30


def test_exception_ends_the_group(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), command.start(["sh", "-c", FAMILY], cwd=tmp_path):
        pids = read_pids(tmp_path)
        assert all(map(is_running, pids))
        raise ZeroDivisionError
    assert_ended(pids)


def test_callback_that_raises_ends_the_group(tmp_path: Path) -> None:
    def stop(line: str) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        command.run(["sh", "-c", f"{{ sleep 0.2; echo go; }} & {FAMILY}"], cwd=tmp_path, on_line=stop)
    assert_ended(read_pids(tmp_path))


def test_grandchild_that_ignores_sigterm_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE_S", 0.3)
    with command.start(["sh", "-c", DEAF], cwd=tmp_path):
        pids = read_pids(tmp_path)
    try:
        assert_ended(pids)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pids[0], signal.SIGKILL)


def test_child_that_ignores_sigterm_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "GRACE_S", 0.3)
    with command.start(["sh", "-c", f'trap "" TERM; {FAMILY}'], cwd=tmp_path):
        pids = read_pids(tmp_path)
    assert_ended(pids)


@pytest.mark.parametrize("death_signal", ["TERM", "KILL"])
def test_child_dies_with_us(death_signal: str) -> None:
    script = (
        "from orchestrator.process import command; import signal\n"
        f"with command.start(['sleep', '600'], death_signal={death_signal!r}) as process:\n"
        "    print(process.pid, flush=True); signal.pause()\n"
    )
    with start_python(script) as parent:
        child = int(read_line(parent))
        # the signal is set once setpriv has become sleep
        wait_for(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
        parent.kill()
        parent.wait()
        assert_ended([child])
