# SPDX-License-Identifier: GPL-2.0-or-later
"""The serial line of a guest: output goes to a file of limited size, input is sent to the guest.

A thread reads all the time, so that a guest never blocks on output. The output is not interpreted here.
"""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path

# bytes that a guest may print between two calls of ``allow``; four times the limit of a result
LIMIT = 1 << 20
_PANIC = b"Kernel panic - not syncing"


class SerialLine:
    """The serial line of one guest and the file with its output.

    ``dropped`` counts the bytes beyond the limit, ``panicked_at`` is the time of the first panic message
    (``time.monotonic``) since it was None, ``error`` is why the file could not be written.
    """

    def __init__(self, channel: socket.socket, log: Path, limit: int = LIMIT) -> None:
        self.log = log
        self.dropped = 0
        self.panicked_at: float | None = None
        self.error: OSError | None = None
        self._channel = channel
        self._limit = limit
        self._size = 0
        self._allowed = limit
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def allow(self) -> None:
        """Allow another ``limit`` bytes of output."""
        self._allowed = self._size + self._limit

    def type(self, text: str) -> None:
        """Send input, if the guest still accepts any."""
        with contextlib.suppress(OSError):
            self._channel.send(text.encode(), socket.MSG_DONTWAIT)

    def read_from(self, begin: int) -> str:
        """The content of the file from an offset on."""
        with self.log.open("rb") as file:
            file.seek(begin)
            return file.read(self._limit).decode(errors="replace")

    def wait_answer(self, first_s: float, quiet_s: float) -> None:
        """Wait ``first_s`` for output, then until there is none for ``quiet_s``; at most a minute."""
        began, size = time.monotonic(), self._size
        end = began + first_s
        while time.monotonic() < min(end, began + 60) and self._thread.is_alive():
            time.sleep(0.01)
            if self._size != size:
                size, end = self._size, time.monotonic() + quiet_s

    def finish(self, limit_s: float) -> None:
        """After QEMU has ended: wait until all of its output is in the file."""
        self._thread.join(limit_s)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._channel.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._channel.close()

    def _read(self) -> None:
        last = b""
        with self.log.open("ab", buffering=0) as file:
            while block := self._receive():
                if self.panicked_at is None and _PANIC in last + block:
                    self.panicked_at = time.monotonic()
                last = (last + block)[1 - len(_PANIC) :]
                self._keep(file.fileno(), block)

    def _receive(self) -> bytes:
        try:
            return self._channel.recv(1 << 16)
        except OSError:
            return b""

    def _keep(self, descriptor: int, block: bytes) -> None:
        kept = block[: max(0, self._allowed - self._size)]
        self.dropped += len(block) - len(kept)
        try:
            while kept and not self.error:
                written = os.write(descriptor, kept)
                self._size += written
                kept = kept[written:]
        except OSError as error:
            self.error = error
