# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds and downloads the kernels that Debian has built, of a series, a flavour and an architecture."""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import InfraError, UsageError
from orchestrator.process.progress import Progress
from orchestrator.project.arch import ARCHES
from orchestrator.source import debian
from orchestrator.source.image import KIND, NEEDED_MIB, PARTS, fill_image, find_in_packages, make_source
from orchestrator.source.repository import Source
from orchestrator.source.tree import DebianImageTree
from orchestrator.store.store import Store, make_id, write_atomic

_PACKAGE = re.compile(rf"linux-(?:{'|'.join(PARTS)})-\d")
_SUFFIXES = {"cloud": "-cloud-{arch}", "generic": "-{arch}"}
# flavours and meta packages whose names end as the generic ones do
_OTHER = re.compile(r".*-(?:cloud|rt|16k)|(?!\d).*")


@dataclass(frozen=True, slots=True)
class ImageOffer:
    """A version of Debian's kernel image, the suites that have it, and the packages it consists of."""

    version: str
    suites: tuple[str, ...]
    packages: tuple[str, ...]


def fetch_debian_image(
    tree: DebianImageTree, store: Store, progress: Progress, *, redo: bool = False
) -> Source:
    """The image of a version, or of the newest one when it was first asked for (again with ``redo``).

    The source is named ``TREE:VERSION``, so that results say which of the published kernels they are of.
    """
    if not redo and (known := find_debian_image(tree, store)):
        return known
    for max_age_s in (0.0,) if redo and not tree.version else (debian.FRESH_S, debian.CURRENT_S):
        offers, errors = find_image_offers(tree, store, max_age_s=max_age_s)
        try:
            offer = _choose_offer(tree, offers, errors)
            fill = functools.partial(_download, tree=tree, offer=offer, store=store, progress=progress)
            place = store.publish(KIND, _make_debian_id(tree, offer.version), fill)
            break
        except (debian.UnavailableError, UsageError):
            if max_age_s != debian.FRESH_S:
                raise
    for error in errors.values():
        progress.note(f"{tree.name}: {error.what}")
    if not tree.version:
        write_atomic(_newest(tree, store), offer.version)
    return make_source(tree.at(offer.version).name, place)


def find_debian_image(tree: DebianImageTree, store: Store) -> Source | None:
    """The image, if it is in the store; without a version, the one that was newest when it was fetched."""
    newest = _newest(tree, store)
    version = tree.version or (newest.read_text() if newest.exists() else "")
    if not version or not store.path(KIND, _make_debian_id(tree, version)).is_dir():
        return None
    return make_source(tree.at(version).name, store.use(KIND, _make_debian_id(tree, version)))


def _make_debian_id(tree: DebianImageTree, version: str) -> str:
    return make_id("debian-image", tree.arch, tree.flavour, version)


def _newest(tree: DebianImageTree, store: Store) -> Path:
    return store.path(KIND, f"{make_id(asdict(tree))}.newest")


def list_stored_versions(tree: DebianImageTree, store: Store) -> set[str]:
    """The versions of a tree that are in the store."""
    found = set()
    for path in store.path(KIND).glob("*/image.json"):
        arch, flavour, version = json.loads(path.read_text())["package"] or ("", "", "")
        if (arch, flavour) == (tree.arch, tree.flavour) and _is_of(tree, version):
            found.add(version)
    return found


def _is_of(tree: DebianImageTree, version: str) -> bool:
    """Whether a version belongs to the series of a tree."""
    return not tree.series or bool(re.match(rf"{re.escape(tree.series)}[.~-]", version))


def find_image_offers(
    tree: DebianImageTree, store: Store, *, max_age_s: float = debian.FRESH_S
) -> tuple[tuple[ImageOffer, ...], dict[str, InfraError]]:
    """The versions that the mirror offers, newest first, and the error of each suite without new lists."""
    errors = debian.update_lists(store, tree.suites, max_age_s=max_age_s)
    return read_image_offers(tree, store), errors


def read_image_offers(tree: DebianImageTree, store: Store) -> tuple[ImageOffer, ...]:
    """The versions that can be booted, newest first, from the lists that were updated last."""
    suites: dict[str, list[str]] = {}
    packages: dict[str, dict[str, list[str]]] = {}
    suffix = _SUFFIXES[tree.flavour].format(arch=ARCHES[tree.arch].debian_arch)
    for suite in tree.suites:
        for package, version in _list_packages(store, suite, debian.read_age(store, suite)):
            release = _find_debian_release(package, suffix)
            if not release or not _is_of(tree, version):
                continue
            packages.setdefault(version, {}).setdefault(release, []).append(package)
            suites.setdefault(version, []).append(suite)
    found = []
    for version in sorted(packages, key=debian.make_key, reverse=True):
        # the shorter ones are meta packages: 6.12 beside 6.12.118+deb13
        release = max(packages[version], key=len)
        names = sorted(set(packages[version][release]), key=lambda name: PARTS.index(name.split("-")[1]))
        parts = {name.split("-")[1] for name in names}
        # of superseded versions the mirror may keep the image alone, which cannot boot without its modules
        if "binary" in parts and "modules" not in parts:
            continue
        found.append(ImageOffer(version, tuple(dict.fromkeys(suites[version])), tuple(names)))
    return tuple(found)


@functools.lru_cache
def _list_packages(store: Store, suite: str, _updated: float) -> list[tuple[str, str]]:
    """The packages of kernel images and their versions, from lists that were updated at that time."""
    names = [name for name in debian.list_names(store, "linux-", suite) if _PACKAGE.match(name)]
    return debian.list_versions(store, names, suite)


def _find_debian_release(package: str, suffix: str) -> str:
    """The release in a package's name, without the flavour; empty for packages of other flavours."""
    _, _, rest = package.split("-", 2)
    release = rest.removesuffix(suffix)
    return "" if release == rest or _OTHER.fullmatch(release) else release


def _choose_offer(
    tree: DebianImageTree, offers: Sequence[ImageOffer], errors: Mapping[str, InfraError]
) -> ImageOffer:
    """The version of the tree, or the newest one.

    Raises ``UsageError`` with the nearest versions, ``InfraError`` if the mirror has none or cannot be asked.
    """
    if offer := next((one for one in offers if tree.version in ("", one.version)), None):
        return offer
    if errors:
        error = next(iter(errors.values()))
        raise InfraError(f"{tree.name} cannot be looked up: {error.what}", where=tree.name, hint=error.hint)
    if not offers:
        suites = ", ".join(tree.suites)
        raise debian.UnavailableError(f"the mirror has no such image in {suites}", where=tree.name)
    nearest = sorted((o.version for o in offers), key=lambda one: _measure_distance(one, tree.version))
    what = f"the mirror has no image of version {tree.version} for {tree.arch}"
    raise UsageError(what, where="KERNEL", hint=f"the nearest ones: {', '.join(nearest[:5])}")


def _measure_distance(one: str, other: str) -> list[int]:
    """Sorts versions by how far they are from another one: first by series, then by point release."""
    first, second = (list(map(int, re.findall(r"\d+", text)))[:4] for text in (one, other))
    return [abs(a - b) for a, b in zip(first, second, strict=False)]


def _download(
    draft: Path, tree: DebianImageTree, offer: ImageOffer, store: Store, progress: Progress
) -> None:
    store.check_space(NEEDED_MIB, "a kernel image")
    progress.stage("source", f"{offer.packages[0]} {offer.version} from {offer.suites[0]}")
    with store.own_scratch("image") as scratch:
        found = [
            debian.download_package(store, package, debian.Offer(offer.version, offer.suites), scratch)
            for package in offer.packages
        ]
        parts = find_in_packages(found, scratch / "unpacked")
        package = (tree.arch, tree.flavour, offer.version)
        fill_image(
            draft,
            parts,
            f"{offer.packages[0]}_{offer.version}",
            progress,
            package=package,
            suites=offer.suites,
        )
