# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads ``patches/trees.yaml`` and finds the tree that ``KERNEL=`` names.

Nothing is fetched here. A name may have a ref, ``stable-5.15:v5.15.100``, ``/path/to/linux:topic``, or a
Debian version: ``debian-6.1:6.1.170-3``.
"""

import functools
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.arch import ARCHES
from orchestrator.project.yamlfile import suggest
from orchestrator.source.debian import VERSION
from orchestrator.store.name import RULE, is_name, make_name
from orchestrator.store.store import make_id

_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")
FLAVOURS = ("cloud", "generic")
# of a word that is no path
_SHOWN = 200
_ARCHIVE = re.compile(r".*\.(?:tar(?:\.\w+)?|tgz|txz|tbz2?|tzst)")


@dataclass(frozen=True, slots=True)
class DebianTree:
    """A Debian source package and its suites, separated by spaces.

    Without a ``version`` it is the newest one of all suites.
    """

    name: str
    package: str
    suite: str
    version: str = ""

    @property
    def suites(self) -> tuple[str, ...]:
        return tuple(self.suite.split())

    def at(self, version: str) -> "DebianTree":
        """The tree at one version, named ``NAME:VERSION``."""
        return replace(self, name=f"{self.name.split(':')[0]}:{version}", version=version)

    def __str__(self) -> str:
        version = f" {self.version}" if self.version else ""
        return f"{self.package}{version} from {', '.join(self.suites)}"


@dataclass(frozen=True, slots=True)
class GitTree:
    """A ref of a git repository; mirrors are tried in order.

    ``commit``, at least 7 hex digits, selects a commit in the history of ``ref`` instead of its tip; then
    ``ref`` may name several refs, which are searched in order.
    """

    name: str
    urls: tuple[str, ...]
    ref: str
    commit: str = ""

    def __str__(self) -> str:
        return f"{self.commit + ' in ' if self.commit else ''}{self.ref} of {self.urls[0]}"


@dataclass(frozen=True, slots=True)
class TarballTree:
    """An archive, given by URL or path and by its sha256.

    With a ``keyring`` the OpenPGP signature at ``sign`` is checked too; kernel.org signs the uncompressed
    archive.
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
    """A folder of this machine; it is only read.

    A git checkout or bare repository is used at ``ref`` (HEAD if empty), a checkout with ``is_dirty``
    including uncommitted changes. A folder without git is used as it is.
    """

    name: str
    path: str
    ref: str = ""
    is_dirty: bool = False

    @property
    def is_checkout(self) -> bool:
        return (Path(self.path) / ".git").exists() or self.is_bare

    @property
    def is_bare(self) -> bool:
        top = Path(self.path)
        parts = (top / "HEAD").is_file(), (top / "objects").is_dir(), (top / "refs").is_dir()
        return all(parts) and not (top / ".git").exists()

    def __str__(self) -> str:
        return f"{self.ref} of {self.path}" if self.ref else self.path


@dataclass(frozen=True, slots=True)
class ImageTree:
    """A kernel of this machine that is already built: an image, a build folder or a Debian package.

    ``modules`` is the folder or package of its modules, if they are not where its kind has them.
    """

    name: str
    path: str
    modules: str = ""

    def __str__(self) -> str:
        return self.path


@dataclass(frozen=True, slots=True)
class DebianImageTree:
    """Debian's own builds of a kernel: those of a ``series`` such as 6.12, or of all if it is empty.

    ``flavour`` is ``cloud``, or ``generic`` for the usual one with all drivers. ``arch`` is one of our
    architectures. Without a ``version`` it is the newest one of all suites.
    """

    name: str
    series: str
    flavour: str
    suite: str
    version: str = ""
    arch: str = "x86_64"

    @property
    def suites(self) -> tuple[str, ...]:
        """The suites, as ``SUITE@ARCH`` for an architecture that is not the host's."""
        arch = ARCHES[self.arch]
        return tuple(
            suite if arch.is_native else f"{suite}@{arch.debian_arch}" for suite in self.suite.split()
        )

    def at(self, version: str) -> "DebianImageTree":
        """The tree at one version, named ``NAME:VERSION``."""
        return replace(self, name=f"{self.name.split(':')[0]}:{version}", version=version)

    def __str__(self) -> str:
        version = f" {self.version or self.series}" if self.version or self.series else ""
        return f"Debian's kernel image{version} ({self.flavour}, {self.arch}) from {', '.join(self.suites)}"


@dataclass(frozen=True, slots=True)
class AbsentTree:
    """The tree of a prebuilt kernel: only its name is known here."""

    name: str

    def __str__(self) -> str:
        return f"{self.name} (source not available here)"


Tree = DebianTree | GitTree | TarballTree | LocalTree | ImageTree | DebianImageTree | AbsentTree
# kernels that are not built here
IMAGES = (ImageTree, DebianImageTree)
# trees whose ref is a Debian version
VERSIONED = (DebianTree, DebianImageTree)


def load_trees(file: Path) -> dict[str, Tree]:
    """Trees by name; raises all errors of the file at once as ``UsageError``.

    Paths are relative to the folder of the file.
    """
    text = doc.scalar(doc.text)
    keys: dict[str, doc.Shape[Any]] = {
        "debian": text,
        "debian-image": text,
        "flavour": doc.scalar(doc.one_of(FLAVOURS)),
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
        if not is_name(name):
            errors.append(UsageError(f"{name!r} is not a name of a tree: use {RULE}", where=str(place)))
        elif tree := _make_tree(name, values, file.parent):
            trees[name] = tree
        else:
            errors.append(UsageError(_KINDS, where=str(place)))
    raise_all(errors)
    return trees


_KINDS = (
    "expected {git: [URL, MIRROR...], ref: REF} (with commit: to select one of its history), "
    "{debian: PACKAGE, suite: SUITE...}, {debian-image: SERIES, suite: SUITE...} (with flavour:), "
    "{tarball: URL, sha256: DIGEST} (with keyring: and sign:) or "
    "{dir: PATH}"
)


def _make_tree(name: str, values: Mapping[str, Any], here: Path) -> Tree | None:
    """The tree of an entry; None for an invalid combination of keys."""
    keys = set(values)
    if keys == {"debian", "suite"} and values["suite"].split():
        return DebianTree(name, values["debian"], values["suite"])
    if {"debian-image", "suite"} <= keys <= {"debian-image", "suite", "flavour"} and values["suite"].split():
        series = "" if values["debian-image"] == "all" else values["debian-image"]
        return DebianImageTree(name, series, values.get("flavour", FLAVOURS[0]), values["suite"])
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
    """Whether a value of the command line is a folder or archive instead of the name of a tree."""
    return "/" in word or word.startswith((".", "~"))


def split_word(word: str) -> tuple[str, str]:
    """The name or path of a tree, and its ref: the longest path that exists, as paths may have colons."""
    if word.startswith("file:"):
        word = unquote(urlsplit(word).path)
    for cut in (len(word), *reversed([i for i, letter in enumerate(word) if letter == ":"])):
        if is_path(word[:cut]) and exists(word[:cut]):
            return word[:cut], word[cut + 1 :]
    name, _, ref = word.partition(":")
    return name, ref


def exists(word: str) -> bool:
    """Whether there is a file or folder of this name; a name that no file can have is none."""
    try:
        return expand(word).exists()
    except (OSError, ValueError):
        return False


def expand(word: str) -> Path:
    """The absolute path of a word, ``~`` expanded."""
    try:
        return Path(word).expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        # no such user, or links that lead in a circle
        return Path(word).absolute()


def name_folder(top: Path) -> str:
    """The name of a tree that is given as a folder; git refs and folders have it, so it is plain."""
    return f"{make_name(top.name)}-{make_id(str(top))[:6]}"


@functools.lru_cache
def _read_digest(archive: Path, changed_ns: int) -> str:
    return read_sha256(archive)


def read_sha256(path: Path) -> str:
    """The digest of a file; raises ``UsageError`` if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None


def is_image(path: Path) -> bool:
    """Whether a path is a built kernel: a file that is no archive, or a build folder without sources."""
    if path.is_dir():
        return (path / ".config").is_file() and not (path / "Kconfig").exists()
    return path.is_file() and not _ARCHIVE.fullmatch(path.name)


def names_image(word: str, trees: Mapping[str, Tree]) -> bool:
    """Whether ``KERNEL=`` names a kernel that is not built here."""
    name, _ = split_word(word)
    if is_path(name):
        return exists(name) and is_image(expand(name))
    return isinstance(trees.get(name), IMAGES)


def find_tree(word: str, trees: Mapping[str, Tree], *, is_dirty: bool = False, modules: str = "") -> Tree:
    """The tree that ``KERNEL=`` names: ``NAME``, a folder, a repository or an archive; ``:REF`` may follow.

    It may be a kernel that is already built, too: an image, a build folder or a package, whose modules are in
    ``modules`` if that is given. For Debian's trees the ref is a version. ``is_dirty`` includes the
    uncommitted changes of a checkout. Raises ``UsageError`` if there is no such tree.
    """
    name, ref = split_word(word)
    if is_path(name):
        if not exists(name):
            what = "is not a kernel tree: there is no such folder or archive"
            raise UsageError(what, where=name[:_SHOWN])
        top = expand(name)
        tree: Tree = LocalTree(name_folder(top), str(top))
        if is_image(top):
            tree = ImageTree(name_folder(top), str(top), modules)
        elif _ARCHIVE.fullmatch(top.name) and top.is_file():
            tree = TarballTree(name_folder(top), str(top), _read_digest(top, top.stat().st_mtime_ns))
    elif name in trees:
        tree = trees[name]
    else:
        raise UsageError(
            f"there is no tree {name}{suggest(name, trees)}",
            where="KERNEL",
            hint=f"known trees: {', '.join(trees)}; or give the path of a source folder",
        )
    if ref:
        match tree:
            case GitTree() if _COMMIT.fullmatch(ref) and len(ref) < 40:
                tree = replace(tree, name=f"{tree.name}:{ref}", commit=ref)
            case GitTree():
                tree = replace(tree, name=f"{tree.name}:{ref}", ref=ref, commit="")
            case LocalTree() if tree.is_checkout:
                tree = replace(tree, name=f"{tree.name}:{ref}", ref=ref)
            case DebianTree() | DebianImageTree() if VERSION.fullmatch(ref):
                tree = tree.at(ref)
            case DebianTree() | DebianImageTree():
                raise UsageError(
                    f"expected a Debian version of {name}, such as 6.1.170-3, got {ref}",
                    where="KERNEL",
                    hint="cowbell list trees -v shows the versions that the mirror offers",
                )
            case _:
                raise UsageError(f"{name} is not a git tree, so it has no ref {ref}", where="KERNEL")
    if modules and not isinstance(tree, ImageTree):
        raise UsageError("is for KERNEL= with the path of a kernel image", where="MODULES")
    if isinstance(tree, LocalTree):
        tree = replace(tree, is_dirty=is_dirty and not tree.ref)
    return tree
