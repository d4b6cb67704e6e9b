# SPDX-License-Identifier: GPL-2.0-or-later
"""The postmortem of a lost guest from QEMU, network and serial line, without a real guest."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.guest.connection import Channels, GoneReason, Guest, Keys
from orchestrator.guest.hostwatch import HostWatch
from orchestrator.guest.qemu import Machine, count_oom_kills, make_argv
from orchestrator.guest.qmp import Monitor
from orchestrator.guest.rootfs import Rootfs
from orchestrator.guest.serial import SerialLine
from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain
from orchestrator.kernel.kconfig import Config
from orchestrator.process import command
from orchestrator.process.command import Deadline
from orchestrator.project.arch import ARCHES
from orchestrator.project.guest import GuestShape
from orchestrator.result.record import Ended
from orchestrator.run import postmortem
from orchestrator.run.postmortem import find_ending
from tests.conftest import wait_for
from tests.kernels import SOURCE

MakeGuest = Callable[..., Guest]


@pytest.fixture
def make_guest(tmp_path: Path, fakes: Path) -> Iterator[MakeGuest]:
    """``make_guest(steps, port)``: a guest of the fake QEMU whose SSH would be on a port of this host."""
    with contextlib.ExitStack() as stack:

        def make(steps: str, port: int = 1) -> Guest:
            image = tmp_path / "vmlinux"
            image.write_text(steps)
            request = BuildRequest(
                SOURCE, Config("id", "x86_64", (), ""), ARCHES["x86_64"], Toolchain("gcc", (), "")
            )
            kernel = Kernel(request, tmp_path, image, "0123abcd")
            machine = Machine(kernel, Rootfs("id", tmp_path / "root.img"), GuestShape(1, 64), "kvm", 1)
            ends = [end for _ in range(2) for end in socket.socketpair()]
            inherited = (ends[1].fileno(), ends[3].fileno())
            argv = make_argv(machine, str(fakes / "qemu-system-x86_64"), tmp_path, *inherited)
            process = stack.enter_context(
                command.start(argv, output=tmp_path / "qemu.log", pass_fds=inherited)
            )
            ends[1].close()
            ends[3].close()
            serial = stack.enter_context(
                contextlib.closing(SerialLine(ends[0], tmp_path / "console.log", limit=100))
            )
            monitor = stack.enter_context(contextlib.closing(Monitor(ends[2])))
            monitor.connect(Deadline.after(10))
            assert monitor.read_status() == "running"
            watch = stack.enter_context(
                contextlib.closing(HostWatch(process, serial, monitor, tmp_path / "qemu.log"))
            )
            lines = Channels(serial, monitor, watch, port, Keys.make(), count_oom_kills())
            return Guest(machine, tmp_path, process, None, 1.0, 0, lines)  # type: ignore[arg-type]

        yield make


@pytest.fixture
def mute_port() -> Iterator[int]:
    """A port that accepts connections, but sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("steps", "ended", "how"),
    [
        ("reason guest-reset\nexit 0\n", Ended.RESET, "QEMU reports guest-reset"),
        ("reason guest-shutdown\nexit 0\n", Ended.POWER_OFF, "QEMU reports guest-shutdown"),
        ("exit 0\n", Ended.RESET, "QEMU ended"),
    ],
)
def test_guest_that_ended_by_itself(make_guest: MakeGuest, steps: str, ended: Ended, how: str) -> None:
    ending = find_ending(make_guest(f"wait\n{steps}"), GoneReason.CONNECTION)
    assert (ending.ended, ending.how) == (ended, how)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("kill KILL", "QEMU was killed by signal 9"),
        ("kill ABRT", "QEMU crashed"),
        ("exit 1", "QEMU ended with status 1"),
    ],
)
def test_qemu_that_failed_is_the_host_s(make_guest: MakeGuest, step: str, words: str) -> None:
    guest = make_guest(f"wait\n{step}\n")
    with pytest.raises(InfraError, match=words):
        find_ending(guest, GoneReason.END)


def test_stopped_qemu_is_the_host_s(make_guest: MakeGuest) -> None:
    guest = make_guest("hang\n")
    os.kill(guest.process.pid, signal.SIGSTOP)
    wait_for(lambda: command.is_stopped(guest.process))
    with pytest.raises(InfraError, match="QEMU is stopped"):
        find_ending(guest, GoneReason.TIMEOUT)
    os.kill(guest.process.pid, signal.SIGCONT)


def test_stopped_qemu_is_noticed_at_once_and_a_moment_is_not(make_guest: MakeGuest) -> None:
    guest, disconnected = make_guest("hang\n"), threading.Event()
    guest.channels.watch.on_failure(disconnected.set)
    for _ in range(3):
        os.kill(guest.process.pid, signal.SIGSTOP)
        wait_for(lambda: command.is_stopped(guest.process))
        os.kill(guest.process.pid, signal.SIGCONT)
        assert not disconnected.wait(0.4)
    guest.channels.watch.check()
    os.kill(guest.process.pid, signal.SIGSTOP)
    assert disconnected.wait(5)
    # whoever waits for an answer of the guest stops waiting, and says why
    os.kill(guest.process.pid, signal.SIGCONT)
    with pytest.raises(InfraError, match="QEMU is stopped"):
        find_ending(guest, GoneReason.CONNECTION)


def test_io_error_of_the_host_is_noticed_at_once(make_guest: MakeGuest) -> None:
    guest, disconnected = make_guest("wait\nio-error Input/output error\nhang\n"), threading.Event()
    guest.channels.watch.on_failure(disconnected.set)
    assert disconnected.wait(5)
    with pytest.raises(InfraError, match="the host's disk is full or failed: write .*: Input/output error"):
        find_ending(guest, GoneReason.TIMEOUT)


def test_unwritable_console_is_an_infrastructure_error(make_guest: MakeGuest) -> None:
    guest = make_guest("hang\n")
    guest.channels.serial.error = OSError(28, "No space left on device")
    with pytest.raises(InfraError, match="No space left"):
        find_ending(guest, GoneReason.TIMEOUT)


def test_flood(make_guest: MakeGuest) -> None:
    guest = make_guest(f"print {'x' * 1000}\nhang\n")
    wait_for(lambda: guest.channels.serial.dropped)
    assert find_ending(guest, GoneReason.FLOOD).ended is Ended.FLOOD


@pytest.mark.parametrize(
    ("reason", "ended"), [(GoneReason.CONNECTION, Ended.SSH_LOST), (GoneReason.TIMEOUT, Ended.TIMEOUT)]
)
def test_kernel_that_refuses_ssh_lives(make_guest: MakeGuest, reason: GoneReason, ended: Ended) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    ending = find_ending(make_guest("hang\n", port), reason)
    assert ending.ended is ended
    assert ending.how == "its network refuses SSH; CPU 0 in user space"


def test_kernel_that_takes_a_connection_lives(
    make_guest: MakeGuest, mute_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postmortem, "_LOGIN_S", 0.1)
    ending = find_ending(make_guest("hang\n", mute_port), GoneReason.TIMEOUT)
    assert ending.ended is Ended.TIMEOUT
    assert ending.how.startswith("its network answers, its SSH server does not")


def test_silent_network_is_a_hang(make_guest: MakeGuest, mute_port: int) -> None:
    ending = find_ending(make_guest("silent\nhang\n", mute_port), GoneReason.TIMEOUT)
    assert ending.ended is Ended.HANG
    assert ending.how == "it answers neither SSH nor network; CPU 0 in user space"
    assert ending.requested_at == 0


def test_answer_to_sysrq_shows_that_the_kernel_lives(make_guest: MakeGuest, mute_port: int) -> None:
    ending = find_ending(make_guest("silent\nsysrq\nhang\n", mute_port), GoneReason.TIMEOUT)
    assert ending.ended is Ended.TIMEOUT
    assert "answers SysRq" in ending.how
    assert "sysrq: w" in ending.output and "sysrq: t" in ending.output
