# SPDX-License-Identifier: GPL-2.0-or-later
"""The store's bare repository: every kernel source is a commit of it, every build uses a worktree.

Refs below ``refs/cowbell/`` keep fetched and generated commits. A worktree belongs to one tree and moves
between its commits: only files that differ get a new time stamp.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.project.condition import Version
from orchestrator.store.store import SOURCE, TREES, Store

# identical input gives identical commits, independent of user, host and time
_OWN_CONFIG = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
# whatever a checkout or a user configures: no programs of theirs, and the store's repository is bare
_SAFE = {"core.fsmonitor": "false", "core.hooksPath": "/dev/null", "safe.bareRepository": "all"}
_ENV = {
    # never prompt for a password
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_AUTHOR_NAME": "Cowbell",
    "GIT_AUTHOR_EMAIL": "cowbell",
    "GIT_AUTHOR_DATE": "1000000000 +0000",
    "GIT_COMMITTER_NAME": "Cowbell",
    "GIT_COMMITTER_EMAIL": "cowbell",
    "GIT_COMMITTER_DATE": "1000000000 +0000",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A commit to build from. ``base`` is the commit of the tree, before fixups and series.

    ``tree`` is the requested name, ``origin`` the mirror, folder or package. ``make_words`` are the make
    variables of its fixups. ``is_generated``: Cowbell wrote a part of the series. ``image`` is the entry of
    the store for a kernel that was built elsewhere, whose commits are digests of its file.
    """

    source_id: str
    tree: str
    series: str
    version: Version
    base: str
    commit: str
    tree_id: str
    origin: str = ""
    fixups: tuple[str, ...] = ()
    make_words: tuple[str, ...] = ()
    is_generated: bool = False
    image: str = ""

    @property
    def folder(self) -> str:
        """The name of the folder of worktree and objects, shared by all refs of a tree."""
        return make_folder(self.tree)


def make_folder(tree: str) -> str:
    """The folder name of a tree: ``stable-5.15:v5.15.100`` shares that of ``stable-5.15``."""
    return tree.split(":")[0]


def git(
    place: Path,
    *words: str,
    check: bool = True,
    is_users: bool = False,
    env: Mapping[str, str] | None = None,
    stdin: str | bytes = "",
    on_line: Callable[[str], None] | None = None,
    limit_s: float | None = None,
) -> command.Completed:
    """Run git in a folder.

    The user's configuration is used only with ``is_users``: in checkouts of the user, and on the network for
    proxies, credentials and ``insteadOf``.
    """
    tool = command.find_tool("git", "git")
    try:
        return command.run(
            [tool, *words],
            cwd=place,
            env=_ENV | make_config(is_users=is_users) | dict(env or {}),
            stdin=(stdin.encode() if isinstance(stdin, str) else stdin) or None,
            on_line=on_line,
            deadline=command.Deadline.after(limit_s) if limit_s else None,
            check=check,
        )
    except InfraError as error:
        verb = next((word for word in words if not word.startswith("-") and "=" not in word), words[0])
        raise InfraError(
            f"git {verb} failed", where=str(place), hint=f"{error.what}\n{error.hint}"
        ) from error


def make_config(*, is_users: bool) -> dict[str, str]:
    """The environment that configures git, in addition to the user's own if ``is_users``."""
    # a checkout may belong to another user; git tells the users themselves about it
    settings = _SAFE if is_users else {**_SAFE, "safe.directory": "*"}
    count = os.environ.get("GIT_CONFIG_COUNT", "")
    first = int(count) if is_users and count.isdecimal() else 0
    made = {} if is_users else dict(_OWN_CONFIG)
    for number, (key, value) in enumerate(settings.items(), first):
        made |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return {**made, "GIT_CONFIG_COUNT": str(first + len(settings))}


def open_repository(store: Store) -> Path:
    """The bare repository; created if it does not exist."""

    def fill(folder: Path) -> None:
        git(folder, "init", "-q", "--bare", ".")
        git(folder, "config", "gc.auto", "0")

    return store.publish("git", "kernels.git", fill)


def find_commit(place: Path, name: str, *, is_users: bool = False) -> str:
    """The commit of a ref or an id in a repository, or an empty string."""
    done = git(place, "rev-parse", "-q", "--verify", f"{name}^{{commit}}", check=False, is_users=is_users)
    return done.output if done.returncode == 0 else ""


def find_user(place: Path) -> str:
    """``NAME <ADDRESS>`` of the user's configuration, as git has it in a folder; empty if it is not set."""
    name, address = (
        git(place, "config", "--get", key, is_users=True, check=False).output.strip()
        for key in ("user.name", "user.email")
    )
    return f"{name} <{address}>" if name and address else ""


def save_ref(store: Store, ref: str, commit: str, note: str) -> None:
    """Set a ref below ``refs/cowbell`` to a commit, with a one-line note of its origin."""
    repository = open_repository(store)
    tag = f"object {commit}\ntype commit\ntag cowbell\ntagger Cowbell <cowbell> 1000000000 +0000\n\n{note}\n"
    made = git(repository, "mktag", stdin=tag).output
    git(repository, "update-ref", ref, made)


def read_note(store: Store, ref: str) -> str:
    """The note that ``save_ref`` saved, or an empty string."""
    return git(open_repository(store), "for-each-ref", "--format=%(contents:subject)", ref).output


def list_notes(store: Store, prefix: str) -> dict[str, str]:
    """The refs below a prefix that ends in a slash, and their notes."""
    words = ("for-each-ref", "--format=%(refname) %(contents:subject)", prefix)
    listed = git(open_repository(store), *words).output.splitlines()
    return dict(line.split(" ", 1) for line in listed)


def read_version(store: Store, commit: str, tree: str) -> Version:
    """The version in a commit's Makefile; raises ``UsageError`` if there is none."""
    makefile = git(open_repository(store), "cat-file", "blob", f"{commit}:Makefile", check=False).output
    version = parse_version(makefile)
    if not version:
        raise UsageError("is not a kernel tree: its Makefile has no VERSION", where=tree)
    return version


def parse_version(makefile: str) -> Version | None:
    """The version that a kernel's Makefile sets at its top; None if it does not."""
    pattern = r"^(VERSION|PATCHLEVEL|SUBLEVEL)[ \t]*:?=[ \t]*([0-9]{1,6})[ \t]*(?:#.*)?\r?$"
    found = {match[1]: int(match[2]) for match in reversed(list(re.finditer(pattern, makefile, re.M)))}
    if not {"VERSION", "PATCHLEVEL", "SUBLEVEL"} <= found.keys():
        return None
    return Version((found["VERSION"], found["PATCHLEVEL"], found["SUBLEVEL"]))


def export_patches(store: Store, base: str, commit: str) -> bytes | None:
    """The applied series and fixups as an mbox; None if the commits are not in the store."""
    repository = store.path("git", "kernels.git")
    if not repository.is_dir():
        return None
    done = git(repository, "format-patch", "--stdout", "--no-signature", f"{base}..{commit}", check=False)
    return done.output.encode() if done.returncode == 0 and done.output else None


def read_tree_id(store: Store, commit: str) -> str:
    return git(open_repository(store), "rev-parse", f"{commit}^{{tree}}").output


def list_files(store: Store, commit: str) -> str:
    """The files of a commit, in the format of ``git ls-tree``."""
    return git(open_repository(store), "ls-tree", "-r", "--full-tree", commit).output


def export_files(store: Store, listing: str, folder: Path) -> None:
    """Write some files of ``list_files`` to an empty folder."""
    env = {"GIT_INDEX_FILE": str(folder / ".index")}
    repository = open_repository(store)
    git(repository, "update-index", "--index-info", env=env, stdin=f"{listing}\n")
    git(repository, f"--work-tree={folder}", "checkout-index", "-a", f"--prefix={folder}/", env=env)
    (folder / ".index").unlink()


@contextlib.contextmanager
def checkout(source: Source, store: Store) -> Iterator[Path]:
    """The locked worktree at this commit. Only files that differ get a new time stamp."""
    with worktree(store, source.folder) as place:
        move_worktree(place, source.commit)
        # some trees commit what is left of a build, and Kbuild builds nothing elsewhere then
        (place / ".config").unlink(missing_ok=True)
        for left in (place / "include/config", *place.glob("arch/*/include/generated")):
            shutil.rmtree(left, ignore_errors=True)
        yield place


@contextlib.contextmanager
def worktree(store: Store, folder: str) -> Iterator[Path]:
    """The locked worktree of a tree, at any commit."""
    place = store.path(f"{TREES}/{folder}", SOURCE)
    with store.lock(f"worktree-{folder}"):
        if not _clear_remains(store, place):
            _add_worktree(store, place)
        yield place


def move_worktree(place: Path, commit: str) -> None:
    """Check out a commit in a worktree; all changes are discarded."""
    git(place, "checkout", "-q", "--force", "--detach", commit)
    git(place, "clean", "-q", "-ffdx")


def find_git_dir(place: Path) -> Path:
    return Path(git(place, "rev-parse", "--absolute-git-dir").output)


def _clear_remains(store: Store, place: Path) -> bool:
    """Remove lock files of a killed git; returns whether the worktree is usable.

    In a store that was copied or moved, a worktree still refers to the old repository.
    """
    try:
        git_dir = Path((place / ".git").read_text().removeprefix("gitdir:").strip())
    except OSError:
        return False
    if not git_dir.resolve().is_relative_to(open_repository(store).resolve()):
        return False
    for lock in git_dir.glob("*.lock"):
        lock.unlink()
    shutil.rmtree(git_dir / "rebase-apply", ignore_errors=True)
    return git(place, "ls-files", "--error-unmatch", ":/Makefile", check=False).returncode == 0


def _add_worktree(store: Store, place: Path) -> None:
    """Create an empty worktree; replaces the folder."""
    repository = open_repository(store)
    shutil.rmtree(place, ignore_errors=True)
    for made in (repository / "worktrees").glob("*/gitdir"):
        # prune skips a partly created worktree, which is locked
        if made.read_text().strip() in (f"{place}/.git", ""):
            shutil.rmtree(made.parent)
    git(repository, "worktree", "prune")
    commit = git(repository, "commit-tree", "-m", "empty", git(repository, "mktree").output).output
    git(repository, "worktree", "add", "-q", "--no-checkout", "--detach", str(place), commit)
