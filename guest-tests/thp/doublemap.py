# SPDX-License-Identifier: GPL-2.0-or-later
"""A huge page that two processes have mapped piecemeal: who counts its mappings must count each piece.

The child drops one piece, which gives the parent that piece alone. A kernel that looks at the count of the
wrong piece takes the others for the parent's own as well, and the child sees what the parent writes.
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
        gt_need(os.read(to_child[0], 1), "the parent's word")
        expected = [b"\0" if page == DROPPED else b"o" for page in range(pages)]
        wrong = [page for page in range(pages) if memory.read(page) != expected[page]]
        gt_check([], wrong[:8], f"pages of {pages} where the child sees another's write")

    pid = gt_fork(child)
    os.close(to_parent[1])
    if os.read(to_parent[0], 1):
        memory.mprotect_cycle(DROPPED + 1)
        gt_need(not memory.smaps_kib("AnonHugePages", length), "the parent maps it by single entries as well")
        gt_need(memory.is_in(0, IN_THP), "the page is still one huge page")
        for page in range(pages):
            gt_need(memory.read(page) == b"o", "the parent's page is as it was")
            memory.write(page, b"p")
        os.write(to_child[1], b"!")
    gt_reap(pid)
    gt_check([], [page for page in range(pages) if memory.read(page) != b"p"][:8], "pages the parent lost")
    gt_pass(f"{pages - 1} pages stayed the child's, the parent has what it wrote")


TEST = GuestTest(
    summary="both sides of a fork map a huge page piecemeal, and neither sees the other's writes",
    contract="C-ISO",
    mechanism="the map count of one piece of a huge page read from another piece",
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
