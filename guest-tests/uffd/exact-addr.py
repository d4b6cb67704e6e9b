# SPDX-License-Identifier: GPL-2.0-or-later
"""Which byte was touched: the address that userfaultfd reports, down to the last bit.

Monitors that emulate devices want to know. Since 5.18 a feature bit asks for it; without it upstream
reports the page only, while the patched tree reports the byte always.
"""

import ctypes
import errno
import fcntl
import os
import platform
import select
import struct
import threading

from guesttest import GuestTest, gt_check, gt_need, gt_param, gt_pass, gt_skip, libc
from pagestate import PAGE, map_small

SYS_USERFAULTFD = {"x86_64": 323, "aarch64": 282, "riscv64": 282}
UFFD_API, FEATURE_EXACT_ADDRESS = 0xAA, 1 << 11
EVENT_PAGEFAULT, MODE_MISSING = 0x12, 1
OFFSET = 123


def ioctl_number(number: int, size: int) -> int:
    """_IOWR(UFFDIO, number, size)"""
    return 3 << 30 | size << 16 | 0xAA << 8 | number


def open_uffd(features: int) -> int:
    number = SYS_USERFAULTFD.get(platform.machine()) or gt_skip("no number of the system call known here")
    fd = int(libc.syscall(number, os.O_CLOEXEC))
    if fd < 0:
        gt_skip(f"no userfaultfd: {os.strerror(ctypes.get_errno())}")
    try:
        fcntl.ioctl(fd, ioctl_number(0x3F, 24), struct.pack("=QQQ", UFFD_API, features, 0))
    except OSError as error:
        if features and error.errno == errno.EINVAL:
            gt_skip("the kernel has no UFFD_FEATURE_EXACT_ADDRESS to be asked for")
        raise
    return fd


def run() -> None:
    fd = open_uffd(FEATURE_EXACT_ADDRESS if gt_param("feature") == "1" else 0)
    memory = map_small(1)
    touched = memory.address + OFFSET
    fcntl.ioctl(fd, ioctl_number(0, 32), struct.pack("=QQQQ", memory.address, PAGE, MODE_MISSING, 0))
    # not through the mapping object: the thread must let go of the interpreter while it waits
    thread = threading.Thread(target=libc.memset, args=(ctypes.c_void_p(touched), 1, ctypes.c_size_t(1)))
    thread.start()
    gt_need(select.select([fd], [], [], 10)[0], "a message within 10 s")
    event, _, address = struct.unpack_from("=B7xQQ", os.read(fd, 32))
    gt_need(event == EVENT_PAGEFAULT, f"a page fault, not event {event:#x}")
    gt_need(address // PAGE == memory.address // PAGE, "a fault on the page that was touched")
    fcntl.ioctl(fd, ioctl_number(4, 32), struct.pack("=QQQQ", memory.address, PAGE, 0, 0))
    thread.join()
    gt_need(memory.map[OFFSET] == 1, "the write after the fault")
    gt_check(hex(touched), hex(address), "the address reported")
    gt_pass(f"the fault was reported with offset {OFFSET} in its page")


TEST = GuestTest(
    summary="userfaultfd reports the byte that was touched, with the feature asked for and without",
    contract="a fault is reported where it was",
    mechanism="handle_userfault gets an address that was masked to the page",
    fixes="824ddc601adc",
    changelog="37",
    needs_kconfig="USERFAULTFD=y",
    min_kernel="4.3",
    params="feature: 0 1",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="an address without its low bits",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
