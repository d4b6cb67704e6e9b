# SPDX-License-Identifier: GPL-2.0-or-later
"""All that outlives a process: artefacts named by their identity, results, locks.

A folder of the store is whole or absent: it is filled under another name and renamed. Ids are the first
12 hex digits of SHA-256 over the canonical JSON of what went in, so equal input finds the finished work.

    git/                 every kernel source, as commits of one bare repository
    worktrees/TREE/      the checkout that is built from
    edit/SERIES-on-TREE/ a series opened by cowbell worktree; yours, never overwritten
    series/ID/           patches of an mbox or a range of commits
    downloads/, index/   archives on their way; what is known of the files of a local tree
    configs/ID/          the .config of a source and its fragments, as Kconfig made it
    build/ID/            object files, reused from commit to commit
    kernels/BUILD_ID/    what a build leaves: vmlinux, image, .config, build.log
    rootfs/ROOTFS_ID/    guest root images
    programs/ID/         compiled guest tests
    results/VARIANT_ID/     one file a test result, and the console of every boot
    history.sqlite       every result that was ever earned, made again from results and runs if it is lost
    runs/RUN_ID/         record.json and the rendered reports; latest links to the last one
    objects/, accel/     what was learned: how many objects a config has, whether KVM works
    apt/, ccache/        caches of the tools'; locks/, scratch/, logs/ explain themselves
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.process.command import MORE_SPACE

_DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EIO,
)


# what can not be made again; $COWBELL_RESULTS has a place of its own for it
_EARNED = ("results", "runs", "history.sqlite")
# locks of what this process uses, by path; they end with it
_HELD: dict[Path, int] = {}


def make_id(*parts: object) -> str:
    """Identity of a declaration: 12 hex digits. Parts are anything that JSON can hold."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def make_tree_id(paths: Mapping[str, Path]) -> str:
    """Identity of files by name and content."""
    return make_id({name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()})


def find_default_root() -> Path:
    """``$COWBELL_STORE``, or ``cowbell`` in the user's cache directory (XDG Base Directory)."""
    if chosen := os.environ.get("COWBELL_STORE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cowbell"


def open_default() -> "Store":
    """The store of ``find_default_root``, with what is earned in ``$COWBELL_RESULTS`` if that is set."""
    earned = os.environ.get("COWBELL_RESULTS")
    return Store(find_default_root(), Path(earned).absolute() if earned else None)


@contextlib.contextmanager
def disk_trouble(where: Path) -> Iterator[None]:
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


@dataclass(frozen=True, slots=True)
class Store:
    """The folder that holds everything. Safe for several processes at once.

    Results, runs and their history may lie in a folder of their own, ``earned``.
    """

    root: Path
    earned: Path | None = None

    @property
    def earned_root(self) -> Path:
        return self.earned or self.root

    def path(self, kind: str, name: str = "") -> Path:
        """Where an entry lives, whether or not it exists; its parent folder does."""
        root = self.earned_root if kind in _EARNED else self.root
        place = root / kind / name if name else root / kind
        with disk_trouble(place):
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
            except (FileExistsError, NotADirectoryError):
                raise InfraError("is no folder", where=str(root), hint=MORE_SPACE) from None
        return place

    def use(self, kind: str, name: str) -> Path:
        """The path of an entry that this process uses from now on: it is not collected before we end.

        This is its last use for the garbage collection. Waits only while the entry is being collected.
        """
        place = self.path(kind, name)
        lock = self.path("locks", f"use-{kind}-{name}")
        with disk_trouble(lock):
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
        """Hold a lock if nobody has it; whether we do."""
        path = self.path("locks", name)
        with disk_trouble(path), path.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def publish(self, kind: str, name: str, fill: Callable[[Path], None]) -> Path:
        """Return the entry; when it is absent, let ``fill`` write it into an empty folder first."""
        place = self.use(kind, name)
        if place.is_dir():
            return place
        with self.lock(f"{kind}-{name}"), disk_trouble(place):
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
    def scratch(self, name: str, *, is_earned: bool = False) -> Iterator[Path]:
        """An empty folder, ours alone; what a killed process left in it is gone. ``is_earned``: where what is
        earned lies, so that a rename takes it there."""
        place = (self.earned_root if is_earned else self.root) / "scratch" / name
        with self.lock(f"scratch-{name}"), disk_trouble(place):
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            try:
                yield place
            finally:
                shutil.rmtree(place, ignore_errors=True)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Hold an exclusive lock; wait for whoever has it. The kernel releases it when we die."""
        path = self.path("locks", name)
        with disk_trouble(path), path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def check_space(self, needed_mib: int, purpose: str) -> None:
        """Raise ``InfraError`` when the store's disk has less left than a purpose needs."""
        free_mib = shutil.disk_usage(self.path("locks").parent).free >> 20
        if free_mib < needed_mib:
            raise InfraError(
                f"{free_mib} MiB left in {self.root}, {purpose} needs {needed_mib}", hint=MORE_SPACE
            )


def write_atomic(path: Path, content: str | bytes) -> None:
    """Replace a file so that a reader, or a crash, sees the old or the new text and nothing between."""
    with disk_trouble(path):
        path.parent.mkdir(parents=True, exist_ok=True)
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
    write_atomic(path, json.dumps(value, indent=1, sort_keys=True) + "\n")
