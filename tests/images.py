# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel images as small as their formats allow, with modules, and packages of them as Debian makes them."""

import gzip
import lzma
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

RELEASE = "6.12.118+deb13-cloud-amd64"
BANNER = (
    f"Linux version {RELEASE} (debian-kernel@lists.debian.org) (gcc-14) #1 SMP Debian 6.12.118-1 (2026-11-20)"
)
CONFIG = "".join(
    f"CONFIG_{symbol}\n"
    for symbol in (
        "DEVTMPFS=y", "VIRTIO_PCI=y", "VIRTIO_BLK=m", "VIRTIO_NET=m", "EXT4_FS=m", "BLK_DEV_INITRD=y",
        "SERIAL_8250_CONSOLE=y", "SERIAL_AMBA_PL011_CONSOLE=y", "MODULES=y", "IKCONFIG=y", "SWAP=y",
    )
)  # fmt: skip
_PVH = struct.pack("<III", 4, 8, 18) + b"Xen\0" + bytes(8)


def make_kernel(banner: str = BANNER, config: str = "", machine: int = 62, *, has_pvh: bool = True) -> bytes:
    """A vmlinux of a header and of what is looked for in one."""
    header = bytearray(64)
    header[:5] = b"\x7fELF\x02"
    struct.pack_into("<H", header, 18, machine)
    # without a build number: the first of the two that every kernel has
    data = bytes(header) + banner.replace("#1 ", "# ").encode() + b"\n\0" + banner.encode() + b"\n\0"
    if config:
        data += b"IKCFG_ST" + gzip.compress(config.encode()) + b"IKCFG_ED"
    return data + (_PVH if has_pvh else b"")


def make_bzimage(kernel: bytes, compress: Callable[[bytes], bytes] = lzma.compress) -> bytes:
    """A boot sector, the setup code and the compressed kernel."""
    packed = compress(kernel)
    if packed[:2] != b"\x1f\x8b":
        packed += struct.pack("<I", len(kernel))
    header = bytearray(5 * 512)
    header[0x1F1] = 4
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, 0x20F)
    struct.pack_into("<II", header, 0x248, 256, len(packed))
    return bytes(header) + bytes(256) + packed


def make_arm64(banner: str = BANNER) -> bytes:
    header = bytearray(64)
    header[56:60] = b"ARM\x64"
    return bytes(header) + banner.encode() + b"\n\0"


def make_zboot(image: bytes) -> bytes:
    """An EFI application that unpacks an image."""
    packed = gzip.compress(image)
    header = bytearray(64)
    header[:2] = b"MZ"
    header[4:8] = b"zimg"
    struct.pack_into("<II", header, 8, 64, len(packed))
    header[24:28] = b"gzip"
    return bytes(header) + packed


def make_modules(folder: Path, release: str = RELEASE) -> Path:
    """``lib/modules/RELEASE`` below a folder, without modules but with their lists."""
    place = folder / "lib" / "modules" / release
    for name in ("virtio_blk", "ext4", "jbd2"):
        path = place / "kernel" / f"{name}.ko.xz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(lzma.compress(b"\x7fELF" + name.encode()))
    for name in ("order", "builtin"):
        (place / f"modules.{name}").write_text("")
    return place


def make_boot(folder: Path, release: str = RELEASE, config: str = CONFIG) -> Path:
    """``boot/vmlinuz-RELEASE`` with its config, and its modules beside ``boot``."""
    image = folder / "boot" / f"vmlinuz-{release}"
    image.parent.mkdir(parents=True)
    image.write_bytes(make_bzimage(make_kernel(BANNER.replace(RELEASE, release))))
    image.with_name(f"config-{release}").write_text(config)
    make_modules(folder, release)
    return image


def make_package(content: Path, name: str, version: str, target: Path) -> Path:
    """A Debian package of a folder."""
    control = content / "DEBIAN" / "control"
    control.parent.mkdir(parents=True, exist_ok=True)
    control.write_text(
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: a kernel\n"
    )
    target.mkdir(parents=True, exist_ok=True)
    package = target / f"{name}_{version.replace(':', '%3a')}_amd64.deb"
    subprocess.run(
        ["dpkg-deb", "-b", "--root-owner-group", content, package], check=True, capture_output=True
    )
    return package
