# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmerging KSM pages: each owner gets a private page with the contents of the KSM page.

how=madvise unmerges one range, how=run2 all pages of the system. With access=ro the pages are in a read-only
mapping: a kernel that unmerges by write faults must handle that.
"""

import ctypes
import mmap

from guesttest import GuestTest, gt_check, gt_need, gt_param, gt_pass, libc
from ksm import KSM, ksm_merged
from pagestate import PAGE, Memory, map_small

PAGES = 4
PATTERN = bytes(range(256)) * (PAGE // 256)


def check(memory: Memory) -> None:
    if gt_param("how") == "madvise":
        memory.map.madvise(mmap.MADV_UNMERGEABLE)
    else:
        (KSM / "run").write_text("2")
        (KSM / "run").write_text("0")
    frames = [memory.frame(page) for page in range(PAGES)]
    gt_check(PAGES, len(set(frames)), f"frames of {PAGES} pages")
    gt_check(
        [PATTERN] * PAGES, [memory.map[page * PAGE : (page + 1) * PAGE] for page in range(PAGES)], "bytes"
    )
    if gt_param("access") == "rw":
        memory.write(0, b"n")
        gt_check([b"n", b"\0", b"\0", b"\0"], [memory.read(page) for page in range(PAGES)], "after a write")


def run() -> None:
    memory = map_small(PAGES)
    memory.map[:] = PATTERN * PAGES
    if gt_param("access") == "ro":
        start, length = ctypes.c_void_p(memory.address), ctypes.c_size_t(PAGES * PAGE)
        gt_need(not libc.mprotect(start, length, mmap.PROT_READ), "mprotect")
    with ksm_merged(memory, PAGES):
        check(memory)
    gt_pass(f"{PAGES} private pages with their old contents")


TEST = GuestTest(
    summary="unmerged KSM pages are private pages with their old contents",
    contract="C-ISO",
    mechanism="break_ksm() replaces each KSM page by a fault",
    changelog="33",
    needs_kconfig="KSM=y PROC_PAGE_MONITOR=y",
    min_kernel="3.11",
    params="how: madvise run2; access: rw ro",
    needs_root=True,
    kind="deterministic",
    timeout_s=30,
    detects="pages that stay merged or lose their contents",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
