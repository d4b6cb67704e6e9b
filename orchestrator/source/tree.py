# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads ``patches/trees.yaml`` and finds the tree that ``KERNEL=`` names.

Nothing is fetched here. A name may have a ref, ``stable-5.15:v5.15.100``, ``/path/to/linux:topic``, or a
Debian version: ``debian-6.1:6.1.170-3``.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.yamlfile import suggest
from orchestrator.source.debian import VERSION
from orchestrator.store.store import make_id

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")


@dataclass(frozen=True, slots=True)
class DebianTree:
    """A kernel from a Debian package with its source, and the suites that have it, separated by spaces.

    Without a ``version`` the newest of all suites is meant.
    """

    name: str
    package: str
    suite: str
    version: str = ""

    @property
    def suites(self) -> tuple[str, ...]:
        return tuple(self.suite.split())

    def at(self, version: str) -> "DebianTree":
        """The tree at one version, under a name of its own."""
        return replace(self, name=f"{self.name.split(':')[0]}:{version}", version=version)

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.package}{version} from {', '.join(self.suites)}"


@dataclass(frozen=True, slots=True)
class GitTree:
    """A kernel from a ref of a git repository; mirrors are tried in order.

    ``commit``, at least 7 hex digits, is one in the history of ``ref`` that is meant instead of its tip; then
    several refs may be named, to be looked through in order.
    """

    name: str
    urls: tuple[str, ...]
    ref: str
    commit: str = ""

    def __str__(self) -> str:
        return f"{self.commit + ' in ' if self.commit else ''}{self.ref} of {self.urls[0]}"


@dataclass(frozen=True, slots=True)
class TarballTree:
    """A kernel from an archive: a URL, or a path, of known content.

    With a ``keyring`` the OpenPGP signature at ``sign`` is checked too, which kernel.org makes of the archive
    before it is compressed.
    """

    name: str
    url: str
    sha256: str
    keyring: str = ""
    sign: str = ""

    def __str__(self) -> str:
        return self.url


@dataclass(frozen=True, slots=True)
class LocalTree:
    """A kernel from a folder of this machine; nothing in it is touched.

    A git checkout is taken at ``ref`` (its HEAD when empty), or with ``is_dirty`` as it lies there. A folder
    without git is taken as it lies there.
    """

    name: str
    path: str
    ref: str = ""
    is_dirty: bool = False

    @property
    def is_checkout(self) -> bool:
        return (Path(self.path) / ".git").exists()

    def __str__(self) -> str:
        return f"{self.ref} of {self.path}" if self.ref else self.path


@dataclass(frozen=True, slots=True)
class AbsentTree:
    """A kernel whose source is elsewhere: by its name, with what was built of it."""

    name: str

    def __str__(self) -> str:
        return f"{self.name}, which is elsewhere"


Tree = DebianTree | GitTree | TarballTree | LocalTree | AbsentTree


def load_trees(file: Path) -> dict[str, Tree]:
    """Trees by name; raises ``UsageError`` for each thing wrong with the file, all at once.

    Paths are relative to the folder of the file.
    """
    text = doc.scalar(doc.text)
    keys: dict[str, doc.Shape[Any]] = {
        "debian": text,
        "suite": text,
        "git": doc.list_of(text),
        "ref": text,
        "commit": doc.scalar(_hex_of(_COMMIT, "a commit of 7 to 40 hex digits")),
        "tarball": text,
        "sha256": doc.scalar(_hex_of(_SHA256, "64 hex digits")),
        "keyring": text,
        "sign": text,
        "dir": text,
    }
    entry = doc.record(lambda place, **values: (place, values), {}, keys)
    shape = doc.record(lambda place, trees: trees, {"trees": doc.mapping_of(entry)})
    trees: dict[str, Tree] = {}
    errors: list[UsageError] = []
    for name, (place, values) in doc.load_document(file, shape).items():
        if not _NAME.fullmatch(name):
            what = "a tree's name is of letters, digits, '.', '_' and '-'"
            errors.append(UsageError(what, where=str(place)))
        elif tree := _make_tree(name, values, file.parent):
            trees[name] = tree
        else:
            errors.append(UsageError(_KINDS, where=str(place)))
    raise_all(errors)
    return trees


_KINDS = (
    "expected {git: [URL, MIRROR...], ref: REF} (with commit: if one of its history is meant), "
    "{debian: PACKAGE, suite: SUITE...}, {tarball: URL, sha256: DIGEST} (with keyring: and sign:) or "
    "{dir: PATH}"
)


def _make_tree(name: str, values: Mapping[str, Any], here: Path) -> Tree | None:
    """The tree of an entry; None for keys that do not belong together."""
    keys = set(values)
    if keys == {"debian", "suite"} and values["suite"].split():
        return DebianTree(name, values["debian"], values["suite"])
    if keys == {"dir"}:
        return LocalTree(name, _resolve(values["dir"], here))
    if {"tarball", "sha256"} <= keys <= {"tarball", "sha256", "keyring", "sign"}:
        words = {key: _resolve(value, here) if _is_path(value) else value for key, value in values.items()}
        return TarballTree(
            name, words["tarball"], values["sha256"], words.get("keyring", ""), words.get("sign", "")
        )
    if not {"git", "ref"} <= keys <= {"git", "ref", "commit"} or not values["git"]:
        return None
    if len(values["ref"].split()) > 1 and "commit" not in keys:
        return None
    if keys == {"git", "ref"} and len(values["git"]) == 1 and _is_path(values["git"][0]):
        return LocalTree(name, _resolve(values["git"][0], here), values["ref"])
    return GitTree(name, values["git"], values["ref"], values.get("commit", ""))


def _hex_of(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def convert(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(f"expected {what}, got {value}")
        return value

    return convert


def _is_path(url: str) -> bool:
    """Whether git or curl would take it for a path: no scheme, no ``host:``."""
    return "://" not in url and not re.match(r"[^/]+:", url)


def _resolve(path: str, here: Path) -> str:
    return str((here / Path(path).expanduser()).resolve())


def is_path(word: str) -> bool:
    """Whether a word of the command line means a folder, and no declared tree."""
    return "/" in word or word in (".", "..")


def name_folder(top: Path) -> str:
    """What a tree of a folder is called that nothing declares."""
    return f"{top.name}-{make_id(str(top))[:6]}"


def find_tree(word: str, trees: Mapping[str, Tree], *, is_dirty: bool = False) -> Tree:
    """The tree that a word of the command line means: ``NAME``, ``/path``, and either with ``:REF``.

    Of a Debian tree the ref is a version.

    Raises ``UsageError`` when there is none. ``is_dirty`` takes a checkout as it lies there.
    """
    name, _, ref = word.partition(":")
    if is_path(name):
        top = Path(name).expanduser().resolve()
        tree: Tree = LocalTree(name_folder(top), str(top))
    elif name in trees:
        tree = trees[name]
    else:
        raise UsageError(
            f"there is no kernel {name}{suggest(name, trees)}",
            where="KERNEL",
            hint=f"there are: {', '.join(trees)}; or give the /path/to/one",
        )
    if ref:
        match tree:
            case GitTree() if _COMMIT.fullmatch(ref) and len(ref) < 40:
                tree = replace(tree, name=f"{tree.name}:{ref}", commit=ref)
            case GitTree():
                tree = replace(tree, name=f"{tree.name}:{ref}", ref=ref, commit="")
            case LocalTree() if tree.is_checkout:
                tree = replace(tree, name=f"{tree.name}:{ref}", ref=ref)
            case DebianTree() if VERSION.fullmatch(ref):
                tree = tree.at(ref)
            case DebianTree():
                raise UsageError(
                    f"expected a Debian version of {name}, such as 6.1.170-3, got {ref}",
                    where="KERNEL",
                    hint="cowbell list trees -v shows the versions that the mirror offers",
                )
            case _:
                raise UsageError(f"{name} is not of git, so it has no ref {ref}", where="KERNEL")
    if isinstance(tree, LocalTree):
        tree = replace(tree, is_dirty=is_dirty and not tree.ref)
    return tree
