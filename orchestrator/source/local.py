# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits the folders of this machine: checkouts as git has them or as they are, and folders without git."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.source import repository
from orchestrator.source.remote import fetch_objects, find_git_errors, is_whole
from orchestrator.source.repository import find_commit, git, open_repository
from orchestrator.source.tree import LocalTree
from orchestrator.store.store import Store


def check_local(tree: LocalTree) -> None:
    """Raise ``UsageError`` if a folder is not a kernel tree, or has object files or uncommitted changes."""
    path = Path(tree.path)
    if not tree.is_checkout:
        if not (path / "Makefile").is_file() or not (path / "Kconfig").is_file():
            raise UsageError(_NO_KERNEL, where=tree.path)
        if (path / ".config").exists() or (path / "include" / "config").exists():
            raise UsageError(
                "contains object files of a build", where=tree.path, hint=f"make -C {path} mrproper"
            )
        return
    if not (head := _find_head(tree)):
        done = git(path, "rev-parse", f"{tree.ref or 'HEAD'}^{{commit}}", check=False, is_users=True)
        if trust := re.search(r"git config --global --add safe\.directory .*", done.output):
            what = "belongs to another user, and git does not read it"
            raise UsageError(what, where=tree.path, hint=f"if you trust it: {trust[0]}")
        raise UsageError(f"has no commit {tree.ref or 'at HEAD'}: {find_git_errors(done)}", where=tree.path)
    words = ("ls-tree", "--name-only", "--full-tree", head, "Makefile", "Kconfig")
    if len(git(path, *words, is_users=True).output.splitlines()) < 2:
        raise UsageError(_NO_KERNEL, where=tree.path)
    is_empty = tree.is_bare or not _find_git_path(path, "index").exists()
    if is_empty and tree.is_dirty:
        what = "no files are checked out there, so there are no uncommitted changes"
        raise UsageError(what, where=f"DIRTY: {tree.path}", hint="leave out DIRTY=1")
    if tree.ref or tree.is_dirty or is_empty:
        return
    status = git(path, "status", "--porcelain", "--untracked-files=no", is_users=True).output.splitlines()
    if changed := [line for line in status if re.match(r"[ MTADRCU]{2} ", line)]:
        raise UsageError(
            f"has {len(changed)} uncommitted change(s): {changed[0].strip()} ...",
            where=tree.path,
            hint="commit them, since HEAD is tested; or use DIRTY=1 to include them",
        )


_NO_KERNEL = "is not a kernel tree: it has no Makefile and Kconfig"


def _find_git_path(place: Path, name: str) -> Path:
    """A file of a repository."""
    words = ("rev-parse", "--path-format=absolute", "--git-path", name)
    return Path(git(place, *words, is_users=True).output)


def find_local_commit(tree: LocalTree, store: Store) -> str:
    """The commit of the current content of a folder; uncommitted content is added to the store."""
    if tree.is_checkout and not tree.is_dirty and not _has_long_ids(tree):
        return _find_head(tree)
    return fetch_local(tree, store)


def has_own_files(tree: LocalTree) -> bool:
    """Whether the files of the folder are read, and not a commit."""
    return tree.is_dirty or not tree.is_checkout


def _find_head(tree: LocalTree) -> str:
    return find_commit(Path(tree.path), tree.ref or "HEAD", is_users=True)


def _has_long_ids(tree: LocalTree) -> bool:
    """Whether a repository has ids of SHA-256, which the store's repository cannot have."""
    words = ("rev-parse", "--show-object-format")
    return git(Path(tree.path), *words, is_users=True).output == "sha256"


def fetch_local(tree: LocalTree, store: Store) -> str:
    """Put the current content of a folder into the store; the commit."""
    repo, path = open_repository(store), Path(tree.path)
    if not tree.is_checkout:
        # check_local has made sure that there are no object files
        return _add_folder(tree, store, "", "--force")
    head = _find_head(tree)
    if _has_long_ids(tree):
        head = _import_commit(tree, head, store)
    elif not is_whole(repo, head):
        fetch_objects(repo, path.as_uri(), head, store)
    return _add_folder(tree, store, head) if tree.is_dirty else head


def _add_folder(tree: LocalTree, store: Store, head: str, *options: str) -> str:
    """Commit the files of a folder. Of a checkout, files that are not checked out are those of ``head``."""
    repo, path = open_repository(store), Path(tree.path)
    index = store.path("index", tree.name)
    own = {"GIT_DIR": str(repo), "GIT_WORK_TREE": tree.path, "GIT_INDEX_FILE": str(index)}
    absent = _list_absent(path) if head else []
    with store.lock(f"index-{tree.name}"), store.scratch(f"index-{tree.name}") as scratch:
        Path(f"{index}.lock").unlink(missing_ok=True)
        if absent:
            index.unlink(missing_ok=True)
        excluded = scratch / "exclude"
        excluded.write_bytes(_read_excludes(path) if head else b"")
        if head:
            # keeps the stat data of unchanged files
            git(repo, "read-tree", "--reset", head, env=own)
        if absent:
            known = set(git(repo, "ls-files", "-z", env=own).output.split("\0"))
            listed = "".join(f"{name}\0" for name in absent if name in known)
            git(repo, "update-index", "--skip-worktree", "-z", "--stdin", env=own, stdin=listed)
        message = f"{tree.path} with uncommitted changes"
        try:
            return commit_files(path, message, *options, excluded=str(excluded), parent=head, **own)
        finally:
            if absent:
                index.unlink(missing_ok=True)


def _list_absent(checkout: Path) -> list[str]:
    """The files that a sparse checkout leaves out."""
    listed = git(checkout, "ls-files", "-t", "-z", is_users=True).output.split("\0")
    return [line[2:] for line in listed if line.startswith("S ") and not os.path.lexists(checkout / line[2:])]


def _read_excludes(checkout: Path) -> bytes:
    """The patterns by which a user keeps files of a checkout out of git, besides those of .gitignore."""
    chosen = git(
        checkout, "config", "--path", "--get", "core.excludesFile", check=False, is_users=True
    ).output
    default = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "git" / "ignore"
    files = (checkout / chosen if chosen else default, _find_git_path(checkout, "info/exclude"))
    return b"\n".join(file.read_bytes() for file in files if file.is_file()) + b"\n"


def _import_commit(tree: LocalTree, head: str, store: Store) -> str:
    """A commit of a repository with other ids, as a commit of the store's repository with the same files."""
    repo, name = open_repository(store), repository.make_folder(tree.name)
    ref = f"refs/cowbell/imported/{head}"
    if known := find_commit(repo, ref):
        return known
    with empty_worktree(store, name) as place, store.scratch(f"import-{name}") as scratch:
        env = {"GIT_INDEX_FILE": str(scratch / "index")}
        git(Path(tree.path), "read-tree", head, env=env)
        words = (f"--work-tree={place}", "checkout-index", "-a", f"--prefix={place}/")
        git(Path(tree.path), *words, env=env)
        commit = commit_files(place, f"{head} of {tree.path}", "--force")
    git(repo, "update-ref", ref, commit)
    return commit


# --- the files of a folder


@contextlib.contextmanager
def empty_worktree(store: Store, name: str) -> Iterator[Path]:
    """The locked worktree of a tree, without files."""
    with repository.worktree(store, name) as place:
        git(place, "read-tree", "--empty")
        for old in place.iterdir():
            if old.name != ".git":
                shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
        yield place


def commit_files(
    place: Path, message: str, *options: str, excluded: str = os.devnull, parent: str = "", **env: str
) -> str:
    """Commit all files of a folder. A threshold of one byte makes git add write a single pack."""
    pack = (
        "-c",
        "core.bigFileThreshold=1",
        "-c",
        "core.compression=1",
        "-c",
        f"core.excludesFile={excluded}",
    )
    git(place, *pack, "add", "--all", *options, ".", env=env)
    listed = git(place, "ls-files", "--stage", "-z", env=env).output.split("\0")
    for link in [line.partition("\t")[2] for line in listed if line.startswith("160000 ")]:
        if (place / link / ".git").exists():
            _add_nested(place, link, pack, is_forced="--force" in options, env=env)
    tree = git(place, "write-tree", env=env).output
    after = ("-p", parent) if parent else ()
    return git(place, "commit-tree", *after, "-m", message, tree, env=env).output


def _add_nested(
    place: Path, link: str, config: Sequence[str], *, is_forced: bool, env: Mapping[str, str]
) -> None:
    """Add the files of a clone inside of the folder, which git takes for a submodule: a commit of its own."""
    found: list[str] = []
    for top, folders, files in os.walk(place / link):
        links = [name for name in folders if Path(top, name).is_symlink()]
        folders[:] = [name for name in folders if name != ".git"]
        found += [str(Path(top, name).relative_to(place)) for name in (*files, *links) if name != ".git"]
    git(place, "update-index", "--force-remove", "-z", "--stdin", env=env, stdin=f"{link}\0")
    if not is_forced and found:
        words = ("check-ignore", "--no-index", "-z", "--stdin")
        done = git(place, *config, *words, env=env, stdin="\0".join(found), check=False)
        found = sorted({*found} - {*done.output.split("\0")})
    if found:
        git(place, *config, "update-index", "--add", "-z", "--stdin", env=env, stdin="\0".join([*found, ""]))
