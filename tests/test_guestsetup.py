# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row asks of its guest: read, summed up, told to QEMU, compared with what the guest says it is."""

import ast
import contextlib
import copy
import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestrator.errors import StageFailure, UsageError
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.connection import CommandResult, Guest
from orchestrator.guest.hardware import list_backings, make_hardware_append, make_hardware_argv, make_images
from orchestrator.guest.qemu import Machine
from orchestrator.guest.rootfs import Rootfs, make_rootfs
from orchestrator.guest.setup import describe_setup, find_differences, load_setup, make_setup_id, set_up
from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain
from orchestrator.kernel.kconfig import Config
from orchestrator.plan import plan, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.workspace import Workspace
from orchestrator.process.command import Deadline
from orchestrator.project import yamlfile
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Version
from orchestrator.project.guest import (
    Declared,
    Disk,
    GuestShape,
    Io,
    Node,
    Swap,
    find_misfits,
    guest,
    list_needs,
)
from orchestrator.project.matrix import load_matrix
from orchestrator.result.stored import find_results_dir
from orchestrator.source.repository import Source
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress

PLAIN = "cpus: 2\nmemory: 1G\n"
PLAIN_SHAPE = GuestShape(2, 1024)
DECLARED = load_declarations(ROOT)


def read(tmp_path: Path, text: str) -> Declared:
    file = tmp_path / "guest.yaml"
    file.write_text(text)
    return yamlfile.load_document(file, guest)


def told(tmp_path: Path, text: str) -> list[str]:
    """The errors of a description, each as LINE: what."""
    with pytest.raises(ExceptionGroup) as raised:
        read(tmp_path, text)
    return [str(error).removeprefix(f"{tmp_path}/guest.yaml:") for error in raised.value.exceptions]


def test_nothing_is_set_up_that_is_not_asked_for(tmp_path: Path) -> None:
    shape = read(tmp_path, PLAIN).shape
    assert shape == GuestShape(2, 1024)
    assert shape.is_plain
    assert make_hardware_argv(shape, tmp_path) == []
    assert make_hardware_append(shape) == ""
    assert list(list_needs(shape)) == []
    assert make_setup_id(shape) == ""


def test_commas_of_a_path_are_no_separators(tmp_path: Path) -> None:
    shape = read(tmp_path, PLAIN + "disks: [{size: 64M}]\n").shape
    words = make_hardware_argv(shape, Path("/a,b"))
    assert any(word.startswith("file=/a,,b/cowbell-disk0.qcow2,if=none,") for word in words)


def test_a_whole_description(tmp_path: Path) -> None:
    declared = read(
        tmp_path,
        PLAIN + "numa:\n- {cpus: 1, memory: 768M, distances: [10, 30]}\n"
        "- {cpus: 1, memory: 256M, distances: [30, 10]}\n"
        "disks: [{size: 1G}, {size: 300M, sector: 4096, format: xfs}, {size: 64M, format: none}]\n"
        "swap: {raid5: {disks: 4, skip_copy: true, size: 128M}}\n"
        "hugepages: {2M: 64, 64K: 3}\nthp: always\nksm: on\n"
        "io: {iops: 100, bandwidth: 2M, delay: 5ms}\nappend: mitigations=off nosmp\n",
    )
    assert declared.shape == GuestShape(
        cpus=2,
        memory_mib=1024,
        numa=(Node(1, 768, (10, 30)), Node(1, 256, (30, 10))),
        disks=(Disk(1024), Disk(300, 4096, "xfs"), Disk(64, 512, "none")),
        swap=Swap("raid5", 128, 4, skip_copy=True),
        hugepages=((64, 3), (2048, 64)),
        thp="always",
        ksm="on",
        io=Io(100, 2, 5),
        append="mitigations=off nosmp",
    )
    assert declared.places["swap"].line == 7


@pytest.mark.parametrize("kind", ["none", "disk", "zram", "brd", "integrity", "raid5"])
def test_swap_in_one_word(tmp_path: Path, kind: str) -> None:
    assert read(tmp_path, f"{PLAIN}swap: {kind}\n").shape.swap == Swap(kind)


@pytest.mark.parametrize(
    ("text", "errors"),
    [
        ("swap: ramdisk", ["3: swap: expected one of none, disk, zram, brd, integrity, raid5, got ramdisk"]),
        ("swap: {zram: {disks: 3}}", ["3: swap.zram: unknown key disks"]),
        ("swap: {zram: {}, disk: {}}", ["3: swap: expected one kind of swap"]),
        ("swap: {raid5: {disks: 2}}", ["3: swap: raid5 needs 3 to 8 disks, got 2"]),
        (
            "swap: {raid5: {skip_copy: yes}}",
            ["3: swap.raid5.skip_copy: expected one of true, false, got yes"],
        ),
        (
            "disks: [{sector: 1024}]",
            ["3: disks[0]: missing size", "3: disks[0].sector: expected one of 512, 4096"],
        ),
        ("disks: [{size: 64M, format: xfs}]", ["3: disks: disk 0: xfs needs at least 300M, got 64M"]),
        ("hugepages: {2MB: 4}", ["3: hugepages: expected size like 2M, got 2MB"]),
        (
            "hugepages: {2M: 400}\nswap: brd",
            ["3: hugepages: 400 of 2M (800M), swap: brd (256M) and 256M for the rest are more than memory"],
        ),
        ("thp: on", ["3: thp: expected one of always, madvise, never, got on"]),
        ("io: {delay: 5s}\ndisks: [{size: 64M}]", ["3: io.delay: expected time like 5ms, got 5s"]),
        ("io: {iops: 10}\nswap: zram", ["3: io: there is no disk to limit"]),
        (
            "io: {iops: 10}\nswap: integrity",
            ["3: io: swap: integrity supports only delay, not iops and bandwidth"],
        ),
        ("append: quiet init=/bin/sh", ["3: append: --, root= and init= are reserved"]),
        (
            "numa: [{cpus: 2, memory: 512M}, {cpus: 1, memory: 256M}]\nksm: maybe",
            ["4: ksm: expected one of on, off, got maybe"],
        ),
        (
            "# two sums\nnuma: [{cpus: 2, memory: 512M}, {cpus: 1, memory: 256M}]\nswap: {raid5: {disks: 9}}",
            [
                "4: numa: the nodes have 3 of cpus in total, the guest has 2",
                "4: numa: the nodes have 768M of memory in total, the guest has 1024M",
                "5: swap: raid5 needs 3 to 8 disks, got 9",
            ],
        ),
        (
            "numa: [{cpus: 1, memory: 512M, distances: [10, 10]}, {cpus: 1, memory: 512M}]",
            [
                "3: numa: node 0: expected distance 10 to itself and 11 to 254 to others",
                "3: numa: node 1 has 0 distances, expected 2",
            ],
        ),
    ],
)
def test_errors_are_reported_with_their_line(tmp_path: Path, text: str, errors: list[str]) -> None:
    found = told(tmp_path, f"{PLAIN}{text}\n")
    assert len(found) == len(errors)
    for one, expected in zip(found, errors, strict=True):
        assert one.startswith(expected)


@pytest.mark.parametrize(
    ("shape", "arch", "symbols", "what"),
    [
        (GuestShape(2, 1024, hugepages=((2048, 4),)), "x86_64", {}, ""),
        (
            GuestShape(2, 1024, hugepages=((32768, 4),)),
            "x86_64",
            {},
            "x86_64 with 4K pages has no huge pages of 32M",
        ),
        (GuestShape(2, 1024, hugepages=((32768, 4),)), "aarch64", {}, ""),
        (
            GuestShape(2, 4096, hugepages=((1048576, 1),)),
            "aarch64",
            {"ARM64_64K_PAGES": "y"},
            "aarch64 with 64K pages has no huge pages of 1G: 2M, 512M, 16G",
        ),
        (GuestShape(2, 5120, hugepages=((1048576, 2),)), "x86_64", {}, ""),
        (GuestShape(2, 4096, hugepages=((1048576, 2),)), "x86_64", {}, "need at least memory: 5G on x86_64"),
        (GuestShape(2, 1024, thp="madvise"), "aarch64", {}, ""),
        (GuestShape(2, 1024, thp="madvise"), "aarch64", {"ARM64_16K_PAGES": "y"}, ""),
        (GuestShape(2, 1024, thp="madvise"), "aarch64", {"ARM64_64K_PAGES": "y"}, "a huge page is 512M"),
        (GuestShape(2, 1280, thp="madvise"), "aarch64", {"ARM64_64K_PAGES": "y"}, ""),
        (GuestShape(2, 1024, thp="never"), "aarch64", {"ARM64_64K_PAGES": "y"}, ""),
    ],
)
def test_huge_pages_are_those_of_the_page_size(
    shape: GuestShape, arch: str, symbols: dict[str, str], what: str
) -> None:
    found = [complaint for _, complaint in find_misfits(shape, arch, symbols)]
    assert len(found) == bool(what)
    assert all(what in complaint for complaint in found)


ROW = """rows:
  - name: r
    about: a row
    arch: x86_64
    tree: debian-5.10
    kconfig: [base, cow]
    guest:
      cpus: 2
      memory: 1G
      swap: raid5
      hugepages: {2M: 4}
    tests: ["*"]
    limits: {build: 1m, boot: 1m}
    variants: [{name: plain}]
"""


def test_fragments_that_the_guest_needs_are_named(tmp_path: Path) -> None:
    """Where the row says it; and of ARCH= and CONFIG= what they take away."""
    (tmp_path / "matrix.yaml").write_text(ROW)
    (row,) = load_matrix(tmp_path / "matrix.yaml").values()
    found = list(plan.check_machine(row, DECLARED))
    assert [(error.where.rpartition("/")[2], error.what, error.hint) for error in found] == [
        (
            "matrix.yaml:10: rows[0].guest.swap",
            "swap: needs MD_RAID456, and no fragment of the row asks for it",
            "add to kconfig: raid5-swap",
        ),
        (
            "matrix.yaml:11: rows[0].guest.hugepages",
            "hugepages: needs HUGETLBFS, and no fragment of the row asks for it",
            "add to kconfig: hugetlbfs",
        ),
    ]
    well = replace(row, kconfig=(*row.kconfig, "raid5-swap", "hugetlbfs"))
    assert not list(plan.check_machine(well, DECLARED))
    # a later fragment takes it away again
    (error,) = plan.check_machine(replace(well, kconfig=(*well.kconfig, "noswap")), DECLARED)
    assert "needs SWAP" in error.what


def test_rows_of_another_machine_are_checked_again() -> None:
    declared = load_declarations(ROOT)
    with pytest.raises(ExceptionGroup) as raised:
        plan.make_plan(plan.Request(rows=("x86_64-raid5",), config=("base", "cow")), declared)
    errors = [error for error in raised.value.exceptions if isinstance(error, UsageError)]
    assert ["MD_RAID456" in errors[0].what, "DM_DELAY" in errors[1].what] == [True, True]
    assert [error.where for error in errors] == ["CONFIG: row x86_64-raid5"] * 2


def test_argv_of_nodes(tmp_path: Path) -> None:
    shape = GuestShape(3, 1024, numa=(Node(2, 768, (10, 20)), Node(1, 256, (30, 10))))
    words = make_hardware_argv(shape, tmp_path)
    assert words == [
        *("-object", "memory-backend-ram,id=node0,size=768M", "-numa", "node,nodeid=0,memdev=node0,cpus=0-1"),
        *("-object", "memory-backend-ram,id=node1,size=256M", "-numa", "node,nodeid=1,memdev=node1,cpus=2-2"),
        *("-numa", "dist,src=0,dst=0,val=10", "-numa", "dist,src=0,dst=1,val=20"),
        *("-numa", "dist,src=1,dst=0,val=30", "-numa", "dist,src=1,dst=1,val=10"),
    ]


def test_disks_last_as_long_as_the_boot(tmp_path: Path) -> None:
    shape = GuestShape(1, 512, disks=(Disk(1024, 4096),), swap=Swap("raid5", 256, 3), io=Io(iops=7))
    backings = list(list_backings(shape))
    assert [b.serial for b in backings] == ["cowbell-disk0", *(f"cowbell-swap{i}" for i in range(3))]
    assert all(len(b.serial) <= 20 for b in backings), "QEMU cuts a serial off after 20 characters"
    text = " ".join(make_hardware_argv(shape, tmp_path))
    assert text.count("throttling.iops-total=7,throttling.group=io") == 4
    assert "serial=cowbell-disk0,logical_block_size=4096" in text
    folder = tmp_path / "boot"
    folder.mkdir()
    with make_images(shape, folder):
        sizes = {path.name: path.stat() for path in folder.iterdir()}
        assert set(sizes) == {f"{backing.serial}.qcow2" for backing in backings}
        assert all(stat.st_blocks * 512 < 1 << 20 for stat in sizes.values())
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        (
            GuestShape(1, 5120, hugepages=((2048, 8), (1048576, 2))),
            "hugepagesz=2M hugepages=8 hugepagesz=1G hugepages=2",
        ),
        (GuestShape(1, 512, swap=Swap("brd", 64)), "brd.rd_size=65536"),
        (
            GuestShape(1, 512, swap=Swap("integrity", 64), io=Io(delay_ms=3)),
            "dix=1 scsi_debug.ndelay=3000000",
        ),
        (GuestShape(1, 512, append="a b=c"), "a b=c"),
    ],
)
def test_command_line(shape: GuestShape, words: str) -> None:
    assert words in make_hardware_append(shape)


ASKED = GuestShape(
    2,
    1024,
    numa=(Node(1, 512, (10, 20)), Node(1, 512, (20, 10))),
    disks=(Disk(1024, 4096),),
    swap=Swap("raid5", 256, skip_copy=True),
    hugepages=((2048, 8),),
    thp="madvise",
    ksm="on",
    io=Io(iops=100, bandwidth_mib=4, delay_ms=5),
)
GOT: dict[str, Any] = {
    "nodes": [
        {"memory_mib": 511, "cpus": 1, "distances": [10, 20]},
        {"memory_mib": 512, "cpus": 1, "distances": [20, 10]},
    ],
    "disks": [{"device": "/dev/vdc", "mount": "/work/tmp", "format": "ext4", "block": 4096}],
    "swaps": [
        {
            "device": "/dev/md0",
            "size_mib": 255,
            "stable": True,
            "mdstat": "md0 : active raid5 vde[2]",
            "degraded": 0,
        }
    ],
    "hugepages": {2048: 8},
    "thp": "madvise",
    "ksm": "on",
    "io": {"delay_ms": 5.4, "iops": 140, "bandwidth_mib": 5.0},
}


def test_a_guest_that_is_as_asked_for() -> None:
    assert list(find_differences(ASKED, GOT)) == []


@pytest.mark.parametrize(
    ("path", "value", "what"),
    [
        (("nodes",), [{"memory_mib": 1023, "cpus": 2, "distances": [10]}], "numa: requested 2 nodes, got 1"),
        (("nodes", 1, "memory_mib"), 256, r"numa\[1\]: requested 1 CPU\(s\) and 512 MiB, got 1 and 256"),
        (("nodes", 0, "cpus"), 2, r"numa\[0\]"),
        (("nodes", 0, "distances"), [10, 10], r"numa\[0\]: requested distances \[10, 20\]"),
        (("disks", 0, "block"), 512, r"in blocks of 4096 bytes, got ext4, 512"),
        (("disks", 0, "block"), 0, r"got ext4, no direct I/O"),
        (("disks", 0, "format"), "tmpfs", r"disks\[0\]"),
        (("swaps",), [], "swap: requested raid5, got none"),
        (("swaps", 0, "stable"), False, "requested stable pages under writeback, got unstable ones"),
        (("swaps", 0, "size_mib"), 12, "swap: requested 256 MiB, got 12"),
        (("swaps", 0, "degraded"), 1, "complete RAID5"),
        (("swaps", 0, "mdstat"), "md0 : active linear vde[0]", "complete RAID5"),
        (("hugepages",), {2048: 7}, "hugepages: requested 8 of 2M, got 7"),
        (("hugepages",), {2048: 8, 1048576: 1}, "hugepages: requested 0 of 1G, got 1"),
        (("thp",), "never", "thp: requested madvise, got never"),
        (("ksm",), "off", "ksm: requested on, got off"),
        (("io", "delay_ms"), 0.1, "delay of 5 ms, a transfer took 0.1 ms"),
        (("io", "iops"), 9000, "requested 100 iops at most, measured 9000"),
        (("io", "bandwidth_mib"), 300, "bandwidth_mib"),
    ],
)
def test_a_guest_that_is_not(path: tuple[Any, ...], value: object, what: str) -> None:
    got = copy.deepcopy(GOT)
    *way, last = path
    place: Any = got
    for step in way:
        place = place[step]
    place[last] = value
    (found,) = find_differences(ASKED, got)
    assert re.search(what, found)


def test_readings_in_words() -> None:
    text = describe_setup(GOT)
    assert "NUMA nodes of 511 and 512 MiB" in text
    assert "/work/tmp: ext4, direct I/O in blocks of 4096 bytes" in text
    assert "swap /dev/md0 (md0 : active raid5 vde[2]), 255 MiB, pages under writeback stable" in text
    assert "8 pages of 2M; thp: madvise; ksm: on" in text
    assert describe_setup({}) == ""


Say = Callable[[str], list[str]]


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    config = Config("id", "x86_64", (), "")
    source = Source("s", "fake-5.10", "", Version.parse("5.10.226"), "b", "c", "t")
    request = BuildRequest(source, config, ARCHES["x86_64"], Toolchain("gcc", (), "gcc 12"))
    return Kernel(request, tmp_path, tmp_path / "vmlinux", "0123abcd")


@pytest.fixture
def guest_says(kernel: Kernel, tmp_path: Path) -> Say:
    """``guest_says(output)``: sets up a guest that says so; what it was asked."""

    def say(output: str) -> list[str]:
        asked = []

        class Told(Guest):
            def run(self, line: str, deadline: Deadline, stdin: bytes = b"") -> CommandResult:
                asked.append(line)
                return CommandResult(0, output, "no such program")

        machine = Machine(kernel, Rootfs("id", tmp_path), ASKED if output else PLAIN_SHAPE, "tcg", 10)
        told = Told(machine, tmp_path, None, None, 1.0, 0, None)  # type: ignore[arg-type]
        set_up(told, Deadline.after(1))
        return asked

    return say


def test_set_up_that_comes_up_leaves_its_readings(guest_says: Say, tmp_path: Path) -> None:
    (line,) = guest_says(f"{GOT!r}\n")
    assert ast.literal_eval(shlex.split(line)[-1])["swap"]["member_mib"] == 128
    guest_setup = load_setup(tmp_path)
    assert guest_setup["disks"] == GOT["disks"]
    assert describe_setup(guest_setup) == describe_setup(GOT)


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        ("{'error': 'mdadm: no such device'}\n", "mdadm: no such device"),
        ("rubbish\n", "no such program"),
        (repr({**GOT, "swaps": [], "thp": "never"}), "got none\n  thp: requested madvise, got never"),
    ],
)
def test_failed_setup_is_not_a_kernel_failure(guest_says: Say, said: str, hint: str) -> None:
    with pytest.raises(StageFailure, match="does not match its row") as raised:
        guest_says(said)
    assert raised.value.stage == "setup"
    assert raised.value.hint.endswith(hint)


def test_plain_guest_is_asked_nothing(guest_says: Say, tmp_path: Path) -> None:
    """Its boot takes no longer."""
    assert guest_says("") == []
    assert load_setup(tmp_path) == {}


@pytest.mark.parametrize(
    ("release", "attribute", "checksums", "is_stable"),
    [
        ("5.10.262", "1", "T10-DIF-TYPE1-CRC", True),
        # it can be switched off there, and then the kernel does not keep them stable
        ("5.10.262", "0", "T10-DIF-TYPE1-CRC", False),
        ("6.12.118", "0", "T10-DIF-TYPE1-CRC", True),
        ("7.3.4-cowbell", "0", "EXT-DIF-TYPE1-CRC64", True),
        ("7.3.4", "0", "nop", False),
        ("7.3.4", "0", "", False),
        ("7.3.4", "1", "", True),
    ],
)
def test_what_a_device_with_checksums_wants_is_not_in_its_attribute_since_6_11(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    release: str,
    attribute: str,
    checksums: str,
    is_stable: bool,
) -> None:
    (tmp_path / "queue").mkdir()
    (tmp_path / "queue/stable_writes").write_text(f"{attribute}\n")
    script = (ROOT / "orchestrator/guest/guest-setup").read_text()
    functions: dict[str, Any] = {}
    exec(script.partition("\ntry:\n")[0], functions)  # noqa: S102
    monkeypatch.setattr("os.uname", lambda: SimpleNamespace(release=release))
    assert functions["wants_stable"](str(tmp_path), checksums) is is_stable


def test_the_guest_s_program_needs_no_module_that_must_be_compiled() -> None:
    tree = ast.parse((ROOT / "orchestrator/guest/guest-setup").read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert found <= {"mmap", "os", "sys", "time"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


def test_swap_that_was_not_requested() -> None:
    got = {**GOT, "nodes": [{"memory_mib": 1023}], "disks": [], "hugepages": {}}
    (found,) = find_differences(GuestShape(2, 1024), got)
    assert found == "swap: requested none, got /dev/md0"


def test_results_are_of_the_whole_guest(kernel: Kernel, store: Store, tmp_path: Path) -> None:
    """Of the same kernel: nothing is built anew for another guest."""
    other = replace(ASKED, swap=replace(ASKED.swap, skip_copy=False))
    machines = [Machine(kernel, Rootfs("id", tmp_path), shape, "tcg", 10) for shape in (ASKED, other)]
    assert len({machine.kernel.request.build_id for machine in machines}) == 1
    assert len({find_results_dir(machine, store) for machine in machines}) == 2
    assert make_setup_id(ASKED) != make_setup_id(PLAIN_SHAPE)


@pytest.fixture(scope="session")
def setup_kernel(kernel_store: Store, setup_kconfig: tuple[str, ...]) -> Kernel:
    """The kernel that all x86_64 rows with a guest setup share, also built for vng."""
    declared = load_declarations(ROOT)
    jobs = plan.make_plan(
        plan.Request(rows=("x86_64-swap",), series=("none",), config=setup_kconfig), declared
    )
    place = Workspace(ROOT, kernel_store, QuietProgress())
    return steps.build_job(jobs[0], declared, place)


Boot = Callable[[str], contextlib.AbstractContextManager[Guest]]


@pytest.fixture
def boot_with(setup_kernel: Kernel, kernel_store: Store, tmp_path: Path) -> Boot:
    """``boot_with(text)``: a guest with 2 CPUs, 1 GiB and the given settings."""
    image = make_rootfs(ARCHES["x86_64"], kernel_store, QuietProgress())

    def start(text: str) -> contextlib.AbstractContextManager[Guest]:
        shape = read(tmp_path, PLAIN + text).shape
        return boot_guest(Machine(setup_kernel, image, shape, "tcg", 20), tmp_path / "boot")

    return start


def ask(guest: Guest, line: str) -> str:
    answer = guest.run(line, Deadline.after(60))
    assert answer.status == 0, answer.stderr
    return answer.stdout.strip()


@pytest.mark.kernel
@pytest.mark.parametrize("skip_copy", [True, False])
def test_array_keeps_pages_stable_only_with_skip_copy(boot_with: Boot, *, skip_copy: bool) -> None:
    with boot_with(f"swap: {{raid5: {{disks: 3, size: 64M, skip_copy: {str(skip_copy).lower()}}}}}") as guest:
        assert ask(guest, "cat /sys/block/md0/queue/stable_writes") == str(int(skip_copy))
        assert re.search(
            r"md0 : active raid5 .*\n.* level 5, .*\[3/3\] \[UUU\]", ask(guest, "cat /proc/mdstat")
        )
        assert ask(guest, "tail -n +2 /proc/swaps").split()[0] == "/dev/md0"


@pytest.mark.kernel
@pytest.mark.parametrize(("kind", "device"), [("zram", "zram0"), ("brd", "ram0"), ("integrity", "sda")])
def test_swap_without_a_disk_of_qemu_s(boot_with: Boot, kind: str, device: str) -> None:
    with boot_with(f"swap: {{{kind}: {{size: 64M}}}}") as guest:
        assert ask(guest, "tail -n +2 /proc/swaps | cut -d' ' -f1") == f"/dev/{device}"
        # what goes out comes back as it was: 21 is MADV_PAGEOUT
        words = (
            "m = mmap.mmap(-1, 1 << 20, 34); m[:] = b'x' * (1 << 20); m.madvise(21); print(m[:].count(b'x'))"
        )
        assert ask(guest, f'python3 -c "import mmap; {words}"') == str(1 << 20)
        assert "I/O error" not in ask(guest, "dmesg")


@pytest.mark.kernel
def test_disks_are_as_requested(boot_with: Boot, tmp_path: Path) -> None:
    disks = "disks: [{size: 512M, sector: 4096}, {size: 64M, format: none}]"
    with boot_with(f"{disks}\nswap: disk\nio: {{delay: 20ms, iops: 400}}\n") as guest:
        assert ask(
            guest, "stat -f -c %T /work/tmp; for i in 0 1; do blockdev --getss /dev/cowbell/disk$i; done"
        ) == ("ext2/ext3\n4096\n512")
        guest_setup = load_setup(tmp_path / "boot")
        assert [disk["block"] for disk in guest_setup["disks"]] == [4096, 512]
        assert guest_setup["io"]["delay_ms"] >= 20
        assert (tmp_path / "boot" / "cowbell-disk0.qcow2").exists()
    assert not list((tmp_path / "boot").glob("*.qcow2"))


@pytest.mark.kernel
def test_nodes_huge_pages_and_merging(boot_with: Boot) -> None:
    nodes = "[{cpus: 1, memory: 640M, distances: [10, 30]}, {cpus: 1, memory: 384M, distances: [30, 10]}]"
    with boot_with(f"numa: {nodes}\nhugepages: {{2M: 8}}\nthp: never\nksm: on\nappend: setup=1\n") as guest:
        assert ask(
            guest, "cat /sys/devices/system/node/node1/distance /sys/devices/system/node/node*/cpulist"
        ) == ("30 10\n0\n1")
        assert "HugePages_Free:        8" in ask(guest, "cat /proc/meminfo")
        assert "[never]" in ask(guest, "cat /sys/kernel/mm/transparent_hugepage/enabled")
        assert ask(guest, "cat /sys/kernel/mm/ksm/run") == "1"
        assert " setup=1 " in ask(guest, "cat /proc/cmdline")


@pytest.mark.kernel
def test_failed_setup_fails_the_boot(boot_with: Boot) -> None:
    with pytest.raises(StageFailure) as raised, boot_with("swap: zram\nappend: mem=512M"):
        pytest.fail("a guest with half of its memory is taken for the whole one")
    assert re.fullmatch(r"memory: requested 1024 MiB, got 51\d", raised.value.hint)
