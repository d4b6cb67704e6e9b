# SPDX-License-Identifier: GPL-2.0-or-later
"""A BPF hook in the page fault lets programs prefault; a no-op program must have no effect.

The aa tree has the writable raw tracepoint bpf_prefault. As a control, the test attaches the same no-op
program to a tracepoint that every kernel has.
"""

import ctypes
import errno
import os
import platform
import struct

from guesttest import GuestTest, gt_check, gt_need, gt_note, gt_param, gt_pass, gt_skip, libc
from pagestate import PAGE, map_small

SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280}
PROG_LOAD, RAW_TRACEPOINT_OPEN = 5, 17
RAW_TRACEPOINT, RAW_TRACEPOINT_WRITABLE = 17, 24
# r0 = 0; exit
NOTHING = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)
PAGES = 256


def bpf(command: int, attributes: bytes) -> int:
    """A file descriptor, or -errno."""
    number = SYS_BPF.get(platform.machine()) or gt_skip("system call number unknown")
    # zeroes follow: what a kernel does not know must be zero
    given = ctypes.create_string_buffer(attributes, 128)
    fd = int(libc.syscall(number, command, given, ctypes.c_uint(len(given))))
    return fd if fd >= 0 else -ctypes.get_errno()


def load(kind: int) -> int:
    program, licence = ctypes.create_string_buffer(NOTHING, len(NOTHING)), ctypes.create_string_buffer(b"GPL")
    addresses = (ctypes.addressof(program), ctypes.addressof(licence))
    fd = bpf(PROG_LOAD, struct.pack("=IIQQ", kind, len(NOTHING) // 8, *addresses))
    gt_need(fd >= 0, f"loading a program, {os.strerror(-fd) if fd < 0 else ''}")
    return fd


def attach(name: str, program: int) -> int:
    text = ctypes.create_string_buffer(name.encode())
    return bpf(RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(text), program))


def run() -> None:
    hook = attach("sched_switch", load(RAW_TRACEPOINT))
    gt_need(hook >= 0, f"attaching to sched_switch, {os.strerror(-hook) if hook < 0 else ''}")
    os.close(hook)
    gt_check(-errno.ENOENT, attach("cowbell_no_such_hook", load(RAW_TRACEPOINT)), "a nonexistent tracepoint")
    program = load(RAW_TRACEPOINT_WRITABLE)
    hook = attach("bpf_prefault", program)
    if hook == -errno.ENOENT:
        gt_skip("the kernel has no tracepoint bpf_prefault")
    gt_check(True, hook >= 0, f"a no-op program is attached to bpf_prefault ({hook})")
    if gt_param("attached") == "0":
        os.close(hook)
    memory = map_small(PAGES)
    for page in range(PAGES):
        memory.write(page, bytes([page % 256]))
    gt_check([page % 256 for page in range(PAGES)], [memory.read(page)[0] for page in range(PAGES)], "bytes")
    gt_check(bytes(PAGE - 1), memory.map[1:PAGE], "the rest of a page")
    gt_note(f"{PAGES} pages were touched")
    gt_pass("page faults are unaffected")


TEST = GuestTest(
    summary="the bpf_prefault tracepoint exists, and a BPF program that does nothing changes nothing",
    contract="C-LIVE",
    mechanism="a writable raw tracepoint in the page fault",
    changelog="2",
    needs_kconfig="BPF_SYSCALL=y BPF_EVENTS=y",
    min_kernel="5.2",
    params="attached: 0 1",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="faults that fail or show other bytes while the program is attached",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
