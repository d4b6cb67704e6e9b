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
# loaders of C libraries
_LOADERS = re.compile(r"(/usr)?/lib(32|64)?/([\w.-]+/)?ld-[\w.-]+\.so\.\d+")


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

    They are read from the files and the cache of ldconfig, as ld.so(8) searches them. The loader is not
    asked: a program may name an audit library, which the loader would run here. Raises ``UsageError`` for
    missing libraries.
    """
    if not (name := _find_loader(data)):
        return ()
    loader = Path(name)
    readelf = command.find_tool("readelf", "binutils")
    cached = command.run([command.find_tool("ldconfig", "libc-bin"), "-p"]).output
    found: dict[str, Path] = {loader.name: loader}
    missing: list[str] = []
    waiting = [path]
    while waiting:
        file = waiting.pop()
        dynamic = command.run([readelf, "-dW", str(file)]).output
        own = ":".join(re.findall(r"\((?:RPATH|RUNPATH)\).*?\[(.*)\]", dynamic))
        own = re.sub(r"\$ORIGIN|\$\{ORIGIN\}", str(file.absolute().parent), own)
        for library in re.findall(r"\(NEEDED\).*?\[(.*)\]", dynamic):
            if library in found or library in missing:
                continue
            places = [Path(folder) / library for folder in own.split(":") if folder]
            places += map(Path, re.findall(rf"^\s*{re.escape(library)} \(.*=> (\S+)$", cached, re.MULTILINE))
            place = next((one for one in places if _is_for_same(one, data)), None)
            if place and "/" not in library:
                found[library] = place
                waiting.append(place)
            else:
                missing.append(library)
    if missing:
        what = f"needs libraries that this host does not have: {', '.join(missing)}"
        hint = "install them here, or link the program with -static"
        raise UsageError(what, where=str(path), hint=hint)
    return tuple(found.values())


def _is_for_same(place: Path, data: bytes) -> bool:
    """Whether a file is for the same machine and ABI as a program."""
    try:
        with place.open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return (head[:6], head[18:20]) == (data[:6], data[18:20])
