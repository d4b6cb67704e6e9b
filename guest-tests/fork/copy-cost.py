# SPDX-License-Identifier: GPL-2.0-or-later
"""fork copies a page at once only if it must: if somebody has it pinned. All others it shares.

A fork that goes by references copies whatever has one: a fresh page that waits in a per-CPU vector, a page
that was once sent to a disk. Data stays right, but every fork pays for it.
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
        gt_need(memory.frame(0) != frames[0], "a page that the child writes is copied")

    gt_reap(gt_fork(child))
    gt_check(PAGES, told[0], f"pages of {PAGES} that the child shares with its parent")
    gt_pass(f"the child shares {told[0]} of {PAGES} pages with its parent")


TEST = GuestTest(
    summary="fork shares every page that nobody has pinned",
    contract="C-COST",
    mechanism="page_needs_cow_for_dma takes the reference of a vector, or a pin long gone, for a pin",
    changelog="4",
    needs_kconfig="PROC_PAGE_MONITOR=y",
    min_kernel="3.11",
    params="state: idle pagevec guped",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="copies made by fork for nothing",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
