# SPDX-License-Identifier: GPL-2.0-or-later
"""swapoff under load: every page comes back to every process that shares it, with its contents.

swapoff walks all page tables and replaces swap entries by pages, while other processes swap out, fork, and
read pages by O_DIRECT.
"""

import mmap
import os
import struct
import tempfile
import time
from pathlib import Path

from guesttest import GuestTest, gt_check, gt_fork, gt_need, gt_param, gt_pass, gt_reap, gt_skip, libc
from pagestate import PAGE, SWAPPED, Memory, map_small
from rate import gt_rate

SECONDS = 6
# pages that must have been in swap for a pass to mean something
ENOUGH = 20
PAGES = 64


def find_swap() -> bytes:
    """What is swap here."""
    lines = Path("/proc/swaps").read_text().splitlines()[1:]
    if not lines:
        gt_skip("no swap is active (/proc/swaps lists none)")
    return lines[0].split()[0].encode()


def pattern(turn: int) -> bytes:
    return b"".join(struct.pack("=II", page, turn) * (PAGE // 8) for page in range(PAGES))


def page_out(memory: Memory) -> int:
    """How many pages of a few are in swap afterwards."""
    memory.map.madvise(getattr(mmap, "MADV_PAGEOUT", 21))
    return sum(bool(memory.entry(page) & SWAPPED) for page in range(0, PAGES, 8))


def check(memory: Memory, wanted: bytes, writer: str) -> None:
    got = memory.map[:]
    wrong = [page for page in range(PAGES) if got[page * PAGE :][:PAGE] != wanted[page * PAGE :][:PAGE]]
    gt_check([], wrong, f"pages of {PAGES} with other bytes than {writer} wrote")


class Tally:
    """Numbers that parent and worker both see."""

    def __init__(self) -> None:
        self.shared = mmap.mmap(-1, PAGE)

    def get(self, index: int) -> int:
        return int(struct.unpack_from("=Q", self.shared, index * 8)[0])

    def add(self, index: int, number: int) -> None:
        struct.pack_into("=Q", self.shared, index * 8, self.get(index) + number)


STOP, TURNS, OUT = range(3)


def swap_and_fork(tally: Tally) -> None:
    memory = map_small(PAGES)
    while not tally.get(STOP):
        wanted = pattern(tally.get(TURNS))
        memory.map[:] = wanted
        tally.add(OUT, page_out(memory))
        child = gt_fork(lambda wanted=wanted: check(memory, wanted, "the parent"))  # type: ignore[misc]
        check(memory, wanted, "we")
        gt_reap(child)
        tally.add(TURNS, 1)


def swap_and_read(tally: Tally) -> None:
    """Into the second half; the first one keeps what was there."""
    memory = map_small(PAGES)
    half = PAGES // 2 * PAGE
    on_disk = pattern(1 << 30)
    with tempfile.NamedTemporaryFile(dir=".") as file:
        file.write(on_disk)
        file.flush()
        os.fsync(file.fileno())
        fd = os.open(file.name, os.O_RDONLY | os.O_DIRECT)
        while not tally.get(STOP):
            wanted = pattern(tally.get(TURNS))
            memory.map[:] = wanted
            tally.add(OUT, page_out(memory))
            gt_need(os.preadv(fd, [memoryview(memory.map)[half:]], half) == half, "a direct read")
            check(memory, wanted[:half] + on_disk[half:], "we or the disk")
            tally.add(TURNS, 1)


def run() -> None:
    device = find_swap()
    work = swap_and_fork if gt_param("with") == "fork" else swap_and_read
    tally = Tally()
    worker = gt_fork(lambda: work(tally))
    times, began = 0, time.monotonic()
    peek = os.WEXITED | os.WNOHANG | os.WNOWAIT
    # a busy host needs longer for as much, and the time limit ends it; a worker that found something is done
    while time.monotonic() < began + SECONDS or (
        tally.get(OUT) <= ENOUGH and not os.waitid(os.P_PID, worker, peek)
    ):
        gt_need(not libc.swapoff(device), f"swapoff {device.decode()}")
        gt_need(not libc.swapon(device, 0), f"swapon {device.decode()}")
        times += 1
        time.sleep(0.02)
    hits = int(os.waitid(os.P_PID, worker, peek) is not None)
    tally.add(STOP, 1)
    gt_rate(hits, tally.get(TURNS) + hits)
    gt_reap(worker)
    told = f"swap off {times} times, {tally.get(TURNS)} turns, {tally.get(OUT)} pages seen in swap"
    gt_need(times > 5 and tally.get(TURNS) > 5 and tally.get(OUT) > ENOUGH, f"enough iterations: {told}")
    gt_pass(f"{told}, all with their old contents")


TEST = GuestTest(
    summary="pages keep their contents during swapoff and swapon",
    contract="C-LIVE",
    mechanism="unuse_pte() replaces swap entries by pages and meets an unexpected state",
    changelog="3",
    needs_kconfig="SWAP=y PROC_PAGE_MONITOR=y",
    min_kernel="5.4",
    params="with: fork read",
    needs_root=True,
    may_crash=True,
    cpus=2,
    kind="race",
    timeout_s=60,
    detects="a page with other bytes, a kernel splat",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
