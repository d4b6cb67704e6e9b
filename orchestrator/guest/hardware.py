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

# md's superblock and gap on each member of an array
_MEMBER_EXTRA_MIB = 32
# an error of the host's disk must not reach the guest: QEMU stops it and sends an event, see hostwatch
ON_ERROR = "werror=stop,rerror=stop"


@dataclass(frozen=True, slots=True)
class Backing:
    """A disk of one boot; the guest finds it by its serial, never by the order of names."""

    serial: str
    size_mib: int
    sector: int

    def path(self, folder: Path) -> Path:
        return folder / f"{self.serial}.qcow2"


def list_backings(shape: GuestShape) -> Iterator[Backing]:
    """``cowbell-diskN`` for each scratch disk, ``cowbell-swapN`` for each disk of the swap device."""
    for i, disk in enumerate(shape.disks):
        yield Backing(f"cowbell-disk{i}", disk.size_mib, disk.sector)
    swap = shape.swap
    if swap.kind == "disk":
        yield Backing("cowbell-swap0", swap.size_mib, 512)
    if swap.kind == "raid5":
        for i in range(swap.disks):
            yield Backing(f"cowbell-swap{i}", make_member_mib(shape) + _MEMBER_EXTRA_MIB, 512)


def make_member_mib(shape: GuestShape) -> int:
    """The data of each array member in MiB; one member holds parity."""
    return -(-shape.swap.size_mib // (shape.swap.disks - 1))


def quote_path(path: Path) -> str:
    """A path in a list of QEMU's options, which commas separate."""
    return str(path).replace(",", ",,")


@contextlib.contextmanager
def make_images(shape: GuestShape, folder: Path) -> Iterator[None]:
    """Sparse image files of the disks; removed at the end of the block."""
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
    """The QEMU options for NUMA nodes and disks, whose images are in ``folder``."""
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
        # one group: the limits apply to all disks together
        limits += ",throttling.group=io"
    for backing in list_backings(shape):
        name, sector = backing.serial, backing.sector
        # the images are removed after the boot, so flushes need not reach the host's disk
        drive = f"file={quote_path(backing.path(folder))},if=none,id={name},format=qcow2,cache=unsafe"
        words += ["-drive", f"{drive},{ON_ERROR}{limits}"]
        blocks = f"logical_block_size={sector},physical_block_size={sector}"
        words += ["-device", f"virtio-blk-pci,drive={name},serial={name},{blocks}"]
    return words


def make_hardware_append(shape: GuestShape) -> str:
    """The kernel command line options for huge pages, which need contiguous memory, and RAM disks."""
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
