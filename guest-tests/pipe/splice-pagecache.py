# SPDX-License-Identifier: GPL-2.0-or-later
"""CVE-2022-0847: a pipe buffer with a page cache page inherits a stale flag that allows appending to it.

Pipe buffers that were filled by writes have PIPE_BUF_FLAG_CAN_MERGE. A page cache page spliced into the same
slot must not inherit the flag: the next write would change the file.
"""

import ctypes
import os
import tempfile

from guesttest import GuestTest, gt_broken, gt_check, gt_need, gt_pass, libc

ORIGINAL = b"o" * 4096
NOBODY = 65534


def make_file() -> "tuple[int, str]":
    """A file that everybody may read, open for reading; its path."""
    fd, path = tempfile.mkstemp(dir=".")
    os.write(fd, ORIGINAL)
    os.fchmod(fd, 0o444)
    os.fsync(fd)
    os.close(fd)
    return os.open(path, os.O_RDONLY), path


def fill_and_drain(pipe: "tuple[int, int]") -> None:
    """Every slot of the pipe has been written to."""
    os.set_blocking(pipe[1], False)
    total = 0
    try:
        while True:
            total += os.write(pipe[1], b"f" * 4096)
    except BlockingIOError:
        pass
    gt_need(total >= 4096, "a pipe that takes writes")
    while total:
        total -= len(os.read(pipe[0], min(total, 4096)))


def run() -> None:
    file, path = make_file()
    if not os.geteuid():
        # what the root of the guest could do says nothing
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    try:
        os.close(os.open(path, os.O_WRONLY))
        gt_broken("the file can be opened for writing")
    except PermissionError:
        pass
    pipe = os.pipe()
    fill_and_drain(pipe)
    offset = ctypes.c_longlong(0)
    moved = libc.splice(file, ctypes.byref(offset), pipe[1], None, ctypes.c_size_t(1), 0)
    gt_need(moved == 1, f"one byte spliced, not {moved}")
    gt_need(os.write(pipe[1], b"x" * 100) == 100, "a write to the pipe")
    gt_check(b"o" + b"x" * 100, os.read(pipe[0], 101), "the file's byte and what was written, in the pipe")
    gt_check(ORIGINAL[:8], os.pread(file, 8, 0), "the start of the file")
    gt_check(ORIGINAL, os.pread(file, len(ORIGINAL), 0), "the file")
    gt_pass("a write after a splice went to the pipe, and not into the file")


TEST = GuestTest(
    summary="a write to a pipe never changes a file that was spliced into it",
    contract="C-ISO",
    mechanism="copy_page_to_iter_pipe() keeps PIPE_BUF_FLAG_CAN_MERGE of an old buffer",
    fixes="9d2231c5d74e",
    cve="CVE-2022-0847",
    min_kernel="4.9",
    kind="deterministic",
    timeout_s=30,
    detects="a read-only file changed through a pipe",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
