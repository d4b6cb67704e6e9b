# SPDX-License-Identifier: GPL-2.0-or-later
"""Basic copy-on-write, on which all other tests rely: after fork(), writes stay private.

Each state takes another path to the write fault: a present page, a page that was write-protected by
mprotect() or by clearing soft-dirty bits before fork(), the zero page, a page of a private file mapping, a
THP.
"""

import os
import tempfile

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_param, gt_pass, gt_reap
from pagestate import PAGE, Memory, clear_soft_dirty, map_small, map_thp

PAGES = 4
OLD = b"o"


def make_memory(state: str) -> "tuple[Memory, bytes]":
    """The memory, and the byte each of its pages shows before the fork."""
    if state == "zero":
        memory = map_small(PAGES)
        return memory, b"".join({memory.read(page) for page in range(PAGES)})
    if state == "file":
        with tempfile.TemporaryFile(dir=".") as file:
            file.write(OLD * PAGES * PAGE)
            file.flush()
            return Memory(PAGES * PAGE, file.fileno()), OLD
    memory = map_thp() if state == "thp" else map_small(PAGES)
    for page in range(PAGES):
        memory.write(page, OLD)
    if state == "mprotect":
        memory.mprotect_cycle(PAGES)
    elif state == "softdirty":
        clear_soft_dirty()
    return memory, OLD


def check_view(memory: Memory, expected: "list[bytes]", who: str) -> None:
    gt_check(expected, [memory.read(page) for page in range(PAGES)], f"the {who}'s view")


def run() -> None:
    memory, old = make_memory(gt_param("state"))
    to_child, to_parent = os.pipe(), os.pipe()

    def child() -> None:
        os.close(to_child[1])
        # Page 0 has been written by the parent, 1 will be by both, 2 by us alone, 3 by nobody.
        gt_need(os.read(to_child[0], 1), "the signal from the parent")
        check_view(memory, [old] * PAGES, "child")
        memory.write(1, b"c")
        memory.write(2, b"c")
        os.write(to_parent[1], b"!")
        gt_need(os.read(to_child[0], 1), "the signal from the parent")
        check_view(memory, [old, b"c", b"c", old], "child")

    pid = gt_fork(child)
    os.close(to_parent[1])
    memory.write(0, b"p")
    os.write(to_child[1], b"!")
    if os.read(to_parent[0], 1):
        check_view(memory, [b"p", old, old, old], "parent")
        # The child has copied page 1: our write may reuse what is left, and must not reach the child.
        memory.write(1, b"p")
        os.write(to_child[1], b"!")
    gt_reap(pid)
    check_view(memory, [b"p", b"p", old, old], "parent")
    gt_pass("neither process sees the other's writes")


TEST = GuestTest(
    summary="after fork(), neither process sees the other's writes",
    contract="C-ISO",
    mechanism="write faults on both sides of fork(), from several page states",
    params="state: small mprotect softdirty zero file thp",
    needs_root=True,
    min_kernel="3.11",
    memory_mib=768,
    kind="deterministic",
    timeout_s=30,
    detects="a kernel or patch that breaks copy-on-write itself",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
