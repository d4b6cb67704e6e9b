# SPDX-License-Identifier: GPL-2.0-or-later
"""A page under writeback to swap is read back and gets an R/O pin before the writeback ends.

A disk with checksums needs stable pages, so the next write during writeback copies the page, and the device
that pinned the page loses coherency: the pin must wait, or refer to the copy. The control, swap without
stable writes, shows the behaviour for the pin alone.
"""

import ctypes
import errno
import mmap
import os
import re
import subprocess
import time
from pathlib import Path

from cowpin import Pin
from guesttest import GuestTest, gt_check, gt_need, gt_note, gt_param, gt_pass, gt_skip, libc
from pagestate import IN_SWAPCACHE, PAGE, SWAPPED, UNDER_WRITEBACK, Memory, map_small

DELAY = Path("/sys/bus/pseudo/drivers/scsi_debug/delay")
ZSWAP = Path("/sys/module/zswap/parameters/enabled")
# answers at once, and goes past the swap cache
SYNCHRONOUS = ("zram", "ram", "pmem")
# jiffies: seconds, at whatever HZ
LATE = "500"
LATE_MS = 2000


def swap_devices() -> "list[str]":
    """The block devices that are swap, by name in /sys/class/block."""
    paths = [line.split()[0] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    if not paths:
        gt_skip("no swap is active (/proc/swaps lists none)")
    return [path.removeprefix("/dev/") for path in paths if path.startswith("/dev/")]


def is_stable(name: str) -> bool:
    """Whether a device asks for pages that do not change while they are written.

    Since 6.11 (c6e56cf6b2e7) one with checksums does whatever its attribute says.
    """
    device = Path("/sys/class/block") / name
    queue, checksums = device / "queue/stable_writes", device / "integrity/format"
    if queue.exists() and queue.read_text().strip() == "1":
        return True
    release = tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))
    return release >= (6, 11) and checksums.exists() and "-DIF-" in checksums.read_text()


class ScsiDebug:
    """The delay of a scsi_debug disk."""

    def set(self, is_long: bool) -> None:
        """It is refused while requests wait."""
        while True:
            try:
                DELAY.write_text(LATE if is_long else self.before)
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                time.sleep(0.05)  # a device that never answers ends in the test's timeout
            else:
                return

    before = DELAY.read_text().strip() if DELAY.exists() else ""


class Mapped:
    """The delay of writes to device-mapper devices: the swap itself, or the members of its array."""

    def __init__(self, names: "list[str]") -> None:
        self.tables = {name: dmsetup("table", name) for name in names}

    def set(self, is_long: bool) -> None:
        for name, table in self.tables.items():
            start, sectors, _, device, offset = table.split()[:5]
            late = f"{start} {sectors} delay {device} {offset} 0 {device} {offset} {LATE_MS}"
            dmsetup("load", name, "--table", late if is_long else table)
            dmsetup("suspend", name)
            dmsetup("resume", name)


def dmsetup(*words: str) -> str:
    done = subprocess.run(["dmsetup", *words], capture_output=True, text=True)
    gt_need(done.returncode == 0, f"dmsetup {words[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


def find_delay(name: str) -> "ScsiDebug | Mapped | None":
    """What makes a device answer late, if anything can."""
    device = Path("/sys/class/block") / name
    model = device / "device/model"
    if model.exists() and model.read_text().strip() == "scsi_debug":
        return ScsiDebug()
    members = [device] if (device / "dm").is_dir() else [*(device / "slaves").glob("*")]
    names = [(one / "dm/name").read_text().strip() for one in members if (one / "dm/name").exists()]
    can_wait = len(names) == len(members) > 0 and all(" delay " in dmsetup("table", one) for one in names)
    return Mapped(names) if can_wait else None


def use_only(chosen: str, others: "list[str]") -> None:
    for name in others:
        gt_need(name == chosen or not libc.swapoff(f"/dev/{name}".encode()), f"swapoff {name}")


def swap_out(memory: Memory) -> None:
    for _ in range(200):
        memory.map.madvise(getattr(mmap, "MADV_PAGEOUT", 21))
        if memory.entry(0) & SWAPPED:
            return
        map_small(64).map[:] = bytes(64 * PAGE)
    gt_need(False, "the page was not swapped out")


def check_pin(memory: Memory, wants_writeback: bool) -> None:
    with Pin(memory, longterm=True) as pin:
        gt_check(b"o", pin.read(1), "the byte of the mapped page, read through the pin")
        if wants_writeback and not memory.is_in(0, UNDER_WRITEBACK):
            gt_pass("the pin waited for the end of writeback, or refers to a copy")
        memory.read(0)
        memory.write(0, b"n")
        gt_check(b"n", pin.read(1), "the byte that the device reads after a write")


def run() -> None:
    wants_stable = gt_param("device") == "stable"
    names = [name for name in swap_devices() if not name.startswith(SYNCHRONOUS)]
    chosen = [name for name in names if is_stable(name) == wants_stable]
    if not chosen:
        gt_skip(f"no swap on a device with{'' if wants_stable else 'out'} stable writes: {names or 'none'}")
    delay = find_delay(chosen[0]) if wants_stable else None
    if wants_stable and not delay:
        gt_skip(f"{chosen[0]} cannot be delayed: neither a scsi_debug disk nor on dm-delay")
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    Pin.need()
    memory = map_small(1)
    memory.write(0, b"o")
    use_only(chosen[0], names)
    uses_zswap = ZSWAP.exists() and ZSWAP.read_text().strip() == "Y"
    try:
        if uses_zswap:
            # what it keeps is not written to the device
            ZSWAP.write_text("N")
        if delay:
            delay.set(True)
        swap_out(memory)
        gt_check(b"o", memory.read(0), "the byte that comes back from swap")
        gt_need(memory.is_in(0, IN_SWAPCACHE), "the page is in the swap cache")
        gt_note(f"under writeback: {memory.is_in(0, UNDER_WRITEBACK)}")
        gt_need(not wants_stable or memory.is_in(0, UNDER_WRITEBACK), "the page is under writeback")
        check_pin(memory, wants_stable)
    finally:
        if delay:
            delay.set(False)
        if uses_zswap:
            ZSWAP.write_text("Y")
        for name in names:
            libc.swapon(ctypes.c_char_p(f"/dev/{name}".encode()), 0)
    gt_pass(f"swap on {chosen[0]}: the device reads the data that the program wrote")


TEST = GuestTest(
    summary="an R/O pin of a page under stable writeback stays coherent",
    contract="C-SYNC",
    mechanism="reuse_swap_page() rejects a page under stable writeback, and the write fault copies it",
    changelog="8",
    needs_kconfig="MODULES=y SWAP=y PROC_PAGE_MONITOR=y",
    min_kernel="5.9",
    params="device: plain stable",
    needs_root=True,
    kind="deterministic",
    timeout_s=60,
    detects="the device reads stale bytes",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
