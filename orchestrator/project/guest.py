# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the ``guest:`` of a row in ``ci/matrix.yaml``.

Inconsistent guest definitions are rejected with file:line before any build. Only what is requested is set up.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from orchestrator.project import yamlfile as doc
from orchestrator.project.yamlfile import Invalid, Place, Reading, Shape

# memory that a guest needs in addition to huge pages and RAM disks
_RESERVE_MIB = 256
_GIB = 1024 * 1024
_KIB = {"K": 1, "M": 1024, "G": _GIB}
_XFS_MIB = 300
_SWAP_MIB = 256
# page sizes other than 4 KiB, by the symbol that makes them; all in KiB
_PAGES = {"ARM64_16K_PAGES": 16, "ARM64_64K_PAGES": 64}
_HUGE_PAGES = {
    ("x86_64", 4): (2048, 1048576),
    ("aarch64", 4): (64, 2048, 32768, 1048576),
    ("aarch64", 16): (2048, 32768, 1048576),
    ("aarch64", 64): (2048, 524288, 16777216),
    ("riscv64", 4): (64, 2048, 1048576),
}
# a PMD maps as many pages as fit entries into one page
_ENTRY_BYTES = 8


@dataclass(frozen=True, slots=True)
class Node:
    """A NUMA node. ``distances`` to all nodes in order, including itself (10); empty for QEMU's default."""

    cpus: int
    memory_mib: int
    distances: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Disk:
    """A scratch disk. ``sector`` is the logical block size in bytes; a raw disk has ``format`` ``none``."""

    size_mib: int
    sector: int = 512
    format: str = "ext4"


@dataclass(frozen=True, slots=True)
class Swap:
    """The swap device. ``disks`` and ``skip_copy`` are for RAID5; the latter needs stable pages."""

    kind: str = "none"
    size_mib: int = _SWAP_MIB
    disks: int = 3
    skip_copy: bool = False


# what QEMU's machines and file systems can have
_MOST_CPUS, _MOST_MIB, _MOST_DISK_MIB = 255, 1 << 20, 1 << 24


@dataclass(frozen=True, slots=True)
class Io:
    """Limits for all disks except the root disk together; 0 is unlimited. ``delay_ms`` is per transfer."""

    iops: int = 0
    bandwidth_mib: int = 0
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class GuestShape:
    """The guest of a row. ``hugepages`` are pairs of page size in KiB and number.

    ``qemu`` are more arguments for QEMU, of the command line.
    """

    cpus: int
    memory_mib: int
    numa: tuple[Node, ...] = ()
    disks: tuple[Disk, ...] = ()
    swap: Swap = Swap()
    hugepages: tuple[tuple[int, int], ...] = ()
    thp: str = ""
    ksm: str = ""
    io: Io = Io()
    append: str = ""
    qemu: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to set up or check in the guest."""
        return self == GuestShape(self.cpus, self.memory_mib, append=self.append, qemu=self.qemu)

    @property
    def has_virtio_disks(self) -> bool:
        return bool(self.disks) or self.swap.kind in ("disk", "raid5")


@dataclass(frozen=True, slots=True)
class Declared:
    """A guest definition and the places of its keys; the key ``""`` is the whole definition."""

    shape: GuestShape
    places: Mapping[str, Place]


@dataclass(frozen=True, slots=True)
class Need:
    """A kernel symbol that ``key`` of a guest definition needs."""

    key: str
    symbol: str


def list_needs(shape: GuestShape) -> Iterator[Need]:
    """The kernel symbols that a guest needs."""
    symbols = {
        "numa": ["NUMA"] if shape.numa else [],
        "disks": [f"{disk.format.upper()}_FS" for disk in shape.disks if disk.format != "none"],
        "swap": {
            "none": [],
            "disk": ["SWAP"],
            "zram": ["SWAP", "ZRAM"],
            "brd": ["SWAP", "BLK_DEV_RAM"],
            "integrity": ["SWAP", "BLK_DEV_INTEGRITY", "SCSI_DEBUG"],
            "raid5": ["SWAP", "MD_RAID456"],
        }[shape.swap.kind],
        "hugepages": ["HUGETLBFS"] if shape.hugepages else [],
        "thp": ["TRANSPARENT_HUGEPAGE"] if shape.thp else [],
        "ksm": ["KSM"] if shape.ksm else [],
        "io": ["DM_DELAY"] if shape.io.delay_ms and shape.has_virtio_disks else [],
    }
    return (Need(key, symbol) for key, names in symbols.items() for symbol in dict.fromkeys(names))


def find_misfits(shape: GuestShape, arch: str, symbols: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Key and error of each setting that does not fit the page size of the config."""
    page_kib = next((kib for symbol, kib in _PAGES.items() if symbols.get(symbol) == "y"), 4)
    sizes = _HUGE_PAGES.get((arch, page_kib), ())
    for kib, count in shape.hugepages:
        if kib not in sizes:
            known = ", ".join(map(render_kib, sizes)) or "none"
            yield (
                "hugepages",
                f"{arch} with {page_kib}K pages has no huge pages of {render_kib(kib)}: {known}",
            )
        if kib == _GIB and arch == "x86_64" and shape.memory_mib < (count + 3) * 1024:
            # the first contains the kernel, the second the gap below 4 GiB, the last the memory map
            yield (
                "hugepages",
                f"{count} of 1G need at least memory: {count + 3}G on {arch}, where three aligned 1G ranges "
                f"are never free, got {shape.memory_mib}M",
            )
    entry_mib = page_kib * (page_kib * 1024 // _ENTRY_BYTES) // 1024
    if shape.thp in ("always", "madvise") and shape.memory_mib < 2 * entry_mib + _RESERVE_MIB:
        yield (
            "thp",
            f"with {page_kib}K pages a huge page is {entry_mib}M: two of them and {_RESERVE_MIB}M for the "
            f"rest are more than memory: {shape.memory_mib}M",
        )


def _find_contradictions(shape: GuestShape) -> Iterator[tuple[str, str]]:
    """Key and error of each inconsistency that does not depend on the architecture."""
    if shape.cpus > _MOST_CPUS:
        yield "cpus", f"expected at most {_MOST_CPUS}, got {shape.cpus}"
    if shape.memory_mib > _MOST_MIB:
        yield "memory", f"expected at most {_MOST_MIB >> 20}T, got {shape.memory_mib}M"
    for key, size_mib in (*(("disks", disk.size_mib) for disk in shape.disks), ("swap", shape.swap.size_mib)):
        if size_mib > _MOST_DISK_MIB:
            yield key, f"expected at most {_MOST_DISK_MIB >> 20}T, got {size_mib}M"
    if nodes := shape.numa:
        for name, total, given in (
            ("cpus", shape.cpus, sum(node.cpus for node in nodes)),
            ("memory", shape.memory_mib, sum(node.memory_mib for node in nodes)),
        ):
            unit = "M" if name == "memory" else ""
            if total != given:
                yield "numa", f"the nodes have {given}{unit} of {name} in total, the guest has {total}{unit}"
        if any(node.distances for node in nodes):
            for i, node in enumerate(nodes):
                far = [distance for j, distance in enumerate(node.distances) if j != i]
                if len(node.distances) != len(nodes):
                    yield "numa", f"node {i} has {len(node.distances)} distances, expected {len(nodes)}"
                elif node.distances[i] != 10 or not all(10 < distance < 255 for distance in far):
                    yield "numa", f"node {i}: expected distance 10 to itself and 11 to 254 to others"
    taken = {f"{count} of {render_kib(kib)}": kib * count // 1024 for kib, count in shape.hugepages}
    if shape.swap.kind in ("brd", "integrity"):
        taken[f"swap: {shape.swap.kind}"] = shape.swap.size_mib
    if taken and sum(taken.values()) + _RESERVE_MIB > shape.memory_mib:
        key = "hugepages" if shape.hugepages else "swap"
        what = ", ".join(f"{name} ({mib}M)" for name, mib in taken.items())
        yield (
            key,
            f"{what} and {_RESERVE_MIB}M for the rest are more than memory: {shape.memory_mib}M",
        )
    for i, disk in enumerate(shape.disks):
        if disk.format == "xfs" and disk.size_mib < _XFS_MIB:
            yield "disks", f"disk {i}: xfs needs at least {_XFS_MIB}M, got {disk.size_mib}M"
    if shape.swap.kind == "raid5" and not 3 <= shape.swap.disks <= 8:
        yield "swap", f"raid5 needs 3 to 8 disks, got {shape.swap.disks}"
    if shape.io != Io() and not shape.has_virtio_disks:
        if shape.swap.kind != "integrity":
            yield "io", "there is no disk to limit: add disks, or swap: disk, raid5 or integrity"
        elif shape.io != Io(delay_ms=shape.io.delay_ms):
            yield "io", "swap: integrity supports only delay, not iops and bandwidth"
    if shape.io.delay_ms >= 1000:
        yield "io", f"expected a delay below 1000ms, got {shape.io.delay_ms}ms"
    try:
        read_append(shape.append)
    except ValueError as error:
        yield "append", str(error)


def read_append(text: str) -> str:
    """Kernel parameters; raises ``ValueError`` for those that decide whether a guest starts our init."""
    if {"--", "root=", "init=", "rdinit="} & {re.sub("=.*", "=", word) for word in text.split()}:
        raise ValueError("--, root= and init= are reserved")
    return text


def render_kib(kib: int) -> str:
    """``2M`` of 2048."""
    unit = next(unit for unit in ("G", "M", "K") if not kib % _KIB[unit])
    return f"{kib // _KIB[unit]}{unit}"


def _size_kib(value: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)([KMG])", value)
    if not match:
        raise ValueError(f"expected size like 2M, got {value}")
    return int(match[1]) * _KIB[match[2]]


def _time_ms(value: str) -> int:
    match = re.fullmatch(r"([1-9]\d*)ms", value)
    if not match:
        raise ValueError(f"expected time like 5ms, got {value}")
    return int(match[1])


def _hugepages(reading: Reading, node: yaml.Node, path: str) -> tuple[tuple[int, int], ...]:
    counts = doc.mapping_of(doc.scalar(doc.count))(reading, node, path)
    try:
        return tuple(sorted((_size_kib(size), count) for size, count in counts.items()))
    except ValueError as error:
        raise reading.refuse(node, path, str(error)) from None


_SIZE = doc.scalar(doc.size_mib)
_COUNT = doc.scalar(doc.count)
_SWAPS: Mapping[str, Mapping[str, Shape[object]]] = {
    "none": {},
    "disk": {"size": _SIZE},
    "zram": {"size": _SIZE},
    "brd": {"size": _SIZE},
    "integrity": {"size": _SIZE},
    "raid5": {
        "size": _SIZE,
        "disks": _COUNT,
        "skip_copy": doc.scalar(lambda value: doc.one_of(("true", "false"))(value) == "true"),
    },
}


def _swap(reading: Reading, node: yaml.Node, path: str) -> Swap:
    """``zram``, or ``{raid5: {disks: 3}}``."""
    if isinstance(node, yaml.ScalarNode):
        return Swap(doc.scalar(doc.one_of(_SWAPS))(reading, node, path))

    def details(kind: str) -> Shape[Swap]:
        def make(place: Place, size: int = _SWAP_MIB, disks: int = 3, skip_copy: bool = False) -> Swap:
            return Swap(kind, size, disks, skip_copy)

        return doc.record(make, {}, _SWAPS[kind])

    def one(place: Place, **kinds: Swap) -> Swap:
        if len(kinds) != 1:
            raise ValueError("expected one kind of swap")
        return next(iter(kinds.values()))

    return doc.record(one, {}, {kind: details(kind) for kind in _SWAPS})(reading, node, path)


_GUEST = doc.record(
    lambda place, cpus, memory, **others: GuestShape(cpus, memory, **others),
    {"cpus": _COUNT, "memory": _SIZE},
    {
        "numa": doc.list_of(
            doc.record(
                lambda place, cpus, memory, distances=(): Node(cpus, memory, distances),
                {"cpus": _COUNT, "memory": _SIZE},
                {"distances": doc.list_of(_COUNT)},
            )
        ),
        "disks": doc.list_of(
            doc.record(
                lambda place, size, **others: Disk(size, **others),
                {"size": _SIZE},
                {
                    "sector": doc.scalar(lambda value: int(doc.one_of(("512", "4096"))(value))),
                    "format": doc.scalar(doc.one_of(("ext4", "xfs", "none"))),
                },
            )
        ),
        "swap": _swap,
        "hugepages": _hugepages,
        "thp": doc.scalar(doc.one_of(("always", "madvise", "never"))),
        "ksm": doc.scalar(doc.one_of(("on", "off"))),
        "io": doc.record(
            lambda place, iops=0, bandwidth=0, delay=0: Io(iops, bandwidth, delay),
            {},
            {"iops": _COUNT, "bandwidth": _SIZE, "delay": doc.scalar(_time_ms)},
        ),
        "append": doc.scalar(doc.text),
    },
)


def guest(reading: Reading, node: yaml.Node, path: str) -> Declared:
    """The shape of ``guest:``."""
    shape = _GUEST(reading, node, path)
    nodes = {key.value: value for key, value in node.value}
    wrong = list(_find_contradictions(shape))
    for key, what in wrong:
        reading.refuse(nodes.get(key, node), f"{path}.{key}".lstrip("."), what)
    if wrong:
        raise Invalid
    places = {key: reading.place(value, f"{path}.{key}") for key, value in nodes.items()}
    return Declared(shape, {"": reading.place(node, path), **places})
