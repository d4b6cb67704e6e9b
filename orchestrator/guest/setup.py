# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest setup: swap, NUMA, huge pages and other requirements of a row, made and verified in the guest.

``guest-setup`` runs in the guest and reports the resulting state, which is compared with the description
here. Any difference is a setup failure: no test runs in a guest that does not match its row.
"""

import ast
import dataclasses
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.errors import StageFailure
from orchestrator.guest.connection import Guest, GuestGone
from orchestrator.guest.hardware import make_member_mib
from orchestrator.process.command import Deadline
from orchestrator.project.guest import GuestShape, Io, render_kib
from orchestrator.store.store import make_id, write_json

SETUP_FILE = "setup.json"
_SCRIPT = Path(__file__).with_name("guest-setup")
# holes of the firmware, and the rounding of a swap device to pages and stripes
_SLACK_MIB = 4
_STABLE = {"disk": False, "brd": False, "zram": True, "integrity": True}
# throttling allows bursts of 0.1 s, and the measurement is short
_BURST = 2.5


def make_setup_id(shape: GuestShape) -> str:
    """The id of the setup script; empty if there is nothing to set up."""
    return "" if shape.is_plain else make_id(_SCRIPT.read_text())


def load_setup(folder: Path) -> Mapping[str, Any]:
    """The setup report of a boot; empty if nothing was set up."""
    path = folder / SETUP_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def set_up(guest: Guest, deadline: Deadline) -> None:
    """Make the guest setup that the shape requests, and save its report in the boot's folder.

    Raises ``StageFailure`` with all differences.
    """
    shape = guest.machine.shape
    if shape.is_plain:
        return
    requested = dataclasses.asdict(shape)
    requested["swap"]["member_mib"] = make_member_mib(shape)
    script = "/run/guest-setup"
    line = f"cat > {script} && exec python3 -ISB {script} {shlex.quote(repr(requested))}"
    try:
        answer = guest.run(line, deadline, _SCRIPT.read_bytes())
    except GuestGone as gone:
        guest.check_host()
        raise StageFailure(
            "boot", f"the guest was lost while it was set up: {gone}", log=guest.console
        ) from None
    try:
        guest_setup = ast.literal_eval(answer.stdout)
    except (ValueError, SyntaxError):
        guest_setup = {"error": (answer.stderr or answer.stdout).strip() or f"exit status {answer.status}"}
    write_json(guest.folder / SETUP_FILE, guest_setup)
    wrong = [guest_setup["error"]] if "error" in guest_setup else list(find_differences(shape, guest_setup))
    if wrong:
        raise StageFailure(
            "setup",
            "the guest does not match its row",
            where=str(guest.machine.kernel.request.source.version),
            hint="\n  ".join(wrong),
            log=guest.console,
        )


def describe_setup(guest_setup: Mapping[str, Any]) -> str:
    """The setup report in one line; empty if nothing was set up."""
    parts = []
    if len(nodes := guest_setup.get("nodes", ())) > 1:
        parts.append(f"NUMA nodes of {' and '.join(str(node['memory_mib']) for node in nodes)} MiB")
    for disk in guest_setup.get("disks", ()):
        where = disk["mount"] or disk["device"]
        parts.append(f"{where}: {disk['format']}, direct I/O in blocks of {disk['block']} bytes")
    for swap in guest_setup.get("swaps", ()):
        pages = "stable" if swap["stable"] else "not stable"
        array = f" ({swap['mdstat']})" if "mdstat" in swap else ""
        parts.append(f"swap {swap['device']}{array}, {swap['size_mib']} MiB, pages under writeback {pages}")
    parts += [
        f"{count} pages of {render_kib(int(kib))}" for kib, count in guest_setup.get("hugepages", {}).items()
    ]
    parts += [f"{key}: {guest_setup[key]}" for key in ("thp", "ksm") if key in guest_setup]
    units = {"delay_ms": "ms per transfer", "iops": "transfers/s", "bandwidth_mib": "MiB/s"}
    measured = guest_setup.get("io", {})
    parts += [f"{measured[key]} {unit}" for key, unit in units.items() if key in measured]
    return "; ".join(parts)


def find_differences(shape: GuestShape, guest_setup: Mapping[str, Any]) -> Iterator[str]:
    """All differences between the requested and the actual setup."""
    yield from _compare_memory(shape, guest_setup)
    for i, (disk, got) in enumerate(zip(shape.disks, guest_setup["disks"], strict=True)):
        found = (got["format"], got["block"])
        if found != (disk.format, disk.sector):
            yield (
                f"disks[{i}]: requested {disk.format} with direct I/O in blocks of {disk.sector} bytes, "
                f"got {found[0]}, {found[1] or 'no direct I/O'}"
            )
    yield from _compare_swap(shape, guest_setup["swaps"])
    wanted = dict(shape.hugepages)
    for kib in sorted(wanted | guest_setup["hugepages"]):
        count, got = wanted.get(kib, 0), guest_setup["hugepages"].get(kib, 0)
        if count != got:
            yield f"hugepages: requested {count} of {render_kib(kib)}, got {got}"
    for key, word in (("thp", shape.thp), ("ksm", shape.ksm)):
        if word and guest_setup[key] != word:
            yield f"{key}: requested {word}, got {guest_setup[key]}"
    if shape.io != Io():
        got = guest_setup["io"]
        if got["delay_ms"] < shape.io.delay_ms:
            yield f"io: requested a delay of {shape.io.delay_ms} ms, a transfer took {got['delay_ms']} ms"
        for key in ("iops", "bandwidth_mib"):
            limit = getattr(shape.io, key)
            if limit and got[key] > _BURST * limit:
                yield f"io: requested {limit} {key} at most, measured {got[key]}"


def _compare_memory(shape: GuestShape, guest_setup: Mapping[str, Any]) -> Iterator[str]:
    nodes = guest_setup["nodes"]
    if shape.numa and len(nodes) != len(shape.numa):
        yield f"numa: requested {len(shape.numa)} nodes, got {len(nodes)}"
        return
    if not shape.numa:
        total = sum(node["memory_mib"] for node in nodes)
        if abs(total - shape.memory_mib) > _SLACK_MIB:
            yield f"memory: requested {shape.memory_mib} MiB, got {total}"
        return
    for i, (node, got) in enumerate(zip(shape.numa, nodes, strict=True)):
        if abs(node.memory_mib - got["memory_mib"]) > _SLACK_MIB or node.cpus != got["cpus"]:
            yield (
                f"numa[{i}]: requested {node.cpus} CPU(s) and {node.memory_mib} MiB, "
                f"got {got['cpus']} and {got['memory_mib']}"
            )
        if node.distances and list(node.distances) != got["distances"]:
            yield f"numa[{i}]: requested distances {list(node.distances)}, got {got['distances']}"


def _compare_swap(shape: GuestShape, swaps: list[Mapping[str, Any]]) -> Iterator[str]:
    swap = shape.swap
    if swap.kind == "none" or len(swaps) != 1:
        if swaps or swap.kind != "none":
            found = ", ".join(got["device"] for got in swaps) or "none"
            yield f"swap: requested {swap.kind}, got {found}"
        return
    (got,) = swaps
    if abs(got["size_mib"] - swap.size_mib) > _SLACK_MIB:
        yield f"swap: requested {swap.size_mib} MiB, got {got['size_mib']}"
    stable = _STABLE.get(swap.kind, swap.skip_copy)
    if got["stable"] != stable:
        words = {True: "stable", False: "unstable"}
        yield f"swap: requested {words[stable]} pages under writeback, got {words[got['stable']]} ones"
    if swap.kind == "raid5" and (" raid5 " not in got.get("mdstat", "") or got["degraded"]):
        yield f"swap: requested a complete RAID5, /proc/mdstat has: {got.get('mdstat', 'nothing')}"
    if swap.kind == "integrity" and not got.get("integrity", "").startswith("T10-DIF"):
        yield f"swap: requested a disk with checksums, got format {got.get('integrity', 'none')}"
