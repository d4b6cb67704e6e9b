# SPDX-License-Identifier: GPL-2.0-or-later
"""fork() should copy a page immediately only if it is pinned, and share all others.

A fork() that checks the refcount also copies pages with other references: a new page in a per-CPU LRU batch,
a page that was once written to disk. The data stays correct, but every fork() is slower.
"""

import mmap
import os
import tempfile

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_param, gt_pass, gt_reap, gt_skip
from pagestate import PAGE, Memory, map_small

PAGES = 64


def settle() -> None:
    """Other fresh pages push ours out of the vectors."""
    other = map_small(PAGES)
    for page in range(PAGES):
        other.write(page, b"x")


def send_to_disk(memory: Memory) -> None:
    """By direct I/O, which pins the pages while it lasts."""
    with tempfile.NamedTemporaryFile(dir=".") as file:
        try:
            fd = os.open(file.name, os.O_WRONLY | os.O_DIRECT)
        except OSError:
            gt_skip("no O_DIRECT on the file system of the current directory")
        gt_need(os.write(fd, memory.map) == PAGES * PAGE, "a direct write")
        os.close(fd)


def run() -> None:
    state = gt_param("state")
    # vectors are per CPU
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    memory = map_small(PAGES)
    for page in range(PAGES):
        memory.write(page, b"o")
    if state != "pagevec":
        settle()
    if state == "guped":
        send_to_disk(memory)
    frames = [memory.frame(page) for page in range(PAGES)]
    told = mmap.mmap(-1, mmap.PAGESIZE)  # shared with the child

    def child() -> None:
        told[0] = sum(memory.frame(page) == frames[page] for page in range(PAGES))
        memory.write(0, b"c")
        gt_check(True, memory.frame(0) != frames[0], "a page that the child writes is copied")

    gt_reap(gt_fork(child))
    gt_check(PAGES, told[0], f"of {PAGES} pages shared between child and parent")
    gt_pass(f"the child shares {told[0]} of {PAGES} pages with its parent")


TEST = GuestTest(
    summary="fork() shares every page that is not pinned",
    contract="C-COST",
    mechanism="page_needs_cow_for_dma() mistakes a reference of an LRU batch, or a released pin, for a pin",
    changelog="4",
    needs_kconfig="PROC_PAGE_MONITOR=y",
    min_kernel="3.11",
    params="state: idle pagevec guped",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="needless copies at fork()",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
