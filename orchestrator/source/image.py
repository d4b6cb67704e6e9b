# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes kernels that are already built into the store: image, config and modules, from files or packages.

An entry of ``images/`` has ``image``, what QEMU boots; ``config``, if it is known; ``modules/lib/modules``
with the modules as they came; and ``image.json``.
"""

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from orchestrator.errors import UsageError
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Version
from orchestrator.source.imagefile import ImageFile, read_image
from orchestrator.source.repository import Source
from orchestrator.source.tree import ImageTree
from orchestrator.store.store import Store, make_id, write_json

KIND = "images"
_FACTS = "image.json"
# what a guest cannot be without: its console, its disks, its network, and a file system for its root
_NEEDED = ("DEVTMPFS", "VIRTIO_PCI", "VIRTIO_BLK", "VIRTIO_NET", "EXT4_FS")
# which packages a release consists of, in the order in which they appeared
PARTS = ("image", "binary", "modules", "base")
NEEDED_MIB = 2048


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """The file ``image.json`` of an image.

    ``package`` is architecture, flavour and version of a Debian kernel, which the ``suites`` have; both are
    empty for other images. ``headers`` is the folder with which modules for it are built on this machine,
    ``origin`` the path or package that it came from.
    """

    arch: str
    release: str
    banner: str
    version: str
    sha256: str
    origin: str
    package: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    headers: str = ""


@dataclass(frozen=True, slots=True)
class _Parts:
    """The files of a built kernel. ``modules`` is the folder named by its release, if there is one."""

    image: Path
    config: Path | None = None
    modules: Path | None = None
    is_build: bool = False


# --- images of this machine


def fetch_local_image(tree: ImageTree, store: Store, progress: Progress) -> Source:
    """The image with its config and modules, in the store; raises ``UsageError`` for what does not fit."""
    with store.own_scratch("image") as scratch:
        parts = _find_parts(tree, scratch)
        image_id = _make_id(parts)
        place = store.publish(
            KIND,
            image_id,
            lambda draft: fill_image(draft, parts, tree.path, progress, is_checked=bool(tree.modules)),
        )
    return make_source(tree.name, place)


def find_local_image(tree: ImageTree, store: Store) -> Source | None:
    """The source of an image that is in the store as it is now."""
    with store.own_scratch("image") as scratch:
        parts = _find_parts(tree, scratch)
        image_id = _make_id(parts)
    place = store.path(KIND, image_id)
    return make_source(tree.name, store.use(KIND, image_id)) if place.is_dir() else None


def _make_id(parts: _Parts) -> str:
    """The id of an image, its config and its modules, by their content and by what the modules are called."""
    files = [_read_digest(path) for path in (parts.image, parts.config) if path]
    modules = _list_modules(parts) if parts.modules else []
    named = {str(path.relative_to(parts.modules)): _read_digest(path) for path in modules if parts.modules}
    return make_id("image", files, parts.modules.name if parts.modules else "", named, parts.is_build)


def _list_modules(parts: _Parts) -> list[Path]:
    """The modules and the lists of modules; of a build folder those that make would install."""
    assert parts.modules
    names = ("*.ko", "modules.*") if parts.is_build else ("*.ko", "*.ko.?z", "*.ko.zst", "modules.*")
    found = [path for name in names for path in parts.modules.rglob(name)]
    return sorted(
        path for path in found if path.is_file() and not _is_foreign(path.relative_to(parts.modules))
    )


def _is_foreign(path: Path) -> bool:
    """Links to headers and sources, and what depmod makes, which is made again."""
    return path.parts[0] in ("build", "source") or path.suffix == ".bin"


def _read_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_parts(tree: ImageTree, scratch: Path) -> _Parts:
    """The image that a path means, and what belongs to it by the path's kind."""
    path = Path(tree.path)
    if path.is_dir():
        parts = _find_in_build(path)
    elif path.suffix == ".deb":
        parts = find_in_packages(_find_siblings(path), scratch)
    else:
        parts = _find_beside(path)
    if not tree.modules:
        return parts
    given = Path(tree.modules).expanduser().absolute()
    if given.suffix == ".deb" and given.is_file():
        given = _unpack(given, scratch / "modules")
    elif not given.is_dir():
        raise UsageError("there is no such folder", where=f"MODULES={tree.modules}")
    return _Parts(parts.image, parts.config, _find_release(given, tree.modules))


def _find_release(place: Path, given: str) -> Path:
    """The folder named by a release: the given one, or the only one in its lib/modules."""
    if (place / "modules.order").exists() or (place / "kernel").is_dir():
        return place
    found = [
        path for top in ("lib/modules", "usr/lib/modules", ".") for path in (place / top).glob("*/kernel")
    ]
    if len({path.resolve() for path in found}) != 1:
        what = (
            "has modules of several kernels" if found else "has no modules: expected DIR/lib/modules/RELEASE"
        )
        raise UsageError(what, where=f"MODULES={given}")
    return found[0].parent


def _find_in_build(folder: Path) -> _Parts:
    names = [f"arch/{arch.kernel_arch}/boot/Image" for arch in ARCHES.values()]
    names += ["arch/x86/boot/bzImage", "arch/arm64/boot/Image.gz", "vmlinux"]
    if image := next((folder / name for name in names if (folder / name).is_file()), None):
        has_modules = (folder / "modules.order").exists()
        return _Parts(image, folder / ".config", folder if has_modules else None, is_build=True)
    raise UsageError(
        f"has no image; looked for {', '.join(names)}", where=str(folder), hint=f"make -C {folder}"
    )


def _find_beside(image: Path) -> _Parts:
    """What belongs to /boot/vmlinuz-RELEASE, or /lib/modules/RELEASE/vmlinuz; other files stand alone."""
    if (image.parent / "modules.order").exists():
        config = image.parent / "config"
        return _Parts(image, config if config.is_file() else None, image.parent)
    name, _, release = image.name.partition("-")
    if name in ("vmlinuz", "vmlinux", "bzImage", "Image", "kernel") and release:
        config = image.with_name(f"config-{release}")
        folders = [image.parent.parent / top / release for top in ("lib/modules", "usr/lib/modules")]
        modules = next((folder for folder in folders if folder.is_dir()), None)
        return _Parts(image, config if config.is_file() else None, modules)
    return _Parts(image)


def _find_siblings(package: Path) -> list[Path]:
    """The packages of the same release and version in a package's folder, which make up one kernel."""
    match = re.fullmatch(r"linux-(?:image|binary|modules|base)-(\S+)", package.stem)
    if not match:
        return [package]
    found = [package.with_name(f"linux-{part}-{match[1]}.deb") for part in PARTS]
    return [path for path in found if path.is_file()]


def _unpack(package: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    done = command.run([command.find_tool("dpkg-deb", "dpkg"), "-x", str(package), str(folder)], check=False)
    if done.returncode:
        raise command.find_host_error(done, done.output.splitlines()) or UsageError(
            "is not a complete Debian package", where=str(package), hint=done.output
        )
    return folder


def find_in_packages(packages: Sequence[Path], folder: Path) -> _Parts:
    """The kernel of unpacked Debian packages, old and new."""
    for package in packages:
        _unpack(package, folder)
    images = [*folder.glob("boot/vmlinuz-*"), *folder.glob("usr/lib/modules/*/vmlinuz")]
    if not images:
        hint = "since Linux 6.19 it is in linux-binary-VERSION and linux-modules-VERSION: put them beside it"
        names = " ".join(path.name for path in packages)
        raise UsageError("contains no kernel image", where=names, hint=hint)
    return _find_beside(images[0])


# --- taking one into the store


def fill_image(
    draft: Path,
    parts: _Parts,
    origin: str,
    progress: Progress,
    *,
    is_checked: bool = False,
    package: Sequence[str] = (),
    suites: Sequence[str] = (),
) -> None:
    """Write the entry of an image; raises ``UsageError`` if its parts do not belong together.

    ``package`` is architecture, flavour and version of a Debian kernel, ``suites`` have it. With
    ``is_checked``, the user has named the modules, which must be those of the image.
    """
    image = read_image(parts.image)
    config = _choose_config(image, parts)
    release = image.release
    if parts.modules:
        _check_release(parts, release, strictly=is_checked)
        target = draft / "modules" / "lib" / "modules" / release
        _copy_modules(parts, target)
        depmod = command.find_tool("depmod", "kmod")
        command.run([depmod, "-b", str(draft / "modules"), release])
    _check_drivers(image, config, draft / "modules" / "lib" / "modules" / release, parts)
    (draft / "image").write_bytes(image.boots)
    if config:
        (draft / "config").write_text(config)
    else:
        progress.note(f"{parts.image}: its config is unknown; what tests need is checked in the guest only")
    facts = ImageFacts(
        arch=image.arch,
        release=release,
        banner=image.banner,
        version=str(image.version),
        sha256=_read_digest(parts.image),
        origin=origin,
        package=tuple(package),
        suites=tuple(suites),
        headers=_find_headers(parts),
    )
    write_json(draft / _FACTS, dataclasses.asdict(facts))


def _find_headers(parts: _Parts) -> str:
    """The folder with which modules for this kernel are built on this machine; empty if there is none."""
    headers = parts.modules / "build" if parts.modules and not parts.is_build else parts.modules
    return str(headers.resolve()) if headers and headers.is_dir() else ""


def _choose_config(image: ImageFile, parts: _Parts) -> str:
    """The config of an image: its own one, or the file that belongs to it; they must agree."""
    beside = parts.config.read_text(errors="replace") if parts.config else ""
    if not image.config or not beside:
        return image.config or beside
    own, given = set(_list_settings(image.config)), set(_list_settings(beside))
    if changed := sorted(given - own):
        what = f"is not the config of {parts.image.name}: {len(changed)} symbol(s) differ"
        raise UsageError(what, where=str(parts.config), hint=f"the image does not have {changed[0]}")
    return image.config


def _list_settings(config: str) -> list[str]:
    return [line for line in config.splitlines() if line.startswith("CONFIG_")]


def _check_release(parts: _Parts, release: str, *, strictly: bool) -> None:
    """Modules of another kernel would be refused one by one in the guest."""
    assert parts.modules
    file = parts.modules / "include" / "config" / "kernel.release"
    found = file.read_text().strip() if parts.is_build and file.exists() else parts.modules.name
    if found != release and (strictly or not parts.is_build or file.exists()):
        where = f"MODULES={parts.modules}" if strictly else str(parts.modules)
        raise UsageError(f"has the modules of {found}, and {parts.image} is {release}", where=where)


def _copy_modules(parts: _Parts, target: Path) -> None:
    assert parts.modules
    for path in _list_modules(parts):
        below = path.relative_to(parts.modules)
        # a build folder has them where make installs them below kernel/
        place = target / "kernel" / below if parts.is_build and path.suffix == ".ko" else target / below
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def _check_drivers(image: ImageFile, config: str, modules: Path, parts: _Parts) -> None:
    """Raise ``UsageError`` if the guest could not be reached: drivers that are neither built in nor there."""
    if not config:
        return
    values = read_values(config)
    lacking = [
        symbol for symbol in (*_NEEDED, ARCHES[image.arch].console_symbol) if values.get(symbol, "n") == "n"
    ]
    modular = [symbol for symbol in _NEEDED if values.get(symbol) == "m"]
    if modular and not modules.is_dir():
        raise UsageError(
            f"needs modules to boot ({', '.join(modular)}), and there are none",
            where=str(parts.image),
            hint="MODULES=DIR names their folder",
        )
    if modular and values.get("BLK_DEV_INITRD") != "y":
        lacking.append("BLK_DEV_INITRD")
    if lacking:
        raise UsageError(
            f"cannot be a guest: it was built without {', '.join(lacking)}", where=str(parts.image)
        )


def read_values(config: str) -> dict[str, str]:
    """The values of a ``.config`` by symbol, without those that are not set."""
    return dict(re.findall(r"^CONFIG_(\w+)=(.*)$", config, re.M))


def make_source(tree: str, place: Path) -> Source:
    facts = _read_facts(place)
    return Source(
        source_id=place.name,
        tree=tree,
        series="",
        version=Version.parse(facts.version),
        base=facts.sha256[:40],
        commit=facts.sha256[:40],
        tree_id=facts.sha256[:40],
        origin=facts.origin,
        image=place.name,
    )


def read_facts(store: Store, image_id: str) -> ImageFacts:
    """The facts about an image in the store."""
    return _read_facts(store.use(KIND, image_id))


def _read_facts(place: Path) -> ImageFacts:
    return TypeAdapter(ImageFacts).validate_json((place / _FACTS).read_bytes())
