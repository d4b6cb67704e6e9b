# SPDX-License-Identifier: GPL-2.0-or-later
"""Pins taken by module cowpin: the Python side of module.h and cowpin.h."""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from pathlib import Path

from guesttest import gt_broken, gt_skip, libc
from pagestate import PAGE, Memory

WRITE, LONGTERM, FAST, GET = 1, 2, 4, 8
IOC_PIN, IOC_READ = 1 << 30 | 24 << 16 | ord("C") << 8 | 1, 1 << 30 | 24 << 16 | ord("C") << 8 | 3
SYS_FINIT_MODULE = {"x86_64": 313, "aarch64": 273, "riscv64": 273}


class Pin:
    """One page of a mapping, pinned without a lock until the end of the ``with`` block."""

    def __init__(self, memory: Memory, page: int = 0, *, write: bool = False, longterm: bool = False) -> None:
        self.need()
        self.file = os.open("/dev/cowpin", os.O_RDWR | os.O_CLOEXEC)
        flags = FAST | (WRITE if write else 0) | (LONGTERM if longterm else 0)
        address = memory.address + memory.start + page * PAGE
        fcntl.ioctl(self.file, IOC_PIN, struct.pack("=QQII", address, 1, flags, 0))

    @staticmethod
    def need() -> None:
        """Load the module, once per boot."""
        folder = Path(__file__).resolve().parent.parent / "modules"
        path, reason = folder / "cowpin.ko", folder / "reason"
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            why = reason.read_text().strip() if reason.exists() else "it has no modules"
            gt_skip(f"no module cowpin was built for this kernel: {why}")
        number = SYS_FINIT_MODULE.get(platform.machine()) or gt_skip("finit_module number unknown")
        if libc.syscall(number, fd, b"", 0) and ctypes.get_errno() != errno.EEXIST:
            why = os.strerror(ctypes.get_errno())
            # the last two are of kernels that load only signed modules
            if ctypes.get_errno() in (errno.ENOSYS, errno.EPERM, errno.EKEYREJECTED, errno.ENOKEY):
                gt_skip(f"the kernel does not load module cowpin: {why}")
            gt_broken(f"loading {path}: {why}")
        os.close(fd)

    def read(self, length: int) -> bytes:
        """The bytes that the device reads from the start of the page."""
        into = ctypes.create_string_buffer(length)
        fcntl.ioctl(self.file, IOC_READ, struct.pack("=QQQ", 0, ctypes.addressof(into), length))
        return into.raw

    def __enter__(self) -> "Pin":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)
