# SPDX-License-Identifier: GPL-2.0-or-later
"""The accessed bit of a THP must be neither lost nor invented by a split.

Reclaim relies on accessed bits. split=pmd splits the PMD mapping into PTEs, split=page splits the THP itself,
which uses migration entries that have no accessed bit on older kernels.
"""

import os
from pathlib import Path

from guesttest import GuestTest, gt_check, gt_need, gt_param, gt_pass, gt_skip
from pagestate import IN_THP, PAGE, Memory, map_small, map_thp

SPLIT = Path("/sys/kernel/debug/split_huge_pages")
# more pages than a kernel flushes one by one: it takes the whole TLB instead
MANY = 256


def flush_tlb() -> None:
    """An entry that the TLB still has takes an access without a look at the page table."""
    other = map_small(MANY)
    for page in range(MANY):
        other.write(page, b"x")
    other.mprotect_cycle(MANY)


def split_page(memory: Memory, length: int) -> None:
    """By address where the kernel takes one (since 5.13), else all huge pages there are."""
    first = memory.address + memory.start
    try:
        SPLIT.write_text(f"{os.getpid()},{first:#x},{first + length:#x}")
    except FileNotFoundError:
        gt_skip("no debugfs with split_huge_pages")
    except OSError:
        SPLIT.write_text("1")
    gt_need(not memory.is_in(0, IN_THP), "the page is split")


def run() -> None:
    memory = map_thp()
    length = len(memory.map) // 2
    whole = length >> 10
    # since 6.12, a split leaves the zero page in the place of parts that have nothing in them
    for page in range(length // PAGE):
        memory.write(page, b"o")
    Path("/proc/self/clear_refs").write_text("1")
    gt_need(not memory.smaps_kib("Referenced", length), "the accessed bits clear")
    accessed = gt_param("access") == "1"
    flush_tlb()
    if accessed:
        memory.read(0)
    before = memory.smaps_kib("Referenced", length)
    gt_need(
        before == (whole if accessed else 0), f"{before} of {whole} KiB count as accessed before the split"
    )
    if gt_param("split") == "page":
        split_page(memory, length)
    else:
        memory.mprotect_cycle(1)
        gt_need(memory.is_in(0, IN_THP), "the THP itself is not split")
    gt_need(not memory.smaps_kib("AnonHugePages", length), "the mapping is split")
    gt_check(before, memory.smaps_kib("Referenced", length), f"KiB of {whole} that count as accessed")
    gt_pass(f"{before} of {whole} KiB count as accessed, before the split and after")


TEST = GuestTest(
    summary="the accessed bits of a THP survive a split",
    contract="the accessed bits survive a split",
    mechanism="remove_migration_pte() clears the accessed bit of every PTE",
    changelog="12",
    needs_kconfig="TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y DEBUG_FS=y",
    min_kernel="4.10",
    params="split: pmd page; access: 1 0",
    needs_root=True,
    memory_mib=768,
    kind="deterministic",
    timeout_s=30,
    detects="reclaim mistakes a page in use for an idle one",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
