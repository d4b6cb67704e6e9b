# SPDX-License-Identifier: GPL-2.0-or-later
"""A page is moved to another address without a copy, or rejected if it is shared or pinned.

The aa tree calls the ioctl UFFDIO_REMAP, Linux 6.8 UFFDIO_MOVE, with the same number and arguments. Another
process that shares the page, or a device that pinned it, must not be affected.
"""

import errno
import fcntl
import os
import signal
import struct

from cowpin import Pin
from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_param, gt_pass, gt_skip
from pagestate import PAGE, PRESENT, Memory, map_small
from uffd import NUMBER_MOVE, ioctl_number, open_uffd, register

FEATURE_MOVE = 1 << 16


def open_for_move(target: Memory) -> int:
    """Registered for the target. A kernel that can move says so when it tells what the range is good for."""
    fd = open_uffd(FEATURE_MOVE)
    if fd is None:
        fd = open_uffd(0)
    assert fd is not None
    if not register(fd, target.address, PAGE) >> NUMBER_MOVE & 1:
        gt_skip("this kernel's userfaultfd moves no pages (UFFDIO_MOVE of 6.8, UFFDIO_REMAP)")
    return fd


def move(fd: int, source: Memory, target: Memory) -> str:
    """Success, or the name of the error."""
    asked = struct.pack("=QQQQq", target.address, source.address, PAGE, 0, 0)
    try:
        fcntl.ioctl(fd, ioctl_number(NUMBER_MOVE, 40), asked)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "success"


def share(source: Memory) -> None:
    """With a child that lives until we end."""
    ready, told = os.pipe()

    def child() -> None:
        os.write(told, source.read(0))
        signal.pause()

    gt_fork(child)
    gt_need(os.read(ready, 1) == b"o", "the child reads the shared page")


def check_refused(fd: int, source: Memory, target: Memory) -> None:
    frame = source.frame(0)
    gt_check("EBUSY", move(fd, source, target), "the result of UFFDIO_MOVE")
    gt_check(hex(frame), hex(source.frame(0)), "the page frame at the old address")


def run() -> None:
    source, target = map_small(1), map_small(1)
    source.write(0, b"o")
    frame = source.frame(0)
    fd = open_for_move(target)
    page = gt_param("page")
    if page == "exclusive":
        gt_check("success", move(fd, source, target), "the result of UFFDIO_MOVE")
        gt_check(hex(frame), hex(target.frame(0)), "the page frame at the new address")
        gt_check(b"o", target.read(0), "the byte at the new address")
        gt_check(0, source.entry(0) & PRESENT, "a page at the old address")
        gt_pass("the page moved to the new address without a copy")
    if page == "shared":
        share(source)
        check_refused(fd, source, target)
        gt_pass("UFFDIO_MOVE failed, and the page did not move")
    # a pipe would not do: its reference is no pin, and goes with the page wherever that is mapped
    with Pin(source, longterm=True) as pin:
        check_refused(fd, source, target)
        source.write(0, b"n")
        gt_check(b"n", pin.read(1), "the byte that the device reads after a write")
    gt_pass("UFFDIO_MOVE failed, the page did not move, and the device reads the data written")


TEST = GuestTest(
    summary="UFFDIO_MOVE moves exclusive pages, and rejects shared and pinned ones",
    contract="C-ISO",
    mechanism="UFFDIO_MOVE does not check who else maps or pins the page",
    needs_kconfig="USERFAULTFD=y PROC_PAGE_MONITOR=y",
    min_kernel="5.15",
    params="page: exclusive shared pinned",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="a copy, or a page taken away from another user",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
