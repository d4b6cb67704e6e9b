# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads ELF programs: for which architecture they are, and which shared libraries of this host they need."""

import platform
import re
import struct
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.process import command
from orchestrator.project.arch import ELF_MACHINES

# file types of programs, headers of a program and of a dynamic one
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_INTERP = 1, 3
# loaders of C libraries, which can list libraries
_LOADERS = re.compile(r"(/usr)?/lib(32|64)?/([\w.-]+/)?ld-[\w.-]+\.so\.\d+")
# the words of glibc and of musl
_MISSING = re.compile(
    r"^\s*(\S+) => not found|loading shared libraries: ([^\s:]+)|[Ee]rror loading shared library ([^\s:]+)",
    re.MULTILINE,
)
_LIST_S = 20.0


def read_arch(path: Path, data: bytes) -> str:
    """The architecture of an ELF program, empty for other files; raises ``UsageError`` for other ELF files,
    and for a dynamic program whose libraries this host cannot have.
    """
    if not data.startswith(b"\x7fELF"):
        return ""
    where = str(path)
    try:
        if data[4:6] != b"\x02\x01":
            hint = "link it for x86_64, aarch64 or riscv64"
            raise UsageError("is not a 64-bit little-endian program", where=where, hint=hint)
        kind, machine = struct.unpack_from("<HH", data, 16)
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, number = struct.unpack_from("<HH", data, 54)
        segments = {struct.unpack_from("<I", data, offset + size * i)[0] for i in range(number)}
        loader = _find_loader(data)
    except struct.error:
        raise UsageError("is a truncated ELF file", where=where) from None
    if kind not in (_ET_EXEC, _ET_DYN) or _PT_LOAD not in segments:
        raise UsageError("is an ELF file, but no program", where=where, hint="link it with -static")
    arch = ELF_MACHINES.get(machine, f"ELF machine {machine}")
    if loader and arch != platform.machine():
        what = f"is linked dynamically, and the libraries for {arch} are not on this host"
        raise UsageError(what, where=where, hint="link it with -static")
    if loader and not (_LOADERS.fullmatch(loader) and Path(loader).is_file()):
        what = f"is linked dynamically, and its loader {loader} is not on this host"
        raise UsageError(
            what, where=where, hint="link it with -static, or install the C library that it needs"
        )
    return arch


def _find_loader(data: bytes) -> str:
    """The loader that a dynamic 64-bit program names, empty for a static one; may raise ``struct.error``."""
    (offset,) = struct.unpack_from("<Q", data, 32)
    size, number = struct.unpack_from("<HH", data, 54)
    for i in range(number):
        kind, _, start, _, _, length = struct.unpack_from("<IIQQQQ", data, offset + size * i)
        if kind == _PT_INTERP:
            return data[start : start + min(length, 4096)].rstrip(b"\0").decode(errors="replace") or "?"
    return ""


def list_libraries(path: Path, data: bytes) -> tuple[Path, ...]:
    """The shared libraries of a program that ``read_arch`` takes, its loader first; none if it is static.

    The loader lists them, and runs nothing of the program. Raises ``UsageError`` for missing ones.
    """
    if not (name := _find_loader(data)):
        return ()
    loader = Path(name)
    deadline = command.Deadline.after(_LIST_S)
    done = command.run([str(loader), "--list", str(path.absolute())], deadline=deadline, check=False)
    missing = [name for names in _MISSING.findall(done.output) for name in names if name]
    if missing or done.returncode:
        lacking = ", ".join(dict.fromkeys(missing)) or done.output.strip()[:200]
        hint = "install them here, or link the program with -static"
        what = f"needs libraries that this host does not have: {lacking}"
        raise UsageError(what, where=str(path), hint=hint)
    found = re.findall(r"=> (/.*) \(0x", done.output)
    return (loader, *(Path(name) for name in dict.fromkeys(found) if Path(name).name != loader.name))
