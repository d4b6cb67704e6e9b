# SPDX-License-Identifier: GPL-2.0-or-later
"""What differs between architectures, as an inert table: an architecture is one entry of data."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture, in the words of Kbuild, QEMU and Debian.

    ``boot_file`` and ``make_targets`` are relative to the kernel's build folder. ``cpus`` maps an
    accelerator to QEMU's ``-cpu``. ``time_scale`` is how much slower than native emulation is allowed to be.
    """

    name: str
    kernel_arch: str
    debian_arch: str
    qemu: str
    qemu_package: str
    machine: str
    cpus: Mapping[str, str]
    console: str
    earlycon: str
    boot_file: str
    make_targets: tuple[str, ...]
    cross_prefix: str
    time_scale: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"kvm": 1.0, "tcg": 5.0})
    )

    @property
    def is_native(self) -> bool:
        return platform.machine() == self.name


ARCHES: Mapping[str, Arch] = MappingProxyType(
    {
        arch.name: arch
        for arch in (
            Arch(
                name="x86_64",
                kernel_arch="x86_64",
                debian_arch="amd64",
                qemu="qemu-system-x86_64",
                qemu_package="qemu-system-x86",
                machine="q35",
                cpus=MappingProxyType({"kvm": "host", "tcg": "max"}),
                console="ttyS0",
                earlycon="earlyprintk=ttyS0",
                # the ELF image boots by PVH and saves the decompression, 0.2 s under TCG
                boot_file="vmlinux",
                make_targets=("vmlinux",),
                cross_prefix="x86_64-linux-gnu-",
            ),
        )
    }
)
