# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's description in, QEMU's command line out: a pure function. And what QEMU's end means."""

import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator import command
from orchestrator.arch import Arch
from orchestrator.build import Kernel
from orchestrator.errors import InfraError
from orchestrator.hardware import make_hardware_append, make_hardware_argv
from orchestrator.rootfs import Rootfs
from orchestrator.shape import GuestShape


@dataclass(frozen=True, slots=True)
class Machine:
    """All that decides how a guest runs, apart from the port and keys of one boot.

    ``boot_limit_s`` is native wall time in seconds; the accelerator stretches it.
    """

    kernel: Kernel
    rootfs: Rootfs
    shape: GuestShape
    accel: str
    boot_limit_s: float

    @property
    def arch(self) -> Arch:
        return self.kernel.request.arch

    @property
    def append(self) -> str:
        return self.kernel.request.config.append

    @property
    def time_scale(self) -> float:
        """By how much every time limit is stretched: emulation is slow."""
        return self.arch.time_scale[self.accel]


def make_cmdline(machine: Machine) -> str:
    """The kernel command line: every message reaches the console, a panic ends the guest."""
    arch = machine.arch
    words = (
        f"console={arch.console} {arch.earlycon} ignore_loglevel panic=-1 root=/dev/vda rw rootfstype=ext4 "
        f"{arch.append.get(machine.accel, '')} {machine.append} "
        f"{make_hardware_append(machine.shape)} init=/bin/busybox -- sh /guest-init"
    )
    return " ".join(words.split())


def make_argv(machine: Machine, qemu: str, port: int, folder: Path) -> list[str]:
    """QEMU's argv. ``folder`` has the keys and receives the console, ``port`` leads to the guest's SSH.

    The guest reaches no network and QEMU may start no program; the root disk's writes go to an unlinked
    temporary file of QEMU's.
    """
    arch = machine.arch
    accel = "tcg,thread=multi" if machine.accel == "tcg" else machine.accel
    return [
        qemu,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", arch.machine, "-accel", accel, "-cpu", arch.cpus[machine.accel]),
        # a socket a CPU: the MP table, all there is without ACPI, lists one CPU a socket
        *("-smp", f"cpus={machine.shape.cpus},sockets={machine.shape.cpus},cores=1,threads=1"),
        *("-m", f"{machine.shape.memory_mib}M"),
        *("-kernel", str(machine.kernel.image), "-append", make_cmdline(machine)),
        *("-drive", f"file={machine.rootfs.image},if=none,id=root,format=raw,snapshot=on"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-drive", f"file={folder / 'keys.tar'},if=none,id=keys,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=keys,serial=cowbell-keys"),
        *make_hardware_argv(machine.shape, folder),
        *("-serial", f"file:{folder / 'console.log'}"),
    ]


class QemuKilled(InfraError):
    """Somebody ended QEMU, for want of memory most likely; it did not fail by itself."""


def check_qemu(process: command.Process, folder: Path) -> None:
    """Raise ``InfraError`` when QEMU failed or was killed; a guest that ends makes it exit with 0."""
    status = process.poll()
    if not status:
        return
    said = (folder / "qemu.log").read_text(errors="replace").strip()
    if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        raise QemuKilled(f"QEMU was killed by signal {-status}", hint="is the host out of memory?")
    raise InfraError(f"QEMU ended with status {status}", hint=said or "it said nothing")
