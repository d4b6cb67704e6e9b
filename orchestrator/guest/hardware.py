# SPDX-License-Identifier: GPL-2.0-or-later
"""Derives QEMU devices and kernel command line options from the description of a guest.

QEMU defines NUMA nodes and disks, the kernel command line defines huge pages and RAM disks; the rest is set
up in the guest. Disk images exist for one boot only.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

from orchestrator.process import command
from orchestrator.project.guest import GuestShape, render_kib

# beside its share of the data a member of an array has md's superblock and a gap
_MEMBER_EXTRA_MIB = 32


@dataclass(frozen=True, slots=True)
class Backing:
    """A disk of one boot; the guest finds it by its serial, never by the order of names."""

    serial: str
    size_mib: int
    sector: int

    def path(self, folder: Path) -> Path:
        return folder / f"{self.serial}.qcow2"


def list_backings(shape: GuestShape) -> Iterator[Backing]:
    """``cowbell-diskN`` for each scratch disk, ``cowbell-swapN`` for what swap is made of."""
    for i, disk in enumerate(shape.disks):
        yield Backing(f"cowbell-disk{i}", disk.size_mib, disk.sector)
    swap = shape.swap
    if swap.kind == "disk":
        yield Backing("cowbell-swap0", swap.size_mib, 512)
    if swap.kind == "raid5":
        for i in range(swap.disks):
            yield Backing(f"cowbell-swap{i}", make_member_mib(shape) + _MEMBER_EXTRA_MIB, 512)


def make_member_mib(shape: GuestShape) -> int:
    """What each member of the array gives to it: one of them holds parity."""
    return -(-shape.swap.size_mib // (shape.swap.disks - 1))


@contextlib.contextmanager
def make_images(shape: GuestShape, folder: Path) -> Iterator[None]:
    """The disks' files, all holes; removed when the block is left."""
    paths = []
    qemu_img = command.find_tool("qemu-img", "qemu-utils")
    for backing in list_backings(shape):
        paths.append(backing.path(folder))
        size = f"{backing.size_mib}M"
        command.run([qemu_img, "create", "-q", "-f", "qcow2", str(paths[-1]), size])
    try:
        yield
    finally:
        for path in paths:
            path.unlink(missing_ok=True)


def make_hardware_argv(shape: GuestShape, folder: Path) -> list[str]:
    """QEMU's words for nodes and disks; the disks' images are in ``folder``."""
    words: list[str] = []
    ends = accumulate(node.cpus for node in shape.numa)
    for i, (node, end) in enumerate(zip(shape.numa, ends, strict=True)):
        words += ["-object", f"memory-backend-ram,id=node{i},size={node.memory_mib}M"]
        words += ["-numa", f"node,nodeid={i},memdev=node{i},cpus={end - node.cpus}-{end - 1}"]
    for i, node in enumerate(shape.numa):
        for j, distance in enumerate(node.distances):
            words += ["-numa", f"dist,src={i},dst={j},val={distance}"]
    limits = ""
    if shape.io.iops:
        limits += f",throttling.iops-total={shape.io.iops}"
    if shape.io.bandwidth_mib:
        limits += f",throttling.bps-total={shape.io.bandwidth_mib << 20}"
    if limits:
        # one group: the limits are those of all of them together
        limits += ",throttling.group=io"
    for backing in list_backings(shape):
        name, sector = backing.serial, backing.sector
        # a guest's flush need not reach the host's disk: nothing outlives the boot
        drive = f"file={backing.path(folder)},if=none,id={name},format=qcow2,cache=unsafe{limits}"
        words += ["-drive", drive]
        blocks = f"logical_block_size={sector},physical_block_size={sector}"
        words += ["-device", f"virtio-blk-pci,drive={name},serial={name},{blocks}"]
    return words


def make_hardware_append(shape: GuestShape) -> str:
    """Words of the kernel command line: huge pages while memory is whole, devices that are built in."""
    words = [f"hugepagesz={render_kib(kib)} hugepages={count}" for kib, count in shape.hugepages]
    if shape.swap.kind == "brd":
        words.append(f"brd.rd_size={shape.swap.size_mib << 10}")
    if shape.swap.kind == "integrity":
        # removable: no; checksums made and checked by the kernel (DIX) and the disk (DIF)
        words.append(f"scsi_debug.add_host=1 scsi_debug.dev_size_mb={shape.swap.size_mib}")
        words.append("scsi_debug.dif=1 scsi_debug.dix=1")
        if shape.io.delay_ms:
            words.append(f"scsi_debug.ndelay={shape.io.delay_ms * 1000000}")
    return " ".join([*words, shape.append])
