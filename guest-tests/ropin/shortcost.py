# SPDX-License-Identifier: GPL-2.0-or-later
"""A short-term read must not copy shared pages.

Writing shared pages to a disk, or reading them from another process, takes short-term references. They need
not see later writes: KSM pages may stay merged, and untouched pages may stay the zero page.
"""

import contextlib
import ctypes
import errno
import os
import struct
import tempfile

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_param, gt_pass, gt_reap, gt_skip, libc
from ksm import ksm_merged
from pagestate import IS_ZERO, PAGE, Memory, map_small


def map_shown(page: str) -> Memory:
    """Two pages of a private mapping that are not its own, or shared with a child."""
    if page == "file":
        fd = os.memfd_create("shortcost")
        os.write(fd, b"o" * 2 * PAGE)
        memory = Memory(2 * PAGE, fd)
        memory.read(0)
        return memory
    memory = map_small(2)
    if page == "zeropage":
        memory.read(0)
        gt_need(memory.is_in(0, IS_ZERO), "the zero page is mapped")
        return memory
    memory.map[:] = b"o" * 2 * PAGE
    return memory


def read_directly(memory: Memory) -> None:
    """To a disk."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        try:
            fd = os.open(file.name, os.O_WRONLY | os.O_DIRECT)
        except OSError:
            gt_skip("no O_DIRECT on the file system of the current directory")
        gt_need(os.writev(fd, [memoryview(memory.map)[:PAGE]]) == PAGE, "a direct write")
        os.close(fd)


def read_from_process(memory: Memory) -> None:
    """Of ourselves, as a debugger would."""
    into = ctypes.create_string_buffer(PAGE)
    local = struct.pack("QQ", ctypes.addressof(into), PAGE)
    remote = struct.pack("QQ", memory.address, PAGE)
    one, flags = ctypes.c_ulong(1), ctypes.c_ulong(0)
    got = libc.process_vm_readv(os.getpid(), local, one, remote, one, flags)
    if got < 0 and ctypes.get_errno() == errno.ENOSYS:
        gt_skip("the kernel has no process_vm_readv")
    gt_check((PAGE, memory.map[:PAGE]), (got, into.raw), "process_vm_readv of a page")


def check_reads(memory: Memory, page: str) -> None:
    before = memory.frame(0)
    read = read_directly if gt_param("by") == "odirect" else read_from_process
    read(map_small(1))  # what the kernel has not got is told here, not by a child

    def check() -> None:
        read(memory)
        gt_check(hex(before), hex(memory.frame(0)), "the page frame after the read")
        memory.write(0, b"n")
        gt_need(memory.frame(0) != before, "a write that has to copy")

    if page == "shared":
        gt_reap(gt_fork(check))
    else:
        check()


def run() -> None:
    page = gt_param("page")
    memory = map_shown(page)
    with ksm_merged(memory, 2) if page == "ksm" else contextlib.nullcontext():
        check_reads(memory, page)
    gt_pass("the read did not copy the page")


TEST = GuestTest(
    summary="a short-term R/O reference does not copy the page",
    contract="C-COST",
    mechanism="a kernel that unshares pages on R/O pins does so for short-term ones too",
    changelog="33",
    needs_kconfig="PROC_PAGE_MONITOR=y",
    min_kernel="3.17",
    params="by: odirect readv; page: zeropage file shared ksm",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="another page frame after a mere read",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
