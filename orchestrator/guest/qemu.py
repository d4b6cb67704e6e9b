# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes QEMU's command line from the description of a guest, and explains how QEMU ended."""

import re
import shlex
import signal
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, UsageError
from orchestrator.guest.hardware import ON_ERROR, make_hardware_append, make_hardware_argv, quote_path
from orchestrator.guest.modules import Modules
from orchestrator.guest.rootfs import Rootfs
from orchestrator.kernel.build import Kernel
from orchestrator.process import command
from orchestrator.project.arch import Arch
from orchestrator.project.guest import GuestShape
from orchestrator.project.trace import TraceRequest

ROOT_OVERLAY = "root.qcow2"
_LESS_MEMORY = "end other programs, or reduce the memory of the row's guest"


@dataclass(frozen=True, slots=True)
class Machine:
    """Everything that affects how a guest runs, except the keys of one boot.

    ``boot_limit_s`` is native wall time in seconds, scaled by the accelerator. ``boot`` is ``qemu`` or
    ``vng``. With ``keep_core``, the memory of a guest that crashes or hangs is written to a file. A kernel
    finds its ``modules`` on a disk. ``trace`` is recorded around each test. At ``gdb``, a socket, QEMU waits
    for gdb.
    """

    kernel: Kernel
    rootfs: Rootfs
    shape: GuestShape
    accel: str
    boot_limit_s: float
    boot: str = "qemu"
    keep_core: bool = False
    modules: Modules | None = None
    trace: TraceRequest = TraceRequest()
    gdb: Path | None = None

    @property
    def arch(self) -> Arch:
        return self.kernel.request.arch

    @property
    def append(self) -> str:
        return self.kernel.request.config.append

    @property
    def time_scale(self) -> float:
        """The factor for all time limits: emulation is slow."""
        return self.arch.time_scale[self.accel]


def make_append(machine: Machine) -> str:
    """The options for every guest: all messages go to the console, and a panic ends the guest."""
    words = ("ignore_loglevel panic=-1", machine.arch.append.get(machine.accel, ""), machine.append)
    return " ".join((*words, make_hardware_append(machine.shape)))


def make_cmdline(machine: Machine) -> str:
    """The kernel command line, from the console to our init."""
    arch = machine.arch
    words = (
        f"console={arch.console} {arch.earlycon} {make_append(machine)} root=/dev/vda rw rootfstype=ext4 "
        "init=/bin/busybox -- sh /guest-init"
    )
    return " ".join(words.split())


def make_argv(machine: Machine, qemu: str, folder: Path, serial: int, monitor: int) -> list[str]:
    """QEMU's argv. ``folder`` has the keys; ``serial`` and ``monitor`` are descriptors of connected sockets.

    Writes to the root disk go to an overlay in ``folder``, which is removed after the boot.
    """
    root = f"file={quote_path(folder / ROOT_OVERLAY)},if=none,id=root,format=qcow2,cache=unsafe"
    return [
        qemu,
        *("-kernel", str(machine.kernel.image), "-append", make_cmdline(machine)),
        *(("-initrd", str(machine.modules.initrd)) if machine.modules and machine.modules.initrd else ()),
        *("-drive", f"{root},{ON_ERROR}"),
        *("-device", "virtio-blk-pci,drive=root"),
        *make_board_argv(machine, folder, serial, monitor),
    ]


def make_board_argv(machine: Machine, folder: Path, serial: int, monitor: int) -> list[str]:
    """The options without kernel and root disk, also used with vng.

    The host's kernel chooses the port of the guest's SSH, which the monitor reports. The guest has no network
    access, and QEMU may not start programs.
    """
    arch = machine.arch
    # a tracer patches all functions: with more threads, QEMU 7.2 ran an int3 that another one had replaced
    thread = "single" if machine.trace.is_on else "multi"
    accel = f"tcg,thread={thread}" if machine.accel == "tcg" else machine.accel
    keys = f"file={quote_path(folder / 'keys.tar')},if=none,id=keys,format=raw,readonly=on"
    return [
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        # keep the memory of a guest that has ended until it is written to a file
        *(("-action", "shutdown=pause") if machine.keep_core else ()),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", arch.machine, "-accel", accel, "-cpu", arch.cpus[machine.accel]),
        # one CPU per socket: the MP table, used without ACPI, lists one CPU per socket
        *("-smp", f"cpus={machine.shape.cpus},sockets={machine.shape.cpus},cores=1,threads=1"),
        *("-m", f"{machine.shape.memory_mib}M"),
        *("-netdev", "user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-drive", f"{keys},{ON_ERROR}"),
        # the kernel writes there how to read its memory
        *("-device", "vmcoreinfo"),
        *(("-gdb", f"unix:{quote_path(machine.gdb)},server=on,wait=off") if machine.gdb else ()),
        *("-device", "virtio-blk-pci,drive=keys,serial=cowbell-keys"),
        *make_hardware_argv(machine.shape, folder),
        *(_make_modules_argv(machine.modules.disk) if machine.modules else ()),
        *("-chardev", f"socket,id=console,fd={serial}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *machine.shape.qemu,
    ]


def _make_modules_argv(disk: Path) -> list[str]:
    drive = f"file={quote_path(disk)},if=none,id=modules,format=raw,readonly=on,{ON_ERROR}"
    return ["-drive", drive, "-device", "virtio-blk-pci,drive=modules,serial=cowbell-modules"]


class QemuKilled(InfraError):
    """QEMU was killed, most likely because the host was out of memory."""


class QemuCrashed(InfraError):
    """QEMU crashed."""


def count_oom_kills() -> int:
    """How many processes the host's OOM killer has ended so far."""
    found = re.search(r"^oom_kill (\d+)$", Path("/proc/vmstat").read_text(), re.M)
    return int(found[1]) if found else 0


def check_qemu(process: command.Process, folder: Path, oom_kills: int, added: tuple[str, ...] = ()) -> None:
    """Raise ``InfraError`` if QEMU failed or was killed; it exits with 0 when its guest ends.

    ``oom_kills`` is the host's count of OOM kills when QEMU was started. With the arguments ``added`` by the
    user it is a ``UsageError`` if QEMU refuses to start.
    """
    status = process.poll()
    if not status:
        return
    output = (folder / "qemu.log").read_text(errors="replace").strip()
    log = folder / "qemu.log"
    if status == -signal.SIGKILL and count_oom_kills() > oom_kills:
        raise QemuKilled("QEMU was killed: the host is out of memory", hint=_LESS_MEMORY, log=log)
    if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        raise QemuKilled(f"QEMU was killed by signal {-status}", hint="is the host out of memory?", log=log)
    if status < 0:
        name = signal.Signals(-status).name
        raise QemuCrashed(f"QEMU crashed ({name})", hint=output or "it printed nothing", log=log)
    if "Cannot allocate memory" in output:
        raise QemuKilled(
            "the host is out of memory (reported by QEMU)", hint=f"{output}\n  {_LESS_MEMORY}", log=log
        )
    if added:
        raise UsageError(f"QEMU ended with status {status}: {output}", where=f"QEMU+={shlex.join(added)}")
    raise InfraError(f"QEMU ended with status {status}", hint=output or "it printed nothing", log=log)
