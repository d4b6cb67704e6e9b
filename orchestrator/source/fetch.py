# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches trees, as commits of the store's repository.

A tree is fetched once its ref exists, which is written after all objects. An interrupted fetch is resumed:
from git servers, commit and directories are fetched first and then the missing files; downloads of archives
continue where they stopped.
"""

import dataclasses
import gzip
import lzma
import shutil
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.source import debian, repository
from orchestrator.source.debianimage import fetch_debian_image, find_debian_image
from orchestrator.source.image import fetch_local_image, find_local_image
from orchestrator.source.local import (
    check_local,
    commit_files,
    empty_worktree,
    fetch_local,
    find_local_commit,
    has_own_files,
)
from orchestrator.source.remote import fetch_git
from orchestrator.source.repository import Source, find_commit, open_repository
from orchestrator.source.tree import (
    AbsentTree,
    DebianImageTree,
    DebianTree,
    GitTree,
    ImageTree,
    LocalTree,
    TarballTree,
    Tree,
    read_sha256,
)
from orchestrator.store.store import Store, make_id

# space for the download, the files, and the pack of git
_NEEDED_MIB = 3072
# a server that sends nothing for this long counts as unreachable
_STALL_S = 60
_FETCHED = "refs/cowbell/fetched"


def fetch_tree(
    tree: Tree,
    store: Store,
    progress: Progress,
    *,
    redo: bool = False,
    read: MutableMapping[object, str] | None = None,
) -> Source:
    """The commit of a tree, from an earlier fetch, or (first time, ``redo``) the newest one.

    A local tree is always read again, unless its commit is in ``read``, an exact Debian version never. Raises
    ``InfraError`` if the tree cannot be fetched and never was, ``UsageError`` if it is not a kernel or its
    declaration is wrong.
    """
    if isinstance(tree, ImageTree):
        return fetch_local_image(tree, store, progress)
    if isinstance(tree, DebianImageTree):
        return fetch_debian_image(tree, store, progress, redo=redo)
    redo = redo and not (isinstance(tree, DebianTree) and tree.version)
    read = {} if read is None else read
    known = find_fetched(tree, store, read)
    if known and not redo:
        return known
    with store.lock(f"tree-{repository.make_folder(tree.name)}"):
        # the previous holder of the lock may have fetched it
        known = find_fetched(tree, store, read)
        if known and not redo:
            return known
        store.check_space(_NEEDED_MIB, "a kernel tree")
        progress.stage("source", f"{tree.name}: {tree}")
        try:
            commit, origin = _fetch(tree, store, progress, read, redo=redo)
        except InfraError as error:
            if not known:
                raise
            progress.note(
                f"{tree.name} cannot be updated, {known.commit[:12]} from an earlier fetch is used: {error}"
            )
            return known
        repository.read_version(store, commit, tree.name)
        repository.save_ref(store, _ref(tree), commit, origin)
    if origin != str(tree):
        progress.note(f"{tree.name}: {commit[:12]} from {origin}")
    listed = repository.list_files(store, commit).splitlines()
    if links := [line.partition("\t")[2] for line in listed if line.startswith("160000 ")]:
        progress.note(f"{tree.name}: the files of submodules are not part of it: {', '.join(links[:5])}")
    found = _find_saved(tree, store)
    assert found
    return found


def find_fetched(tree: Tree, store: Store, read: MutableMapping[object, str] | None = None) -> Source | None:
    """The commit of the last fetch; None for a local tree that has changed since.

    Reading the files of a folder takes time: its commit is taken from ``read``, or added to it. Raises
    ``UsageError`` for a local tree that cannot be used.
    """
    if isinstance(tree, ImageTree):
        return find_local_image(tree, store)
    if isinstance(tree, DebianImageTree):
        return find_debian_image(tree, store)
    if isinstance(tree, LocalTree):
        check_local(tree)
    known = _find_saved(tree, store)
    if known and isinstance(tree, LocalTree):
        commit = read_local(tree, store, {} if read is None else read)
        if known.commit != commit:
            return None
    return known


def read_local(tree: LocalTree, store: Store, read: MutableMapping[object, str]) -> str:
    """The commit of a folder; if that means to read its files, then once."""
    commit = read.get(tree) or find_local_commit(tree, store)
    if has_own_files(tree):
        read[tree] = commit
    return commit


def list_fetched_versions(tree: DebianTree, store: Store) -> Mapping[str, str]:
    """The versions of a Debian tree that are in the store, and their refs."""
    notes = repository.list_notes(store, f"{_FETCHED}/{repository.make_folder(tree.name)}/")
    found = {}
    for ref, note in notes.items():
        package, _, rest = note.partition("_")
        if package == tree.package:
            found[unquote(rest.partition("_")[0])] = ref
    return found


def _find_saved(tree: Tree, store: Store) -> Source | None:
    ref = _ref(tree)
    if isinstance(tree, DebianTree) and tree.version:
        # includes those fetched as the newest
        ref = list_fetched_versions(tree, store).get(tree.version, "")
    commit = find_commit(open_repository(store), ref) if ref else ""
    if not commit:
        return None
    return Source(
        source_id=make_id(commit),
        tree=tree.name,
        series="",
        version=repository.read_version(store, commit, tree.name),
        base=commit,
        commit=commit,
        tree_id=repository.read_tree_id(store, commit),
        origin=repository.read_note(store, ref),
    )


def _ref(tree: Tree) -> str:
    """The id of a tree's declaration; a Debian version is the same in every suite."""
    fields = dataclasses.asdict(tree)
    if isinstance(tree, DebianTree):
        fields.pop("version")
        fields = {"package": tree.package, "version": tree.version} if tree.version else fields
    return f"{_FETCHED}/{repository.make_folder(tree.name)}/{make_id(type(tree).__name__, fields)}"


def _fetch(
    tree: Tree, store: Store, progress: Progress, read: Mapping[object, str], *, redo: bool
) -> tuple[str, str]:
    """The commit and its origin."""
    match tree:
        case DebianTree():
            return _fetch_debian(tree, store, progress, redo=redo)
        case GitTree():
            return fetch_git(tree, store, progress)
        case TarballTree():
            return _fetch_tarball(tree, store)
        case LocalTree():
            return read.get(tree) or fetch_local(tree, store), tree.path
        case ImageTree() | DebianImageTree():
            raise AssertionError(f"{tree} has no commits")
        case AbsentTree():
            raise UsageError(
                "only prebuilt kernels of this tree are available, not its source", where=tree.name
            )


# --- Debian packages and archives


def _fetch_debian(tree: DebianTree, store: Store, progress: Progress, *, redo: bool) -> tuple[str, str]:
    """The requested version, or the newest of all suites. A ref for the version is kept too."""
    # lists of an hour ago may be outdated
    for max_age_s in (0.0,) if redo else (debian.FRESH_S, debian.CURRENT_S):
        offers = debian.find_offers(store, tree.package, tree.suites, max_age_s=max_age_s)
        try:
            offer = _choose_offer(tree, offers, progress)
            exact = tree.at(offer.version)
            if known := _find_saved(exact, store):
                return known.commit, known.origin
            commit, origin = _import_package(tree, offer, store)
            break
        except (debian.UnavailableError, UsageError):
            if max_age_s != debian.FRESH_S:
                raise
    repository.read_version(store, commit, tree.name)
    repository.save_ref(store, _ref(exact), commit, origin)
    return commit, origin


def _choose_offer(tree: DebianTree, offers: debian.Offers, progress: Progress) -> debian.Offer:
    errors = list(offers.errors.values())
    if offer := offers.find(tree.version):
        return offer
    if not tree.version and offers.versions and len(errors) < len(tree.suites):
        for error in errors:
            progress.note(f"{tree.name}: {error.what}")
        return offers.versions[0]
    if errors:
        raise InfraError(
            f"{tree.package} cannot be looked up: {errors[0].what}", where=tree.name, hint=errors[0].hint
        )
    if not offers.versions:
        raise debian.UnavailableError(
            f"the mirror of this host has no {tree.package} in {', '.join(tree.suites)}",
            where=tree.name,
            hint="list the available versions: cowbell list trees -v",
        )
    raise UsageError(
        f"the mirror has no version {tree.version} of {tree.package}",
        where="KERNEL",
        hint=f"it has: {', '.join(offer.version for offer in offers.versions)}",
    )


def _import_package(tree: DebianTree, offer: debian.Offer, store: Store) -> tuple[str, str]:
    with store.scratch(f"fetch-{tree.name}") as scratch:
        package = debian.download_package(store, tree.package, offer, scratch)
        command.run([command.find_tool("dpkg-deb", "dpkg"), "-x", str(package), str(scratch)])
        archive = next(scratch.glob(f"usr/src/{tree.package}.tar.*"), None)
        if archive is None:
            raise InfraError(f"{package.name} contains no usr/src/{tree.package}.tar.*", where=tree.name)
        return _import_archive(archive, tree, store, package.stem), package.stem


def _fetch_tarball(tree: TarballTree, store: Store) -> tuple[str, str]:
    archive = _download(tree.url, tree.sha256, store)
    try:
        if tree.keyring:
            _check_signature(tree, archive, store)
        return _import_archive(archive, tree, store, tree.sha256), tree.url
    finally:
        if archive.parent == store.path("downloads"):
            archive.unlink()


def _download(url: str, sha256: str, store: Store) -> Path:
    """Download a file of known content, resuming if needed; a path is used in place."""
    if "://" not in url:
        archive = Path(url)
        if not archive.is_file():
            raise UsageError("there is no such file", where=url)
    else:
        archive = store.path("downloads") / Path(url).name
        archive.parent.mkdir(exist_ok=True)
        if not archive.exists() or read_sha256(archive) != sha256:
            _curl(url, archive, "--continue-at", "-")
    got = read_sha256(archive)
    if got != sha256:
        if archive.parent == store.path("downloads"):
            archive.unlink()
        raise UsageError(
            f"has sha256 {got}, expected {sha256}",
            where=url,
            hint="the declared sha256 is wrong, or the download is incomplete",
        )
    return archive


def _curl(url: str, target: Path, *options: str) -> None:
    curl = command.find_tool("curl", "curl")
    common = ["-fsSL", "--retry", "3", "--speed-limit", "1", "--speed-time", str(_STALL_S), "-o", str(target)]
    done = command.run([curl, *common, *options, url], check=False)
    # 33 and 416: cannot resume, the file is complete or has changed
    if done.returncode == 33 or (done.returncode == 22 and " 416" in done.output):
        target.unlink(missing_ok=True)
        done = command.run([curl, *common, url], check=False)
    if done.returncode:
        raise InfraError(f"cannot be downloaded: {done.output.strip()}", where=url)


def _check_signature(tree: TarballTree, archive: Path, store: Store) -> None:
    if not Path(tree.keyring).is_file():
        raise UsageError("there is no such keyring", where=f"{tree.name}: {tree.keyring}")
    sign = tree.sign or f"{tree.url.rpartition('.')[0]}.sign"
    gpgv = command.find_tool("gpgv", "gpgv")
    with store.scratch(f"sign-{tree.name}") as scratch:
        signature, plain = scratch / "sign", scratch / "plain"
        if "://" in sign:
            _curl(sign, signature)
        else:
            shutil.copyfile(sign, signature)
        unpack: dict[str, Callable[..., Any]] = {".xz": lzma.open, ".gz": gzip.open}
        with unpack.get(archive.suffix, open)(archive, "rb") as packed, plain.open("wb") as file:
            shutil.copyfileobj(packed, file, 1 << 20)
        checked = command.run([gpgv, "--keyring", tree.keyring, str(signature), str(plain)], check=False)
    if checked.returncode:
        raise UsageError("its signature is invalid", where=f"{tree.name}: {tree.url}", hint=checked.output)


def _import_archive(archive: Path, tree: Tree, store: Store, message: str) -> str:
    """Commit the content of a source archive.

    Files get the current time instead of that of the archive, so that make does not consider objects of
    another version as newer.
    """
    name = repository.make_folder(tree.name)
    with empty_worktree(store, name) as place:
        # the repository of whoever made the archive is none of the source, and its configuration is not run
        tar = [command.find_tool("tar", "tar"), "--exclude=.git", "-xf", str(archive), "-C", str(place)]
        done = command.run([*tar, "--strip-components=1", "--no-same-owner", "--touch"], check=False)
        if done.returncode:
            raise command.find_host_error(done, done.output.splitlines()) or UsageError(
                "is not a complete archive", where=str(archive), hint=done.output
            )
        return commit_files(place, f"{name}: {message}", "--force")
