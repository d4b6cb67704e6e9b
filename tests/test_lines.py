# SPDX-License-Identifier: GPL-2.0-or-later
"""The channels to a guest: a console of limited size, and QEMU's monitor, without a guest."""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.guest.qmp import Monitor, MonitorGone
from orchestrator.guest.serial import SerialLine
from orchestrator.process.command import Deadline
from tests.conftest import wait_for

MakeLine = Callable[..., tuple[SerialLine, socket.socket]]


@pytest.fixture
def make_line(tmp_path: Path) -> Iterator[MakeLine]:
    """A serial line and the guest's end of it."""
    with contextlib.ExitStack() as stack:

        def make(limit: int = 1000, log: Path = tmp_path / "console.log") -> tuple[SerialLine, socket.socket]:
            ours, guests = socket.socketpair()
            stack.callback(guests.close)
            return stack.enter_context(contextlib.closing(SerialLine(ours, log, limit))), guests

        yield make


def test_console_comes_whole(make_line: MakeLine) -> None:
    line, guest = make_line()
    guest.sendall(b"caf\xe9 \x1b[2J\r\n")
    guest.close()
    line.finish(5)
    assert line.log.read_bytes() == b"caf\xe9 \x1b[2J\r\n"
    assert (line.dropped, line.panicked_at, line.error) == (0, None, None)
    assert line.read_from(4) == " \x1b[2J\r\n"


def test_flood_is_bounded_and_counted(make_line: MakeLine) -> None:
    line, guest = make_line(limit=1000)
    for _ in range(100):
        guest.sendall(bytes(1 << 16))
    wait_for(lambda: line.dropped == (100 << 16) - 1000)
    assert line.log.stat().st_size == 1000
    # the next test has as much for itself
    line.allow()
    guest.sendall(b"x" * 1001)
    guest.close()
    line.finish(5)
    assert line.log.read_bytes()[1000:] == b"x" * 1000
    assert line.dropped == (100 << 16) - 1000 + 1


def test_panic_is_noticed_across_blocks_and_beyond_the_limit(make_line: MakeLine) -> None:
    line, guest = make_line(limit=10)
    guest.sendall(b"a long line before it: Kernel panic - not")
    wait_for(lambda: line.dropped > 0)
    assert line.panicked_at is None
    guest.sendall(b" syncing: because\n")
    wait_for(lambda: line.panicked_at is not None)


def test_full_disk_does_not_stop_the_reading(make_line: MakeLine) -> None:
    line, guest = make_line(log=Path("/dev/full"))
    guest.sendall(b"one")
    wait_for(lambda: line.error is not None)
    guest.setblocking(False)
    wait_for(lambda: guest.send(bytes(1 << 12)))
    guest.close()
    line.finish(5)
    assert line.error and line.error.strerror == "No space left on device"


def test_what_is_typed_arrives(make_line: MakeLine) -> None:
    line, guest = make_line()
    line.type("w")
    assert guest.recv(10) == b"w"
    guest.close()
    line.type("nobody is there")


class Qemu(threading.Thread):
    """QEMU's end of the monitor: answers from a table, and does not answer other commands."""

    def __init__(self, channel: socket.socket, answers: dict[str, object]) -> None:
        super().__init__(daemon=True)
        self.channel, self.answers = channel, answers

    def tell(self, **message: object) -> None:
        self.channel.sendall(json.dumps(message).encode() + b"\r\n")

    def run(self) -> None:
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}
        self.tell(QMP={"version": version, "capabilities": []})
        with contextlib.suppress(OSError):
            while request := self.channel.recv(1 << 16):
                told = json.loads(request)
                if told["execute"] in self.answers:
                    self.tell(**{"return": self.answers[told["execute"]], "id": told.get("id")})

    def end(self) -> None:
        self.channel.shutdown(socket.SHUT_RDWR)


MakeMonitor = Callable[..., tuple[Monitor, Qemu]]


@pytest.fixture
def make_monitor() -> Iterator[MakeMonitor]:
    with contextlib.ExitStack() as stack:

        def make(**answers: object) -> tuple[Monitor, Qemu]:
            ours, theirs = socket.socketpair()
            stack.callback(theirs.close)
            monitor = stack.enter_context(contextlib.closing(Monitor(ours)))
            qemu = Qemu(
                theirs, {"qmp_capabilities": {}, **{k.replace("_", "-"): v for k, v in answers.items()}}
            )
            qemu.start()
            monitor.connect(Deadline.after(5))
            return monitor, qemu

        yield make


USERNET = """Hub -1 (net):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[HOST_FORWARD]   3       127.0.0.1 35991       10.0.2.15    22     0     0
"""
REGISTERS = """
CPU#0
RIP=ffffffff8126f4d0 RFL=00000007 [-----PC] CPL=0 II=0 A20=1 SMM=0 HLT=0
CPU#1
 PC=ffff800010012345  SP=ffff800011d43e90
"""


def test_monitor_answers(make_monitor: MakeMonitor) -> None:
    monitor, _ = make_monitor(query_status={"status": "running"}, human_monitor_command=USERNET)
    assert monitor.read_status() == "running"
    assert monitor.read_ssh_port() == 35991
    monitor, _ = make_monitor(human_monitor_command=REGISTERS)
    assert monitor.read_program_counters() == [0xFFFFFFFF8126F4D0, 0xFFFF800010012345]
    with pytest.raises(MonitorGone, match="does not report the port"):
        monitor.read_ssh_port()


def test_last_words_are_read_after_the_end(make_monitor: MakeMonitor) -> None:
    monitor, qemu = make_monitor()
    assert monitor.find_shutdown() == ""
    stamp = {"seconds": 1, "microseconds": 0}
    qemu.tell(event="RESET", timestamp=stamp, data={"guest": True, "reason": "guest-reset"})
    qemu.tell(event="SHUTDOWN", timestamp=stamp, data={"guest": True, "reason": "guest-reset"})
    qemu.end()
    assert monitor.find_shutdown() == "guest-reset"
    with pytest.raises(MonitorGone):
        monitor.read_status()


def test_mute_monitor_is_not_waited_for(make_monitor: MakeMonitor) -> None:
    monitor, _ = make_monitor(query_status={"status": "paused"})
    with pytest.raises(MonitorGone, match="did not answer within 0 s"):
        monitor.execute("stop", limit_s=0.1)
    # a late answer to what was given up does no harm to what is asked next
    assert monitor.read_status() == "paused"


def test_monitor_that_speaks_nonsense(make_monitor: MakeMonitor) -> None:
    monitor, qemu = make_monitor()
    qemu.channel.sendall(b"\xff not JSON\r\n")
    with pytest.raises(MonitorGone):
        monitor.read_status()
