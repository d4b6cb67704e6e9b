# SPDX-License-Identifier: GPL-2.0-or-later
"""The exact address of a fault that userfaultfd reports.

Monitors that emulate devices need it. Since 5.18 a feature flag requests it; without it mainline reports the
page address only, while the aa tree always reports the exact address.
"""

import ctypes
import fcntl
import os
import select
import struct
import threading

from guesttest import GuestTest, gt_check, gt_need, gt_param, gt_pass, gt_skip, libc
from pagestate import PAGE, map_small
from uffd import EVENT_PAGEFAULT, NUMBER_ZEROPAGE, ioctl_number, open_uffd, register

FEATURE_EXACT_ADDRESS = 1 << 11
OFFSET = 123


def run() -> None:
    fd = open_uffd(FEATURE_EXACT_ADDRESS if gt_param("feature") == "1" else 0)
    if fd is None:
        gt_skip("the kernel has no UFFD_FEATURE_EXACT_ADDRESS")
    memory = map_small(1)
    touched = memory.address + OFFSET
    register(fd, memory.address, PAGE)
    # not through the mapping object: the thread must let go of the interpreter while it waits
    thread = threading.Thread(target=libc.memset, args=(ctypes.c_void_p(touched), 1, ctypes.c_size_t(1)))
    thread.start()
    gt_need(select.select([fd], [], [], 10)[0], "a message within 10 s")
    event, _, address = struct.unpack_from("=B7xQQ", os.read(fd, 32))
    gt_need(event == EVENT_PAGEFAULT, f"a page fault, not event {event:#x}")
    gt_check(memory.address // PAGE, address // PAGE, "the page of the fault")
    fcntl.ioctl(fd, ioctl_number(NUMBER_ZEROPAGE, 32), struct.pack("=QQQQ", memory.address, PAGE, 0, 0))
    thread.join()
    gt_check(1, memory.map[OFFSET], "the byte written after the fault")
    gt_check(hex(touched), hex(address), "the reported address")
    gt_pass(f"the fault was reported with offset {OFFSET} in its page")


TEST = GuestTest(
    summary="userfaultfd reports the exact fault address, with and without the feature",
    contract="a fault is reported where it was",
    mechanism="handle_userfault() gets an address that was masked to the page",
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
