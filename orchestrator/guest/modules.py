# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes what a kernel with modules boots with: a disk with all modules and, for a kernel that was built
elsewhere, an initramfs with the drivers of the root disk.

Both are made once per kernel.
Format of the archive: Documentation/driver-api/early-userspace/buffer-format.rst of the kernel.
"""

import re
import shutil
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.guest.rootfs import Rootfs
from orchestrator.kernel.build import Kernel
from orchestrator.process import command
from orchestrator.source.imagefile import unpack
from orchestrator.store.store import Store, make_id

KIND = "modules"
# drivers of the root disk and its file system; network, console and the rest are loaded from the root
_FIRST = ("virtio_pci", "virtio_blk", "ext4")
# the kernel is not to blame for a root disk that none of its drivers can reach
NO_ROOT = "cowbell: no root disk"
_INIT = f"""\
#!/bin/busybox sh
# loads the drivers of the root disk, in order of their dependencies, and starts the guest's init
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do
	[ -e $module ] || continue
	/bin/busybox insmod $module || echo "cowbell: $module cannot be loaded" > /dev/kmsg
done
/bin/busybox mount -t ext4 /dev/vda /root || {{
	echo '{NO_ROOT}' > /dev/kmsg
	exec /bin/busybox poweroff -f
}}
/bin/busybox umount /dev
exec /bin/busybox switch_root /root /bin/busybox sh /guest-init
"""
# inodes and tables of a file system beside its files
_SPARE = 1.25


@dataclass(frozen=True, slots=True)
class Modules:
    """A disk with the modules and the config of a kernel, and the initramfs of one built elsewhere."""

    disk: Path
    initrd: Path | None


def make_modules(kernel: Kernel, rootfs: Rootfs, store: Store) -> Modules | None:
    """The files for a kernel; None for one that was built here and has no module."""
    folder = kernel.folder / "modules" / "lib" / "modules"
    release = kernel.release
    if not release:
        # a kernel that was built here has what its guest boots from built in
        with_modules = {path.relative_to(folder).parts[0] for path in folder.rglob("*.ko*")}
        if not with_modules:
            return None
        (release,) = with_modules

    def fill(draft: Path) -> None:
        if kernel.release:
            _make_initrd(folder / release, rootfs, draft)
        _make_disk(kernel, release, draft)

    own = (kernel.request.source.image, rootfs.rootfs_id, _FIRST, _INIT)
    name = make_id(*own) if kernel.release else make_id(kernel.request.build_id)
    place = store.publish(KIND, name, fill)
    return Modules(place / "modules.img", place / "initrd" if kernel.release else None)


def _make_initrd(folder: Path, rootfs: Rootfs, draft: Path) -> None:
    """The archive with those modules of ``folder`` that the root disk needs."""
    busybox = draft / "busybox"
    # reads the file out of the image, which works without root
    dump = [command.find_tool("debugfs", "e2fsprogs"), "-R", f"dump /bin/busybox {busybox}"]
    command.run([*dump, str(rootfs.image)])
    if not busybox.exists() or not busybox.stat().st_size:
        raise InfraError("has no /bin/busybox", where=str(rootfs.image))
    files = {"init": _INIT.encode(), "bin/busybox": busybox.read_bytes()}
    busybox.unlink()
    if folder.is_dir():
        for number, path in enumerate(list_first(folder)):
            name = path.name.partition(".ko")[0]
            data = path.read_bytes()
            files[f"modules/{number:02}-{name}"] = data if path.suffix == ".ko" else unpack(data)
    (draft / "initrd").write_bytes(pack(files, ("dev", "root")))


def _make_disk(kernel: Kernel, release: str, draft: Path) -> None:
    """An ext4 file system with ``modules/RELEASE`` and ``config-RELEASE``."""
    files = draft / "files"
    (files / "modules").mkdir(parents=True)
    source = kernel.folder / "modules" / "lib" / "modules"
    if source.is_dir():
        shutil.copytree(source, files / "modules", dirs_exist_ok=True)
    if (config := kernel.folder / "config").exists():
        shutil.copyfile(config, files / f"config-{release}")
    used = sum(path.stat().st_blocks * 512 for path in files.rglob("*"))
    size_mib = int(used * _SPARE) // (1 << 20) + 8
    mke2fs = command.find_tool("mke2fs", "e2fsprogs")
    options = ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", str(files)]
    command.run([mke2fs, *options, str(draft / "modules.img"), f"{size_mib}M"])
    shutil.rmtree(files)


def list_first(folder: Path) -> list[Path]:
    """The modules that the root disk needs, each after those that it depends on.

    What is built in has no module. ``folder`` has the lists that depmod makes.
    """
    depends, soft = _read_depends(folder / "modules.dep"), _read_soft(folder / "modules.softdep")
    aliases = _read_aliases(folder / "modules.alias")
    chosen: dict[str, None] = {}

    def add(name: str, above: tuple[str, ...] = ()) -> None:
        if name in above:
            return
        for other in soft.get(name, ()):
            for real in [other, *aliases.get(other, ())]:
                add(real, (*above, name))
        if name in depends:
            path, needed = depends[name]
            for other in reversed(needed):
                add(_name(other), (*above, name))
            chosen[path] = None

    for name in _FIRST:
        add(name)
    return [folder / path for path in chosen]


def _name(path: str) -> str:
    """The name of a module; ``-`` and ``_`` are the same in it."""
    return Path(path).name.partition(".ko")[0].replace("-", "_")


def _read_depends(file: Path) -> Mapping[str, tuple[str, list[str]]]:
    lines = file.read_text().splitlines() if file.exists() else []
    pairs = [line.partition(":") for line in lines]
    return {_name(path): (path, needed.split()) for path, _, needed in pairs}


def _read_soft(file: Path) -> Mapping[str, list[str]]:
    """What should be loaded before a module: ``softdep ext4 pre: crc32c``."""
    text = file.read_text() if file.exists() else ""
    found: dict[str, list[str]] = {}
    for match in re.finditer(r"^softdep (\S+) .*?\bpre: ?(.*?)(?: post:.*)?$", text, re.M):
        found.setdefault(match[1].replace("-", "_"), []).extend(
            word.replace("-", "_") for word in match[2].split()
        )
    return found


def _read_aliases(file: Path) -> Mapping[str, list[str]]:
    """The modules that provide an algorithm: ``alias crc32c crc32c_generic``."""
    text = file.read_text() if file.exists() else ""
    found: dict[str, list[str]] = {}
    for match in re.finditer(r"^alias (\w[\w-]*) (\S+)$", text, re.M):
        found.setdefault(match[1].replace("-", "_"), []).append(_name(match[2]))
    return found


def pack(files: Mapping[str, bytes], folders: Iterable[str]) -> bytes:
    """A cpio archive of executable files, in the format ``newc``."""
    above = {str(place) for name in files for place in Path(name).parents if str(place) != "."}
    entries = [
        *((name, stat.S_IFDIR | 0o755, b"") for name in sorted({*above, *folders})),
        *((name, stat.S_IFREG | 0o755, data) for name, data in files.items()),
        ("TRAILER!!!", 0, b""),
    ]
    packed = bytearray()
    for number, (name, mode, data) in enumerate(entries, 1):
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        packed += b"070701" + b"".join(b"%08X" % field for field in fields)
        for part in (name.encode() + b"\0", data):
            packed += part
            packed += bytes(-len(packed) % 4)
    return bytes(packed)
