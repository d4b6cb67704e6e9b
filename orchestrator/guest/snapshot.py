# SPDX-License-Identifier: GPL-2.0-or-later
"""Snapshots: saves a guest after its setup, and starts any number of guests from it.

QEMU stores the snapshot in the disk images of the guest, so memory and disks are consistent. Guests that
start from it have the same SSH keys and the same random numbers.
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
from orchestrator.guest.setup import SETUP_FILE
from orchestrator.process import command
from orchestrator.process.command import Deadline

_SNAPSHOT = "saved"
_BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
_SAVE_S = 20.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A saved guest: its images in ``folder``, its keys, and the id that its kernel gave the boot."""

    folder: Path
    keys: Keys
    boot_id: str

    @property
    def argv(self) -> list[str]:
        """QEMU options to restore the snapshot, in addition to those of the saved machine."""
        return ["-loadvm", _SNAPSHOT]


def list_images(machine: Machine, folder: Path) -> list[Path]:
    """All images that a guest writes to."""
    return [folder / ROOT_OVERLAY, *(backing.path(folder) for backing in list_backings(machine.shape))]


@contextlib.contextmanager
def keep_images(machine: Machine, folder: Path, snapshot: Snapshot | None) -> Iterator[None]:
    """The images of one boot, empty or copied from the snapshot; removed at the end of the block."""
    with contextlib.ExitStack() as stack:
        for path in list_images(machine, folder):
            stack.callback(path.unlink, missing_ok=True)
        if snapshot:
            _copy_images(machine, snapshot.folder, folder)
        else:
            stack.enter_context(make_images(machine.shape, folder))
            # overlay of the shared root image
            command.run(
                [command.find_tool("qemu-img", "qemu-utils"), "create", "-q", "-f", "qcow2", "-F", "raw"]
                + ["-b", str(machine.rootfs.image), str(folder / ROOT_OVERLAY)]
            )
        yield


def save_snapshot(guest: Guest, folder: Path) -> Snapshot | None:
    """Save a running guest into a folder; takes a fraction of a second, and the guest continues.

    Returns None if it cannot be saved, as with the 9p devices of vng: then the next guest has to boot.
    """
    machine, monitor = guest.machine, guest.channels.monitor
    if machine.boot == "vng":
        return None
    try:
        # the page cache need not be saved
        line = f"sync; echo 1 > /proc/sys/vm/drop_caches; {_BOOT_ID}"
        boot_id = guest.run(line, guest.deadline(_SAVE_S)).stdout.strip()
        monitor.execute("stop")
        try:
            if monitor.ask(f"savevm {_SNAPSHOT}", _SAVE_S).strip():
                return None
            _copy_images(machine, guest.folder, folder)
        finally:
            monitor.execute("cont")
    except (GuestGone, MonitorGone):
        # the next use of the guest reports the reason
        return None
    return Snapshot(folder, guest.channels.keys, boot_id)


def _copy_images(machine: Machine, source: Path, target: Path) -> None:
    """Copy the images and the setup report into the folder of a boot."""
    target.mkdir(parents=True, exist_ok=True)
    cp = command.find_tool("cp", "coreutils")
    names = [str(path) for path in list_images(machine, source)]
    command.run([cp, "--reflink=auto", "--sparse=always", *names, str(target)])
    with contextlib.suppress(FileNotFoundError):
        shutil.copy(source / SETUP_FILE, target / SETUP_FILE)


def check_restored(guest: Guest, snapshot: Snapshot, deadline: Deadline) -> None:
    """Check that the guest continues the saved boot; raises ``StageFailure`` if it was lost."""
    try:
        found = guest.run(_BOOT_ID, deadline).stdout.strip()
    except GuestGone as gone:
        guest.check_host()
        raise StageFailure(
            "boot", f"the guest was lost after it was restored: {gone}", log=guest.console
        ) from None
    if found != snapshot.boot_id:
        raise InfraError("QEMU started a different guest than the saved one", log=guest.folder / "qemu.log")
