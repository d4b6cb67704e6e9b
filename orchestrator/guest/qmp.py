# SPDX-License-Identifier: GPL-2.0-or-later
"""QEMU's control channel (QMP): sends commands and reads events.

Uses QEMU's own library over a socket that QEMU inherits, so no other process can connect. Calls are
synchronous, from any thread; events are read when they arrive.
"""

import asyncio
import contextlib
import logging
import re
import socket
import threading
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from qemu.qmp import EventListener, QMPClient, QMPError

from orchestrator.errors import InfraError
from orchestrator.process.command import Deadline

# it also logs the errors that it raises
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

T = TypeVar("T")

_ANSWER_S = 10.0
_FORWARDED = re.compile(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)\s")
_PC = re.compile(r"\b(?:RIP|PC|pc)(?:=|\s+)([0-9a-f]{8,16})\b")


class MonitorGone(InfraError):
    """QEMU has ended, or does not answer."""


class Monitor:
    """The control channel of one QEMU, which answers once it has started."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._loop = asyncio.new_event_loop()
        self._client = QMPClient()
        self._events = EventListener()
        self._client.register_listener(self._events)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def connect(self, deadline: Deadline) -> None:
        """Wait until QEMU answers; raises ``MonitorGone`` if it ends or the deadline passes first."""
        self._run(self._client.connect(self._channel), deadline.remaining_s())

    def execute(
        self, word: str, arguments: Mapping[str, object] | None = None, limit_s: float = _ANSWER_S
    ) -> object:
        """Run a QMP command and return its answer; raises ``MonitorGone``."""
        return self._run(self._client.execute(word, arguments), limit_s)

    def ask(self, line: str, limit_s: float = _ANSWER_S) -> str:
        """The answer to a command of QEMU's human monitor."""
        return str(self.execute("human-monitor-command", {"command-line": line}, limit_s))

    def read_status(self) -> str:
        """``running``, ``shutdown``, ``io-error`` and so on: QEMU's RunState."""
        answer = self.execute("query-status")
        assert isinstance(answer, dict)
        return str(answer["status"])

    def read_ssh_port(self) -> int:
        """The port of 127.0.0.1 that the kernel chose for the guest's SSH; raises ``MonitorGone``."""
        found = _FORWARDED.search(self.ask("info usernet"))
        if not found:
            raise MonitorGone("QEMU does not report the port of the guest's SSH")
        return int(found[1])

    def find_event(self, name: str) -> Mapping[str, object]:
        """The data of the first event of this name; empty without one."""
        for event in self._events.history:
            if event.get("event") == name:
                data = event["data"]
                assert isinstance(data, dict)
                return data
        return {}

    def find_shutdown(self) -> str:
        """Why the guest ended (``guest-reset``, ``guest-shutdown`` ...); empty without such an event."""
        with contextlib.suppress(MonitorGone):
            # the event may have arrived with the end of QEMU
            self._run(asyncio.sleep(0.01), 1.0)
        return str(self.find_event("SHUTDOWN").get("reason", ""))

    def read_program_counters(self) -> list[int]:
        """The program counter of each CPU."""
        return [int(found, 16) for found in _PC.findall(self.ask("info registers -a"))]

    def dump_memory(self, path: Path, limit_s: float) -> None:
        """Write the guest's memory to an ELF file, for crash(8) and drgn; raises ``MonitorGone``."""
        # drgn cannot read QEMU's compressed format, whose header does not name the architecture
        arguments = {"paging": False, "protocol": f"file:{path}", "format": "elf"}
        self.execute("dump-guest-memory", arguments, limit_s)

    def close(self) -> None:
        try:
            with contextlib.suppress(MonitorGone):
                self._run(self._client.disconnect(), 1.0)
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()
            self._channel.close()

    def _run(self, action: Coroutine[Any, Any, T], limit_s: float) -> T:
        limited = asyncio.wait_for(action, max(0.1, limit_s))
        try:
            return asyncio.run_coroutine_threadsafe(limited, self._loop).result()
        except TimeoutError:
            raise MonitorGone(f"QEMU's monitor did not answer within {limit_s:.0f} s") from None
        # the library raises AssertionError if QEMU ends while it connects
        except (QMPError, OSError, EOFError, ValueError, AssertionError) as error:
            raise MonitorGone(f"QEMU's monitor: {str(error) or 'the connection ended'}") from None
