# SPDX-License-Identifier: GPL-2.0-or-later
"""A THP that two processes map by PTEs: the mapcount has to be checked for each subpage.

The child unmaps one subpage, so that only the parent maps it. A kernel that checks the mapcount of the wrong
subpage reuses the others as well, and the child sees what the parent writes.
"""

import mmap
import os

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_pass, gt_reap
from pagestate import IN_THP, PAGE, map_thp

DROPPED = 1


def run() -> None:
    memory = map_thp()
    length = len(memory.map) // 2
    pages = length // PAGE
    for page in range(pages):
        memory.write(page, b"o")
    to_child, to_parent = os.pipe(), os.pipe()

    def child() -> None:
        os.close(to_child[1])
        memory.map.madvise(mmap.MADV_DONTNEED, memory.start + DROPPED * PAGE, PAGE)
        gt_need(
            not memory.smaps_kib("AnonHugePages", length), "the child maps the huge page by single entries"
        )
        os.write(to_parent[1], b"!")
        gt_need(os.read(to_child[0], 1), "the signal from the parent")
        expected = [b"\0" if page == DROPPED else b"o" for page in range(pages)]
        wrong = [page for page in range(pages) if memory.read(page) != expected[page]]
        gt_check([], wrong[:8], f"of {pages} pages where the child sees the parent's write")

    pid = gt_fork(child)
    os.close(to_parent[1])
    if os.read(to_parent[0], 1):
        memory.mprotect_cycle(DROPPED + 1)
        gt_need(not memory.smaps_kib("AnonHugePages", length), "the parent maps the THP by PTEs as well")
        gt_need(memory.is_in(0, IN_THP), "the page is still one huge page")
        for page in range(pages):
            gt_check(b"o", memory.read(page), "the parent's page")
            memory.write(page, b"p")
        os.write(to_child[1], b"!")
    gt_reap(pid)
    gt_check([], [page for page in range(pages) if memory.read(page) != b"p"][:8], "pages without the write")
    gt_pass(f"{pages - 1} pages kept the child's data, and the parent's writes are intact")


TEST = GuestTest(
    summary="after fork(), neither process sees the other's writes to a PTE-mapped THP",
    contract="C-ISO",
    mechanism="the mapcount of one subpage is read from another one",
    changelog="30",
    needs_kconfig="TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y",
    min_kernel="4.10",
    needs_root=True,
    memory_mib=768,
    kind="deterministic",
    timeout_s=30,
    detects="the parent's writes in the child's memory",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
