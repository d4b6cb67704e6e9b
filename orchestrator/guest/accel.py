# SPDX-License-Identifier: GPL-2.0-or-later
"""Selects QEMU's accelerator. An accelerator is usable only if a guest has booted with it."""

from dataclasses import replace
from pathlib import Path

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.qemu import Machine, QemuKilled
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch
from orchestrator.project.guest import GuestShape
from orchestrator.store.store import Store, make_id, write_atomic

_KVM = Path("/dev/kvm")
# a working guest is ready in a second or two
_PROBE_S = 8.0


def choose_accel(wanted: str, machine: Machine, store: Store, progress: Progress) -> str:
    """The accelerator to use: ``wanted``, or for ``auto`` KVM when a guest has booted on it here, else TCG.

    Raises ``InfraError`` if ``kvm`` is requested by name and does not work.
    """
    known = find_accel(wanted, machine.arch, store) or _probe_kvm(machine, store, progress)
    return check_accel(wanted, known)


def check_accel(wanted: str, known: str) -> str:
    """The accelerator in an answer of ``find_accel``; raises as ``choose_accel``."""
    name, _, why = known.partition(" ")
    if wanted == "kvm" and name != "kvm":
        raise InfraError(f"KVM does not work on this host: {why}", hint="ACCEL=tcg runs without it, slower")
    return name


def find_accel(wanted: str, arch: Arch, store: Store) -> str:
    """The accelerator and the reason, as ``NAME why``, without booting a guest; empty if a probe is needed.

    The result of a probe is valid for this QEMU until the host reboots.
    """
    if wanted == "tcg":
        return "tcg as requested"
    if not arch.is_native:
        return f"tcg the host is not {arch.name}"
    try:
        _KVM.open("r+b").close()
    except OSError as error:
        return f"tcg {_KVM}: {error.strerror}"
    known = _probe_path(arch, store)
    return known.read_text().strip() if known.exists() else ""


def _probe_kvm(machine: Machine, store: Store, progress: Progress) -> str:
    """Boot a guest on KVM and save the result, unless the kernel or the host may be the cause."""
    trial = replace(machine, accel="kvm", shape=GuestShape(cpus=1, memory_mib=256), boot_limit_s=_PROBE_S)
    trial = replace(trial, keep_core=False)
    outcome, folder = "kvm a guest has booted", store.path("accel", "probe")
    with store.lock("accel-probe"):
        # the previous holder of the lock has probed
        if known := find_accel("auto", machine.arch, store):
            return known
        progress.stage("boot", "trying KVM")
        try:
            with boot_guest(trial, folder):
                pass
        except QemuKilled:
            raise
        except (StageFailure, InfraError) as error:
            outcome = f"tcg {error.what}"
            progress.note(f"{_KVM} opens, but no guest boots on it ({error.what}); using TCG")
            if b"Linux version" in (folder / "console.log").read_bytes():
                return outcome
        write_atomic(_probe_path(machine.arch, store), f"{outcome}\n")
    return outcome


def _probe_path(arch: Arch, store: Store) -> Path:
    qemu = Path(command.find_tool(arch.qemu, arch.qemu_package))
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    return store.path("accel", make_id(str(qemu), qemu.stat().st_mtime, boot_id))
