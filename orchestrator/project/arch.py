# SPDX-License-Identifier: GPL-2.0-or-later
"""The differences between architectures as a table: one entry per architecture."""

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

# e_machine of an ELF file, also of architectures that we do not have
ELF_MACHINES: Mapping[int, str] = {3: "i386", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable file of the build folder, the make target it comes from, the symbol it needs (or none)."""

    file: str
    target: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Arch:
    """One architecture, with its names in Kbuild, QEMU and Debian.

    ``console_symbol`` is the driver of ``console``, ``images`` are the boot images in order of
    preference. ``cpus`` maps an accelerator to QEMU's ``-cpu``. ``cross_packages`` are the compiler and C
    library for other hosts. The guest's packages come from ``debian_suite``. ``time_scale`` is the factor
    for time limits, and ``append`` has kernel command line options, both by accelerator.
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
    console_symbol: str
    images: tuple[Image, ...]
    cross_prefix: str
    cross_packages: str
    debian_suite: str = "bookworm"
    time_scale: Mapping[str, float] = field(
        default_factory=lambda: MappingProxyType({"kvm": 1.0, "tcg": 5.0})
    )
    append: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def __reduce__(self) -> tuple[Callable[[str], "Arch"], tuple[str]]:
        """Pickle by name, as read-only mappings cannot be pickled."""
        return _find_arch, (self.name,)

    @property
    def is_native(self) -> bool:
        return platform.machine() == self.name


def _find_arch(name: str) -> Arch:
    return ARCHES[name]


def find_arch_name(word: str) -> str:
    """The name of an architecture, also from the kernel's ARCH=; an unknown word stays as it is."""
    kernels = {arch.kernel_arch: arch.name for arch in ARCHES.values()}
    return {**kernels, "x86": "x86_64"}.get(word, word)


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
                # QEMU before 8.0 leaves what is no flag in EFLAGS after cmpxchg16b: an interrupt at that
                # moment, as on a busy host, makes the kernel go on in single steps or with a wrong stack
                cpus=MappingProxyType({"kvm": "host", "tcg": "max,cx16=off"}),
                console="ttyS0",
                earlycon="earlyprintk=ttyS0",
                console_symbol="SERIAL_8250_CONSOLE",
                # the ELF image boots with PVH, without decompression: 0.2 s faster under TCG
                images=(Image("vmlinux", "vmlinux", "PVH"), Image("arch/x86/boot/bzImage", "bzImage")),
                cross_prefix="x86_64-linux-gnu-",
                cross_packages="gcc-x86-64-linux-gnu libc6-dev-amd64-cross",
                # While one CPU moves PCI windows, QEMU before 8.2 (0d58c660689f) may mistake another CPU's
                # access to its local APIC for one to a window: initialize PCI first, then start other CPUs.
                # With unknown_nmi_panic, an NMI makes a hanging kernel print its stack. With no_timer_check,
                # the kernel does not panic when a busy host lets the timer come late.
                append=MappingProxyType(
                    {"tcg": "maxcpus=1 no_timer_check unknown_nmi_panic", "kvm": "unknown_nmi_panic"}
                ),
            ),
            Arch(
                name="aarch64",
                kernel_arch="arm64",
                debian_arch="arm64",
                qemu="qemu-system-aarch64",
                qemu_package="qemu-system-arm",
                machine="virt,gic-version=max",
                # QEMU's own algorithm for pointer authentication: the architected one halves the speed
                cpus=MappingProxyType({"kvm": "host", "tcg": "max,pauth-impdef=on"}),
                console="ttyAMA0",
                earlycon="earlycon=pl011,0x9000000",
                console_symbol="SERIAL_AMBA_PL011_CONSOLE",
                images=(Image("arch/arm64/boot/Image", "Image"),),
                cross_prefix="aarch64-linux-gnu-",
                cross_packages="gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
            ),
            Arch(
                name="riscv64",
                kernel_arch="riscv",
                debian_arch="riscv64",
                qemu="qemu-system-riscv64",
                qemu_package="qemu-system-misc",
                machine="virt",
                cpus=MappingProxyType({"kvm": "host", "tcg": "rv64"}),
                console="ttyS0",
                earlycon="earlycon=uart8250,mmio,0x10000000",
                console_symbol="SERIAL_8250_CONSOLE",
                images=(Image("arch/riscv/boot/Image", "Image"),),
                cross_prefix="riscv64-linux-gnu-",
                cross_packages="gcc-riscv64-linux-gnu libc6-dev-riscv64-cross",
                debian_suite="trixie",
            ),
        )
    }
)
