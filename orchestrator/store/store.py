# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: artifacts named by their id (content hash), results, and locks.

A folder of the store is complete or absent: it is filled under a temporary name and renamed. An id is the
first 12 hex digits of SHA-256 over the canonical JSON of all inputs, so equal inputs find the existing
artifact.

    git/                 every kernel source, as commits of one bare repository
    trees/TREE/source/   the checkout that is built from
    trees/TREE/ID/       object files, reused from commit to commit
    edit/SERIES-on-TREE/ a series opened by cowbell worktree; never overwritten
    series/ID/           patches of an mbox or a range of commits
    threads/ID.mbox      a series from a mail archive, in one version
    downloads/, index/   partial downloads; the index of the files of a local tree
    configs/ID/          the .config of a source and its fragments
    images/ID/           kernels that were built elsewhere, with their modules
    kernels/BUILD_ID/    built kernels: vmlinux, image, .config, build.log
    modules/ID/          the disk with the modules of a kernel; the initramfs of one that was built elsewhere
    rootfs/ROOTFS_ID/    guest root images
    toolboxes/ID/        compilers of Debian that are not installed
    programs/ID/         compiled guest tests
    headers/ID/          headers of a tree for programs that need newer ones than the host has
    results/VARIANT_ID/  one file per test result, and the console of every boot
    history.sqlite       the history; made again from results and runs if missing
    runs/RUN_ID/         record.json and the rendered reports; latest links to the last one
    objects/, accel/     number of objects per config; whether KVM works
    apt/, ccache/        caches of these tools; locks/, scratch/, logs/
"""

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, UsageError
from orchestrator.process.command import MORE_SPACE

_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EIO,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.EFBIG,
    errno.ESTALE,
)


# each tree has a folder with its checkout and its objects
TREES, SOURCE = "trees", "source"
# cannot be made again; $COWBELL_RESULTS sets a separate folder for them
_RESULTS = ("results", "runs", "history.sqlite")
# locks of artifacts that this process uses, by path; released when it ends
_HELD: dict[Path, int] = {}


def make_id(*parts: object) -> str:
    """The id of some inputs: 12 hex digits. Parts are any JSON values."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_tree_id(paths: Mapping[str, Path]) -> str:
    """The id of files, by name and content."""
    return make_id({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()})


def find_default_root() -> Path:
    """``$COWBELL_STORE``, or ``cowbell`` in the user's cache directory (XDG Base Directory)."""
    if chosen := os.environ.get("COWBELL_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or find_home() / ".cache") / "cowbell"


def find_home() -> Path:
    """The user's home; raises ``UsageError`` if there is none, as for the user ids of some containers."""
    try:
        return Path.home()
    except RuntimeError:
        raise UsageError("HOME is not set", hint="export HOME=/path/to/a/folder") from None


def open_default() -> "Store":
    """The store of ``find_default_root``, with its results in ``$COWBELL_RESULTS`` if that is set."""
    results = os.environ.get("COWBELL_RESULTS")
    return Store(find_default_root(), Path(results).absolute() if results else None)


@contextlib.contextmanager
def convert_disk_errors(where: Path) -> Iterator[None]:
    """Turn a full or unwritable disk into an ``InfraError`` that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        raise InfraError(
            f"{error.strerror}: {error.filename or where}",
            hint=MORE_SPACE,
        ) from error


def make_folder(place: Path) -> None:
    """Make a folder and those above it; raises ``InfraError`` if there is none then."""
    try:
        place.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InfraError("is not a folder", where=str(place), hint=MORE_SPACE) from None
    except OSError as error:
        what = f"cannot be made: {error.strerror}"
        raise InfraError(what, where=str(error.filename or place), hint=MORE_SPACE) from None


def name_use(kind: str, name: str) -> str:
    """The lock that every process holds which uses an entry."""
    return f"use-{kind}-{name}".replace("/", "-")


def _check_inside(name: str) -> None:
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise ValueError(f"{name!r} leads out of the store")


@contextlib.contextmanager
def _empty_folder(place: Path) -> Iterator[Path]:
    with convert_disk_errors(place):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of all artifacts and results. Safe for concurrent processes.

    Results, runs and the history may be in a separate folder, ``results``.
    """

    root: Path
    results: Path | None = None

    @property
    def results_root(self) -> Path:
        return self.results or self.root

    def path(self, kind: str, name: str = "") -> Path:
        """The path of an entry, which need not exist; its parent folder is created."""
        _check_inside(kind)
        _check_inside(name)
        root = self.results_root if kind in _RESULTS else self.root
        place = root / kind / name if name else root / kind
        make_folder(place.parent)
        return place

    def use(self, kind: str, name: str) -> Path:
        """The path of an entry that gc must not delete before this process ends.

        Marks the entry as used now. Waits only while gc deletes the entry.
        """
        place = self.path(kind, name)
        lock = self.path("locks", name_use(kind, name))
        with convert_disk_errors(lock):
            # a process works with one store
            for other in [path for path in _HELD if path.parent != lock.parent]:
                os.close(_HELD.pop(other))
            if lock not in _HELD:
                _HELD[lock] = os.open(lock, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
                fcntl.flock(_HELD[lock], fcntl.LOCK_SH)
            os.utime(lock)
        return place

    @contextlib.contextmanager
    def try_lock(self, name: str) -> Iterator[bool]:
        """Try to take a lock; yields whether it was taken."""
        path = self.path("locks", name)
        with convert_disk_errors(path), path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def publish(self, kind: str, name: str, fill: Callable[[Path], None]) -> Path:
        """Return the entry; if it is absent, let ``fill`` write it into an empty folder first."""
        place = self.use(kind, name)
        if place.is_dir():
            return place
        with self.lock(f"{kind}-{name}"), convert_disk_errors(place):
            if place.is_dir():
                return place
            for left in place.parent.glob(f".{name}.*"):
                shutil.rmtree(left)
            draft = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=place.parent))
            try:
                fill(draft)
                draft.chmod(0o755)
                draft.rename(place)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
        return place

    @contextlib.contextmanager
    def scratch(self, name: str, *, is_result: bool = False) -> Iterator[Path]:
        """An empty folder for this process; remains of a killed process are removed.

        With ``is_result``, it is on the disk of the results, so that files can be moved there by rename.
        """
        _check_inside(name)
        root = self.results_root if is_result else self.root
        with self.lock(f"scratch-{name}"), _empty_folder(root / "scratch" / name) as place:
            yield place

    @contextlib.contextmanager
    def own_scratch(self, name: str) -> Iterator[Path]:
        """As ``scratch``, for several processes at a time: the first free one of NAME-1, NAME-2 ..."""
        for number in itertools.count(1):
            path = self.path("locks", f"scratch-{name}-{number}")
            with convert_disk_errors(path), path.open("w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                with _empty_folder(self.root / "scratch" / f"{name}-{number}") as place:
                    yield place
                return

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an exclusive lock, waiting for it if needed. The kernel releases it when the process dies."""
        path = self.path("locks", name)
        with convert_disk_errors(path), path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check_space(self, needed_mib: int, purpose: str) -> None:
        """Raise ``InfraError`` if the store's disk has less free space (MiB) than needed."""
        free_mib = shutil.disk_usage(self.path("locks").parent).free >> 20
        if free_mib < needed_mib:
            raise InfraError(
                f"only {free_mib} MiB are free in {self.root}, {purpose} needs {needed_mib} MiB",
                hint=MORE_SPACE,
            )


@contextlib.contextmanager
def own_folder(place: Path) -> Iterator[None]:
    """Make a folder if needed, and own it until the block or this process ends; see ``try_unowned``."""
    descriptor = None
    while descriptor is None:
        place.mkdir(parents=True, exist_ok=True)
        # it may be removed before it is locked
        descriptor = _lock_folder(place, fcntl.LOCK_SH)
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def try_unowned(place: Path) -> Iterator[bool]:
    """Whether a folder exists and no process owns it; none can begin to during the block."""
    try:
        descriptor = _lock_folder(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        # owned, or on a file system that cannot tell
        descriptor = None
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _lock_folder(place: Path, how: int) -> int | None:
    """The descriptor that holds the lock of a folder; None if the folder is gone."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
        if os.path.samestat(os.fstat(descriptor), place.stat()):
            return descriptor
    except FileNotFoundError:
        pass
    except OSError:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file atomically: after a crash it has the old or the new content."""
    with convert_disk_errors(path):
        make_folder(path.parent)
        descriptor, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(file.fileno())
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: object) -> None:
    """Write a value as JSON in UTF-8; what UTF-8 cannot express, as in odd file names, is replaced."""
    text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    write_atomic(path, text.encode(errors="replace"))
