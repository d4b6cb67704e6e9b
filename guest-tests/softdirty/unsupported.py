# SPDX-License-Identifier: GPL-2.0-or-later
"""A request that the kernel cannot fulfil must fail.

A checkpoint tool clears the soft-dirty bits and later copies the pages written since. On a kernel without
soft-dirty bits that accepts the request and does nothing, it finds no page written, and loses everything.
"""

from pathlib import Path

from guesttest import GuestTest, gt_fail, gt_need, gt_pass
from pagestate import SOFT_DIRTY, map_small

CLEAR_REFS = Path("/proc/self/clear_refs")


def run() -> None:
    memory = map_small(1)
    memory.write(0, b"x")
    gt_need(not memory.entry(0) & SOFT_DIRTY, "a page just written is not soft-dirty: there is no such bit")
    # the control: an order that every kernel with this file can carry out
    CLEAR_REFS.write_text("1")
    try:
        CLEAR_REFS.write_text("4")
    except OSError as error:
        gt_pass(f"clearing the soft-dirty bits fails: {error.strerror}")
    gt_fail("expected: writing 4 to clear_refs fails without soft-dirty; got: success")


TEST = GuestTest(
    summary="clear_refs fails to clear soft-dirty bits on a kernel without them",
    contract="what is not supported fails",
    mechanism="clear_refs_write() walks the page tables with an empty clear_soft_dirty()",
    changelog="40",
    needs_kconfig="PROC_PAGE_MONITOR=y MEM_SOFT_DIRTY=n",
    min_kernel="3.11",
    kind="deterministic",
    timeout_s=30,
    detects="success although nothing was done",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
