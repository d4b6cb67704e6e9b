# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory in a known page state, which is verified: the Python side of pagestate.h and thp.h."""

import ctypes
import mmap
import os
import re
import time
from pathlib import Path

from guesttest import gt_need, gt_skip, libc

PAGE = os.sysconf("SC_PAGE_SIZE")
SOFT_DIRTY, SWAPPED, PRESENT = 1 << 55, 1 << 62, 1 << 63
FRAME = (1 << 55) - 1
THP = Path("/sys/kernel/mm/transparent_hugepage")
# bits of /proc/kpageflags: what the kernel thinks of the page behind the mapping
UNDER_WRITEBACK, IN_SWAPCACHE, IN_HUGETLB, IN_THP, IS_ZERO = 8, 13, 17, 22, 24


class Memory:
    """A private mapping with its address."""

    def __init__(self, length: int, fd: int = -1) -> None:
        flags = mmap.MAP_PRIVATE | (mmap.MAP_ANONYMOUS if fd < 0 else 0)
        self.map = mmap.mmap(fd, length, flags=flags)
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.map))
        self.start = 0

    def read(self, page: int) -> bytes:
        return self.map[self.start + page * PAGE : self.start + page * PAGE + 1]

    def write(self, page: int, byte: bytes) -> None:
        self.map[self.start + page * PAGE : self.start + page * PAGE + 1] = byte

    def entry(self, page: int) -> int:
        """The pagemap entry."""
        fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
        try:
            offset = ((self.address + self.start) // PAGE + page) * 8
            return int.from_bytes(os.pread(fd, 8, offset), "little")
        finally:
            os.close(fd)

    def frame(self, page: int) -> int:
        """The number of the page frame of a page that is mapped.

        A page on its way to another node looks for a moment as if it were in swap.
        """
        entry = self.entry(page)
        for _ in range(200):
            if not entry & SWAPPED:
                break
            time.sleep(0.001)
            entry = self.entry(page)
        gt_need(entry & PRESENT, f"page {page} is mapped, pagemap entry {entry:#x}")
        if not entry & FRAME:
            gt_skip("no permission to read page frame numbers")
        return entry & FRAME

    def is_in(self, page: int, flag: int) -> bool:
        with Path("/proc/kpageflags").open("rb", buffering=0) as flags:
            word = os.pread(flags.fileno(), 8, self.frame(page) * 8)
        return bool(int.from_bytes(word, "little") >> flag & 1)

    def smaps_kib(self, field: str, length: int) -> int:
        """A field of /proc/self/smaps, summed over the mappings of the bytes from the start on."""
        total, here = 0, False
        first = self.address + self.start
        for line in Path("/proc/self/smaps").read_text().splitlines():
            if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                here = int(bounds[1], 16) < first + length and first < int(bounds[2], 16)
            elif here and line.startswith(f"{field}:"):
                total += int(line.split()[1])
        return total

    def mprotect_cycle(self, pages: int) -> None:
        """Leave the pages writable in the VMA and write-protected in the page table."""
        start = ctypes.c_void_p(self.address + self.start)
        for protection in (mmap.PROT_READ, mmap.PROT_READ | mmap.PROT_WRITE):
            gt_need(not libc.mprotect(start, ctypes.c_size_t(pages * PAGE), protection), "mprotect")


def map_small(pages: int) -> Memory:
    memory = Memory(pages * PAGE)
    if THP.exists():
        memory.map.madvise(mmap.MADV_NOHUGEPAGE)
    return memory


def map_thp() -> Memory:
    """One huge page, touched and verified to be PMD-mapped; ``start`` is its offset in the mapping."""
    try:
        length = int((THP / "hpage_pmd_size").read_text())
    except OSError:
        gt_skip("the kernel has no transparent huge pages")
    if os.sysconf("SC_AVPHYS_PAGES") * PAGE < 4 * length:
        gt_skip(f"not enough free memory for huge pages of {length >> 20} MiB")
    switches = (THP / "enabled", THP / f"hugepages-{length >> 10}kB/enabled")
    off = [switch for switch in switches if switch.exists() and "[never]" in switch.read_text()]
    for switch in off:
        switch.write_text("madvise")
    memory = Memory(2 * length)
    memory.start = -memory.address % length
    memory.map.madvise(mmap.MADV_HUGEPAGE)
    memory.write(0, b"\0")
    for switch in off:
        switch.write_text("never")
    gt_need(memory.smaps_kib("AnonHugePages", length) >= length >> 10, "no huge page was allocated")
    return memory


def clear_soft_dirty() -> None:
    """Write-protect the whole process; verified on another page, as pinned ones may be skipped."""
    probe = map_small(1)
    probe.write(0, b"x")
    before = probe.entry(0)
    Path("/proc/self/clear_refs").write_text("4")
    if not before & SOFT_DIRTY or probe.entry(0) & SOFT_DIRTY:
        gt_skip("clearing soft-dirty bits has no effect")
