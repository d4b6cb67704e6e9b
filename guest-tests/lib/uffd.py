# SPDX-License-Identifier: GPL-2.0-or-later
"""userfaultfd by raw system calls and ioctls: the Python side of uffd.h."""

import ctypes
import errno
import fcntl
import os
import platform
import struct

from guesttest import gt_skip, libc

SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
UFFD_API, EVENT_PAGEFAULT, MODE_MISSING = 0xAA, 0x12, 1
NUMBER_REGISTER, NUMBER_ZEROPAGE, NUMBER_MOVE, NUMBER_API = 0, 4, 5, 0x3F


def ioctl_number(number: int, size: int) -> int:
    """_IOWR(UFFDIO, number, size)"""
    return 3 << 30 | size << 16 | 0xAA << 8 | number


def open_uffd(features: int) -> "int | None":
    """None if the kernel does not know the features."""
    number = SYS_USERFAULTFD.get(platform.machine()) or gt_skip("system call number unknown")
    fd = int(libc.syscall(number, os.O_CLOEXEC))
    if fd < 0:
        gt_skip(f"no userfaultfd: {os.strerror(ctypes.get_errno())}")
    try:
        fcntl.ioctl(fd, ioctl_number(NUMBER_API, 24), struct.pack("=QQQ", UFFD_API, features, 0))
    except OSError as error:
        os.close(fd)
        if features and error.errno == errno.EINVAL:
            return None
        raise
    return fd


def register(fd: int, address: int, length: int) -> int:
    """For missing pages. Returns what the kernel can do with the range, a bit an order."""
    asked = struct.pack("=QQQQ", address, length, MODE_MISSING, 0)
    return int(struct.unpack("=QQQQ", fcntl.ioctl(fd, ioctl_number(NUMBER_REGISTER, 32), asked))[3])
