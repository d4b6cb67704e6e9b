# SPDX-License-Identifier: GPL-2.0-or-later
"""A KSM page in swap belongs to unrelated processes.

The first process that reads it back moves it to its own anon_vma and exits. The page still points to that
anon_vma when the second process finds it in the swap cache, and looks at freed memory. Only KASAN detects
that.
"""

import ctypes
import os
import re
import struct
import time
from pathlib import Path

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_pass, gt_reap, gt_skip, libc
from ksm import ksm_scans
from pagestate import FRAME, PAGE, PRESENT, SWAPPED, Memory
from rate import gt_rate

SECONDS = 20
# each with a bookkeeping of its own, so that whole slabs of it are freed with their process
PAGES = 512
SAMPLE = range(0, PAGES, 8)
ANSWER = struct.Struct(f"={len(SAMPLE)}Q")
STEP = 4 << 20
# more cannot be filled in the time of a test
MOST_KIB = 1 << 20
LEAST_KIB = 24 << 10
MADV_MERGEABLE = 12


def meminfo_kib(field: str) -> int:
    found = re.search(rf"{field}: *([0-9]+)", Path("/proc/meminfo").read_text())
    return int(found[1]) if found else 0


def content(page: int) -> bytes:
    return struct.pack("=Q", page) * (PAGE // 8)


class Scattered(Memory):
    """Pages with a hole after each, so that no two share a mapping. All are offered for merging."""

    def __init__(self) -> None:
        super().__init__(2 * PAGES * PAGE)
        one = ctypes.c_size_t(PAGE)
        for page in range(PAGES):
            start = self.address + 2 * page * PAGE
            gt_need(not libc.munmap(ctypes.c_void_p(start + PAGE), one), "munmap")
            self.map[2 * page * PAGE : (2 * page + 1) * PAGE] = content(page)
            gt_need(not libc.madvise(ctypes.c_void_p(start), one, MADV_MERGEABLE), "MADV_MERGEABLE")

    def entries(self) -> "list[int]":
        """The pagemap entries of the sample."""
        return [self.entry(2 * page) for page in SAMPLE]

    def check(self) -> "list[int]":
        pages = (self.map[2 * page * PAGE : (2 * page + 1) * PAGE] for page in range(PAGES))
        wrong = [page for page, got in enumerate(pages) if got != content(page)]
        gt_check([], wrong, f"pages of {PAGES} with other bytes than before swap")
        return self.entries()


class Owner:
    """A process with scattered pages, and the steps it takes when told."""

    def __init__(self) -> None:
        orders, self.send = os.pipe()
        self.receive, answers = os.pipe()

        def live() -> None:
            memory = Scattered()
            obey = {b"e": memory.entries, b"c": memory.check}
            while (order := os.read(orders, 1)) != b"q":
                os.write(answers, ANSWER.pack(*obey[order]()))

        self.pid = gt_fork(live)
        os.close(orders)
        os.close(answers)

    def ask(self, order: bytes) -> "tuple[int, ...]":
        os.write(self.send, order)
        answer = os.read(self.receive, ANSWER.size)
        if not answer:
            gt_reap(self.pid)  # it ended by itself, and says why
        return ANSWER.unpack(answer)

    def count_in_swap(self) -> int:
        return sum(bool(entry & SWAPPED) for entry in self.ask(b"e"))

    def count_merged(self, other: "Owner") -> int:
        """Pages of the sample that are on the same page frame as those of the other."""

        def are_one(ours: int, theirs: int) -> bool:
            return bool(ours & theirs & PRESENT) and ours & FRAME == theirs & FRAME

        return sum(map(are_one, self.ask(b"e"), other.ask(b"e")))

    def end(self) -> None:
        os.write(self.send, b"q")
        gt_reap(self.pid)
        os.close(self.send)
        os.close(self.receive)


def fill_memory(owner: Owner) -> None:
    """With pages that stay, so that all others have to go, until most of the owner's are in swap."""
    enough = meminfo_kib("SwapTotal") // 2
    hogs = []
    while owner.count_in_swap() < len(SAMPLE) // 2 and meminfo_kib("SwapFree") > enough:
        length = STEP if meminfo_kib("MemAvailable") > LEAST_KIB else STEP // 16
        hogs.append(Memory(length))
        gt_need(not libc.mlock(ctypes.c_void_p(hogs[-1].address), ctypes.c_size_t(length)), "mlock")


def churn() -> "tuple[int, int]":
    """How many pages of the sample were merged, and how many of those came to swap."""
    first, second = Owner(), Owner()
    for _ in range(100):
        merged = first.count_merged(second)
        if merged == len(SAMPLE):
            break
        time.sleep(0.02)
    gt_reap(gt_fork(lambda: fill_memory(second)))
    out = second.count_in_swap()
    first.ask(b"c")
    first.end()
    second.ask(b"c")
    second.end()
    return merged, out


def run() -> None:
    if not meminfo_kib("SwapTotal"):
        gt_skip("no swap is active (SwapTotal is 0)")
    if meminfo_kib("MemAvailable") > MOST_KIB:
        gt_skip(f"the guest has more memory than the test can fill, {MOST_KIB >> 10} MiB")
    rounds = merged = out = 0
    end = time.monotonic() + SECONDS
    with ksm_scans():
        while time.monotonic() < end or rounds < 3:
            now = churn()
            rounds, merged, out = rounds + 1, merged + now[0], out + now[1]
    told = f"{rounds} rounds of {PAGES} pages; of a sample {merged} were merged, {out} of them in swap"
    gt_need(merged > len(SAMPLE) and out > len(SAMPLE), f"enough iterations: {told}")
    gt_rate(0, rounds)  # one hit is KASAN's to tell
    gt_pass(f"{told}, all with their old contents")


TEST = GuestTest(
    summary="KSM pages come back from swap without a use-after-free",
    contract="C-LIVE",
    mechanism="ksm_might_need_to_copy() uses the anon_vma of a page that holds no reference to it",
    changelog="13 14 15 34",
    needs_kconfig="KASAN=y KSM=y SWAP=y PROC_PAGE_MONITOR=y",
    min_kernel="5.4",
    needs_root=True,
    may_crash=True,
    memory_mib=512,
    kind="race",
    timeout_s=120,
    detects="a use-after-free reported by KASAN",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
