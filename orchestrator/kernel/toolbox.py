# SPDX-License-Identifier: GPL-2.0-or-later
"""Compilers that are not installed: Debian's packages, unpacked in the store.

Each program is started by the loader and with the libraries of its own release, so it runs on any host of its
architecture, and as any user.
"""

import os
import platform
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.process.progress import Progress
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.source import debian
from orchestrator.store.store import Store, make_id

KIND = "toolboxes"
# the libraries are those of Kbuild's own programs, which come in packages beside the headers of a kernel
_PACKAGES = ("gcc", "libc6-dev", "libelf-dev", "libssl-dev", "make")
_FORMAT = 2
_LIBRARIES = "usr/lib/*-linux-gnu"
_INTERPRETER = re.compile(rb"/lib(?:64)?/ld-linux[\w.-]*\.so\.\d")
# where the loader's name stands in an ELF file
_HEAD = 4096


def make_toolbox(suite: str, target: Arch, store: Store, progress: Progress) -> Path:
    """The folder of gcc for an architecture, of a Debian release; it takes a minute to make.

    Raises ``InfraError`` if the host has no mirror, or no Debian is made for its architecture.
    """
    host = ARCHES.get(platform.machine())
    if not host:
        raise InfraError(f"Debian has no compiler that runs on {platform.machine()}")
    place = find_place(suite, target, store)

    def fill(draft: Path) -> None:
        progress.stage("compiler", f"gcc of Debian {suite}, as none is installed that fits")
        debian.unpack_packages(suite, host.debian_arch, _list_packages(target), draft)
        for path in list(_list_programs(draft)):
            wrap(path, draft, place)
        cc = find_compiler(draft, target)
        gcc = place / "usr" / "bin" / f"{target.cross_prefix}gcc"
        words = shlex.join([str(gcc), f"--sysroot={place}"])
        cc.write_text(f'#!/bin/sh\nPATH={shlex.quote(str(place / "usr/bin"))}:$PATH exec {words} "$@"\n')
        cc.chmod(0o755)

    return store.publish(KIND, place.name, fill)


def find_place(suite: str, target: Arch, store: Store) -> Path:
    """Where ``make_toolbox`` makes it."""
    return store.path(KIND, make_id(platform.machine(), suite, _list_packages(target), _FORMAT))


def _list_packages(target: Arch) -> tuple[str, ...]:
    return (*_PACKAGES, *(() if target.is_native else target.cross_packages.split()))


def find_compiler(toolbox: Path, target: Arch) -> Path:
    """The gcc of a toolbox, as a program that finds its own headers and libraries."""
    return toolbox / f"{target.cross_prefix}cc"


def wrap(program: Path, toolbox: Path, place: Path | None = None) -> None:
    """Replace a program by a script that starts it by the loader of a toolbox, which will be at ``place``."""
    loader = _find_loader(toolbox)
    real = program.with_name(f"{program.name}.elf")
    program.rename(real)
    root = place or toolbox
    # a toolbox is filled elsewhere and renamed
    own = root / real.relative_to(toolbox) if real.is_relative_to(toolbox) else real
    paths = ":".join(str(root / path.relative_to(toolbox)) for path in sorted(toolbox.glob(_LIBRARIES)))
    words = shlex.join([str(root / loader.relative_to(toolbox)), "--library-path", paths])
    called = ' --argv0 "$0"' if keeps_names(toolbox) else ""
    program.write_text(f'#!/bin/sh\nexec {words}{called} {shlex.quote(str(own))} "$@"\n')
    program.chmod(0o755)


def keeps_names(toolbox: Path) -> bool:
    """Whether a wrapped program is told the name that it was called by, as by loaders since glibc 2.33."""
    return b"--argv0" in _find_loader(toolbox).read_bytes()


def _find_loader(toolbox: Path) -> Path:
    """Not by its well-known name, which may be a link to a file of the host."""
    loaders = [path for path in toolbox.glob(f"{_LIBRARIES}/ld-linux*.so.*") if path.exists()]
    if not loaders:
        raise InfraError("has no loader of programs", where=str(toolbox))
    return loaders[0]


def list_elf(folder: Path) -> Iterator[Path]:
    """The programs below a folder that are dynamically linked, without libraries."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not path.is_file() or not os.access(path, os.X_OK) or ".so" in path.name:
            continue
        with path.open("rb") as file:
            head = file.read(_HEAD)
        if head.startswith(b"\x7fELF") and _INTERPRETER.search(head):
            yield path


def _list_programs(toolbox: Path) -> Iterator[Path]:
    for name in ("usr/bin", "usr/lib/gcc", "usr/libexec/gcc", "usr/lib/gcc-cross", "usr/libexec/gcc-cross"):
        if (toolbox / name).is_dir():
            yield from list_elf(toolbox / name)
