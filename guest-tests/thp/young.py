# SPDX-License-Identifier: GPL-2.0-or-later
"""That a huge page was used must not be forgotten when it is split, nor made up.

Reclaim goes by the accessed bits. split=pmd turns the one entry of a mapping into many, split=page takes
the page itself apart, which goes through migration entries that have no accessed bit on older kernels.
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
        gt_need(memory.is_in(0, IN_THP), "the page itself is whole")
    gt_need(not memory.smaps_kib("AnonHugePages", length), "the mapping is split")
    gt_check(before, memory.smaps_kib("Referenced", length), f"KiB of {whole} that count as accessed")
    gt_pass(f"{before} of {whole} KiB count as accessed, before the split and after")


TEST = GuestTest(
    summary="what was accessed of a huge page counts as accessed after its split, and nothing else does",
    contract="the accessed bits survive a split",
    mechanism="remove_migration_pte makes every entry old",
    changelog="12",
    needs_kconfig="TRANSPARENT_HUGEPAGE=y PROC_PAGE_MONITOR=y DEBUG_FS=y",
    min_kernel="4.10",
    params="split: pmd page; access: 1 0",
    needs_root=True,
    memory_mib=768,
    kind="deterministic",
    timeout_s=30,
    detects="a page in use that reclaim takes for idle",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
