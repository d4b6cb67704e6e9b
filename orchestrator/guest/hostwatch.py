# SPDX-License-Identifier: GPL-2.0-or-later
"""Watches QEMU and the host's disk while a guest runs, so that a failure of the host is noticed at once.

A guest that stands still because of its host must not be waited for until its time limit, nor its test be
judged.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.guest.qmp import Monitor
from orchestrator.guest.serial import SerialLine
from orchestrator.process import command

_LOOK_S = 0.5
# a debugger or a job control shell stops a process for a moment
_STOPPED_LOOKS = 2


class HostWatch:
    """A thread that looks at one QEMU until ``close``."""

    def __init__(self, process: command.Process, serial: SerialLine, monitor: Monitor, log: Path) -> None:
        self._process, self._serial, self._monitor, self._log = process, serial, monitor, log
        self._failure: InfraError | None = None
        self._disconnect: Callable[[], object] = lambda: None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def on_failure(self, disconnect: Callable[[], object]) -> None:
        """Set what ends a wait for the guest's answer when the host fails."""
        self._disconnect = disconnect

    def check(self) -> None:
        """Raise the ``InfraError`` if the host has failed since the guest was started."""
        if self._failure:
            raise self._failure

    def look(self) -> None:
        """Raise ``InfraError`` if the host has failed until now; ``check`` is up to a second late."""
        self._failure = self._failure or self._find_failure(command.is_stopped(self._process))
        self.check()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        looks = 0
        while not self._failure and not self._ended.wait(_LOOK_S):
            looks = looks + 1 if command.is_stopped(self._process) else 0
            self._failure = self._failure or self._find_failure(looks >= _STOPPED_LOOKS)
        if self._failure:
            self._disconnect()

    def _find_failure(self, is_stopped: bool) -> InfraError | None:
        if error := self._serial.error:
            return InfraError(f"the guest's console cannot be written: {error}", hint=command.MORE_SPACE)
        if is_stopped:
            return InfraError("QEMU is stopped (SIGSTOP)", hint="run again; all results so far are kept")
        if failed := self._monitor.find_event("BLOCK_IO_ERROR"):
            what = f"the host's disk is full or failed: {failed.get('operation')} of a guest's disk"
            return InfraError(f"{what}: {failed.get('reason')}", hint=command.MORE_SPACE, log=self._log)
        return None
