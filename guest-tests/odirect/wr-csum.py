# SPDX-License-Identifier: GPL-2.0-or-later
"""btrfs computes the checksum of a direct write, and then the program changes the buffer before it is read.

The device-mapper device below the file system is suspended, so that the write has been submitted and nothing
is written. The program changes its buffer, the device goes on, and the file is read back. What it contains
is the program's own matter, but it must be readable.
"""

import mmap
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from guesttest import GuestTest, gt_broken, gt_fail, gt_need, gt_param, gt_pass, gt_skip

NAME = "cowbell-wr-csum"
LENGTH = 1 << 16
OLD, NEW = b"o", b"n"
SETTLE_S, MOST_S = 0.2, 20


def tool(*argv: str) -> str:
    try:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    except FileNotFoundError:
        gt_skip(f"the guest has no {argv[0]}")
    if done.returncode:
        gt_broken(f"{' '.join(argv)}: exit status {done.returncode}: {done.stdout.strip()}")
    return done.stdout.strip()


def need_btrfs() -> None:
    """Skip without it. Nobody else loads modules in a guest without udev."""
    if shutil.which("modprobe"):
        for module in ("loop", "dm_mod", "btrfs"):
            subprocess.run(["modprobe", "-q", module])
    if "\tbtrfs\n" not in Path("/proc/filesystems").read_text():
        gt_skip("the kernel has no btrfs")
    if not Path("/dev/loop-control").exists() or not Path("/dev/mapper/control").exists():
        gt_skip("the kernel has no loop devices, or no device mapper")


@contextmanager
def make_filesystem() -> "Iterator[Path]":
    """A btrfs on a device that can be suspended, mounted."""
    with tempfile.TemporaryDirectory(dir=".") as folder:
        disk, place = f"{folder}/disk", Path(folder, "mounted")
        Path(disk).touch()
        os.truncate(disk, 256 << 20)
        place.mkdir()
        loop = tool("busybox", "losetup", "-f")
        tool("busybox", "losetup", loop, disk)
        try:
            sectors = Path(f"/sys/block/{loop[5:]}/size").read_text().strip()
            table = f"0 {sectors} linear {loop} 0"
            tool("dmsetup", "create", NAME, "--noudevsync", "--noudevrules", "--table", table)
            try:
                device = next(
                    f"/dev/{name.parts[3]}"
                    for name in Path("/sys/block").glob("dm-*/dm/name")
                    if name.read_text().strip() == NAME
                )
                tool("mkfs.btrfs", "-q", device)
                tool("busybox", "mount", "-t", "btrfs", device, str(place))
                try:
                    yield place
                finally:
                    tool("dmsetup", "resume", "--noudevsync", NAME)
                    tool("busybox", "umount", str(place))
            finally:
                tool("dmsetup", "remove", "--noudevsync", NAME)
        finally:
            tool("busybox", "losetup", "-d", loop)


def waits_for_disk(thread: threading.Thread) -> bool:
    stat = Path(f"/proc/self/task/{thread.native_id}/stat").read_text()
    return stat.rpartition(")")[2].split()[0] == "D"


def write_and_change(path: Path, is_changed: bool) -> None:
    buffer = mmap.mmap(-1, LENGTH)
    buffer[:] = OLD * LENGTH
    written = []
    file = os.open(path, os.O_RDWR | os.O_DIRECT)
    writer = threading.Thread(target=lambda: written.append(os.pwrite(file, buffer, 0)), daemon=True)
    tool("dmsetup", "suspend", "--noflush", "--nolockfs", NAME)
    writer.start()
    end = time.monotonic() + MOST_S
    while not waits_for_disk(writer):
        gt_need(time.monotonic() < end, "a write that waits for the disk")
        time.sleep(0.01)
    time.sleep(SETTLE_S)
    gt_need(waits_for_disk(writer), "a write that waits for the disk")
    if is_changed:
        buffer[:] = NEW * LENGTH
    tool("dmsetup", "resume", "--noudevsync", NAME)
    writer.join()
    gt_need(written == [LENGTH], f"{LENGTH} bytes written, not {written}")
    os.close(file)


def run() -> None:
    need_btrfs()
    with make_filesystem() as place:
        path = place / "file"
        path.write_bytes(b"x" * LENGTH)
        os.sync()
        write_and_change(path, gt_param("change") == "buffer")
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
        try:
            content = path.read_bytes()
        except OSError as error:
            gt_fail(f"the file that was written cannot be read: {os.strerror(error.errno)}")
        if content == NEW * LENGTH:
            gt_broken("the buffer changed before the file system had looked at it")
        if content != OLD * LENGTH:
            gt_fail("the file has neither what was in the buffer nor what is in it now")
        gt_pass("the file can be read, and has what was written")


TEST = GuestTest(
    summary="a file whose direct write raced with a change of the buffer can be read afterwards",
    contract="C-DATA",
    mechanism="a checksum is computed of pages that the program can change before they are written",
    fixes="968f19c5b1b7",
    params="change: none buffer",
    min_kernel="4.9",
    needs_root=True,
    kind="deterministic",
    timeout_s=60,
    detects="EIO from a file that was written without an error",
    run=run,
)

if __name__ == "__main__":
    TEST.main()
