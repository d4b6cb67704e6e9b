# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a kernel image that somebody else built: architecture, version, config, and the form that QEMU boots.

Formats: Documentation/arch/x86/boot.rst, Documentation/arch/arm64/booting.rst and
Documentation/arch/riscv/boot-image-header.rst of the kernel; drivers/firmware/efi/libstub/zboot-header.S.
"""

import bz2
import lzma
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from orchestrator.errors import UsageError
from orchestrator.process import command
from orchestrator.project.arch import ELF_MACHINES
from orchestrator.project.condition import Version

# "ARM\x64" and "RSC\x05" at this offset
_MAGIC_AT = 56
_MAGICS = {b"ARM\x64": "aarch64", b"RSC\x05": "riscv64"}
# an older copy of it without a build number is in every image
_BANNER = re.compile(rb"Linux version (\d+\.\d+\.\d+\S*) \([^\0\n]+#\d[^\0\n]*")
# an ELF note of Xen with the entry point for PVH (type 18), of 4 or 8 bytes
_PVH = re.compile(rb"\x04\0\0\0[\x04\x08]\0\0\0\x12\0\0\0Xen\0")
_IKCONFIG = re.compile(rb"IKCFG_ST(\x1f\x8b.*?)IKCFG_ED", re.S)
# Debian's banner ends in the version of the package
_DEBIAN = re.compile(r" Debian (\d+)\.(\d+)(?:\.(\d+))?[-~]")
_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)")
# an image in an image, as in a compressed EFI application, and no deeper
_MOST_LAYERS = 3


@dataclass(frozen=True, slots=True)
class ImageFile:
    """A kernel image. ``boots`` is what QEMU is given, ``banner`` the first line that the kernel prints.

    ``release`` is that of uname, by which modules are found. ``config`` is that of CONFIG_IKCONFIG, or empty.
    """

    arch: str
    release: str
    banner: str
    boots: bytes
    config: str

    @property
    def version(self) -> Version:
        """The version of the source. Debian's release of older kernels lacks it: 5.10.0-46 is 5.10.262."""
        found = _DEBIAN.search(self.banner) or _RELEASE.match(self.release)
        assert found
        first, second, third = (int(part or 0) for part in found.groups())
        return Version((first, second, third))


def read_image(path: Path) -> ImageFile:
    """Read a vmlinuz, bzImage, Image or vmlinux; raises ``UsageError`` if QEMU cannot boot it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    try:
        arch, boots, kernel = _open(data)
        banner = _BANNER.search(kernel)
        if not banner:
            raise ValueError("is no Linux kernel: it contains no line 'Linux version'")
    except (ValueError, EOFError, zlib.error, lzma.LZMAError, OSError, struct.error) as error:
        raise UsageError(str(error) or "is truncated", where=str(path)) from None
    packed = _IKCONFIG.search(kernel)
    config = zlib.decompressobj(31).decompress(packed[1]).decode(errors="replace") if packed else ""
    return ImageFile(
        arch, banner[1].decode(errors="replace"), banner[0].decode(errors="replace"), boots, config
    )


def _open(data: bytes, depth: int = 0) -> tuple[str, bytes, bytes]:
    """Architecture, bootable form, and the uncompressed kernel; raises ``ValueError`` for others."""
    if depth > _MOST_LAYERS:
        raise ValueError("is no kernel image: it is compressed again and again")
    if data[:4] == b"\x7fELF":
        return _open_elf(data)
    if data[0x202:0x206] == b"HdrS":
        return _open_bzimage(data)
    if arch := _MAGICS.get(data[_MAGIC_AT : _MAGIC_AT + 4]):
        return arch, data, data
    if data[:2] == b"MZ" and data[4:8] == b"zimg":
        # an EFI application that unpacks an Image
        begin, size = struct.unpack_from("<II", data, 8)
        return _open(unpack(_cut(data, begin, size)), depth + 1)
    if _find_method(data):
        return _open(unpack(data), depth + 1)
    raise ValueError("is no kernel image: expected a vmlinuz, bzImage, Image or vmlinux")


def _open_elf(data: bytes) -> tuple[str, bytes, bytes]:
    arch = ELF_MACHINES.get(struct.unpack_from("<H", data, 18)[0], "")
    if arch != "x86_64":
        raise ValueError("is an ELF file that QEMU does not boot: give the Image or vmlinuz beside it")
    # sections are at the end
    at, size, count = *struct.unpack_from("<Q", data, 40), *struct.unpack_from("<HH", data, 58)
    if at + size * count > len(data):
        raise ValueError(f"is truncated: it has {len(data)} of {at + size * count} bytes")
    if not _PVH.search(data):
        raise ValueError("has no CONFIG_PVH, so QEMU does not boot it: give the bzImage beside it")
    return arch, data, data


def _open_bzimage(data: bytes) -> tuple[str, bytes, bytes]:
    """The ELF file in it boots without being decompressed by an emulated CPU, if it has CONFIG_PVH."""
    if struct.unpack_from("<H", data, 0x206)[0] < 0x208:
        raise ValueError("is a bzImage from before Linux 2.6.26")
    begin, size = struct.unpack_from("<II", data, 0x248)
    setup = ((data[0x1F1] or 4) + 1) * 512
    # of most methods, the size of the kernel follows; gzip ends in it
    packed = _cut(data, setup + begin, size)
    kernel = unpack(packed if packed[:2] == b"\x1f\x8b" else packed[:-4])
    if kernel[:4] != b"\x7fELF" or ELF_MACHINES.get(struct.unpack_from("<H", kernel, 18)[0]) != "x86_64":
        raise ValueError("is a bzImage of a 32-bit kernel")
    return "x86_64", kernel if _PVH.search(kernel) else data, kernel


def _cut(data: bytes, begin: int, size: int) -> bytes:
    if begin + size > len(data):
        raise ValueError(f"is truncated: it has {len(data)} of {begin + size} bytes")
    return data[begin : begin + size]


def _call(program: str, *before_target: str) -> Callable[[bytes], bytes]:
    """Decompression by a program of its own package, as Python has none."""

    def unpack_by_program(data: bytes) -> bytes:
        with tempfile.TemporaryDirectory() as folder:
            packed, plain = Path(folder, "packed"), Path(folder, "plain")
            packed.write_bytes(data)
            words = [command.find_tool(program, program), "-dqf", str(packed), *before_target, str(plain)]
            if command.run(words, check=False).returncode:
                raise ValueError(f"is truncated or damaged: {program} cannot decompress it")
            return plain.read_bytes()

    return unpack_by_program


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, /) -> bytes: ...


def _run(unpacker: _Unpacker, data: bytes) -> bytes:
    """Decompress the first stream in some data."""
    plain = unpacker.decompress(data)
    if not unpacker.eof:
        raise ValueError("is truncated: its compressed data does not end")
    return plain


_METHODS: Mapping[bytes, Callable[[bytes], bytes]] = {
    b"\x1f\x8b": lambda data: _run(zlib.decompressobj(31), data),
    b"\xfd7zXZ\0": lambda data: _run(lzma.LZMADecompressor(), data),
    b"\x5d\0\0": lambda data: _run(lzma.LZMADecompressor(), data),
    b"BZh": lambda data: _run(bz2.BZ2Decompressor(), data),
    b"\x28\xb5\x2f\xfd": _call("zstd", "-o"),
    b"\x02\x21\x4c\x18": _call("lz4"),
}


def _find_method(data: bytes) -> Callable[[bytes], bytes] | None:
    return next((method for magic, method in _METHODS.items() if data.startswith(magic)), None)


def unpack(data: bytes) -> bytes:
    """Decompress the first stream; raises ``ValueError`` for an unknown method or incomplete data."""
    method = _find_method(data)
    if not method:
        raise ValueError(f"is compressed in an unknown way: it begins with {data[:6].hex()}")
    return method(data)
