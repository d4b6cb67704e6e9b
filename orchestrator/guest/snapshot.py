# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: saves a guest after its setup, and starts any number of guests from it.

The snapshot is QEMU's own, inside the disk images of the guest, so memory and disks are consistent. Guests
that start from it have the same SSH keys and the same random numbers.
"""

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.connection import Guest, GuestGone, Keys
from orchestrator.guest.hardware import list_backings, make_images
from orchestrator.guest.qemu import ROOT_OVERLAY, Machine
from orchestrator.guest.qmp import MonitorGone
from orchestrator.guest.setup import READINGS
from orchestrator.process import command
from orchestrator.process.command import Deadline

_SNAPSHOT = "armed"
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_SAVE_S = 60.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest: its images in ``folder``, its keys, and the id that its kernel gave the boot."""

    folder: Path
    keys: Keys
    boot_id: str

    @property
    def argv(self) -> list[str]:
        """What QEMU is told beside the machine, which must be the one that was saved."""
        return ["-loadvm", _SNAPSHOT]


def list_images(machine: Machine, folder: Path) -> list[Path]:
    """Every image that a guest writes to."""
    return [folder / ROOT_OVERLAY, *(backing.path(folder) for backing in list_backings(machine.shape))]


@contextlib.contextmanager
def keep_images(machine: Machine, folder: Path, armed: Snapshot | None) -> Iterator[None]:
    """The images of one boot, empty or as they were saved; removed when the block is left."""
    with contextlib.ExitStack() as stack:
        for path in list_images(machine, folder):
            stack.callback(path.unlink, missing_ok=True)
        if armed:
            _copy_images(machine, armed.folder, folder)
        else:
            stack.enter_context(make_images(machine.shape, folder))
            # what the boot writes to its root, over the image that all share
            command.run(
                [command.find_tool("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-F", "raw"]
                + ["-b", str(machine.rootfs.image), str(folder / ROOT_OVERLAY)]
            )
        yield


def save_snapshot(guest: Guest, folder: Path) -> Snapshot | None:
    """Save a guest as it is into a folder, in a fraction of a second; it goes on afterwards.

    None when it can not be saved, as one with a 9p device of vng's: then the next guest has to boot.
    """
    machine, monitor = guest.machine, guest.lines.monitor
    if machine.boot == "vng":
        return None
    try:
        # what the cache holds is read again when it is needed, and need not be saved
        line = f"sync; echo 1 > /proc/sys/vm/drop_caches; {_BOOT_ID}"
        boot_id = guest.run(line, Deadline.after(_SAVE_S)).stdout.strip()
        monitor.execute("stop")
        try:
            if monitor.ask(f"savevm {_SNAPSHOT}").strip():
                return None
            _copy_images(machine, guest.folder, folder)
        finally:
            monitor.execute("cont")
    except (GuestGone, MonitorGone):
        # whoever uses the guest next finds out why
        return None
    return Snapshot(folder, guest.lines.keys, boot_id)


def _copy_images(machine: Machine, source: Path, target: Path) -> None:
    """Give a boot images of its own, and what was read back of the set-up."""
    target.mkdir(parents=True, exist_ok=True)
    cp = command.find_tool("cp", "coreutils")
    names = [str(path) for path in list_images(machine, source)]
    command.run([cp, "--reflink=auto", "--sparse=always", *names, str(target)])
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(source / READINGS, target / READINGS)


def check_restored(guest: Guest, armed: Snapshot, deadline: Deadline) -> None:
    """The guest goes on where the saved one was; raises ``StageFailure`` when it does not."""
    try:
        found = guest.run(_BOOT_ID, deadline).stdout.strip()
    except GuestGone as gone:
        guest.check_host()
        raise StageFailure("boot", f"the guest was lost once it went on: {gone}", log=guest.console) from None
    if found != armed.boot_id:
        raise InfraError(
            "QEMU started another guest than the one that was saved", log=guest.folder / "qemu.log"
        )
