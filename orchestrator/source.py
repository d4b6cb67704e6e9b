# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernel trees and patch series in, a commit ready to build out.

Every tree becomes a commit of one bare repository in the store. A series is applied whole or not at all, in
the store's own worktree, and never in a checkout of the user's.
"""

import contextlib
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator import command, debian
from orchestrator import document as doc
from orchestrator.condition import Condition, Version
from orchestrator.errors import InfraError, StageFailure, UsageError, raise_all
from orchestrator.progress import Progress
from orchestrator.store import Store, make_id, make_tree_id

_ENV = {
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "Cowbell",
    "GIT_AUTHOR_EMAIL": "cowbell",
    "GIT_AUTHOR_DATE": "1000000000 +0000",
    "GIT_COMMITTER_NAME": "Cowbell",
    "GIT_COMMITTER_EMAIL": "cowbell",
    "GIT_COMMITTER_DATE": "1000000000 +0000",
}
# package, archive, files and the pack that git makes of them
_NEEDED_MIB = 3072


@dataclass(frozen=True, slots=True)
class DebianTree:
    """A kernel from a Debian package with its source, and the suite that has it."""

    name: str
    package: str
    suite: str

    def __str__(self) -> str:
        return f"{self.package} from {self.suite}"


@dataclass(frozen=True, slots=True)
class GitTree:
    """A kernel from a ref of a git repository; mirrors are tried in order.

    ``commit`` is the one it must be, when it is known beforehand.
    """

    name: str
    urls: tuple[str, ...]
    ref: str
    commit: str = ""

    def __str__(self) -> str:
        return f"{self.ref} of {self.urls[0]}"


Tree = DebianTree | GitTree


@dataclass(frozen=True, slots=True)
class Series:
    """Ordered patches. ``content_id`` is empty for no series at all."""

    name: str = ""
    when: Condition = Condition()
    patches: tuple[Path, ...] = ()
    content_id: str = ""


@dataclass(frozen=True, slots=True)
class Source:
    """A commit in the store's repository. ``base`` is the tree's commit, before any series."""

    source_id: str
    tree: str
    series: str
    version: Version
    base: str
    commit: str
    tree_id: str


def load_trees(file: Path) -> dict[str, Tree]:
    """Trees by name; raises ``UsageError`` for each thing wrong with the file, all at once."""
    text = doc.scalar(doc.text)
    keys: dict[str, doc.Shape[Any]] = {
        "debian": text,
        "suite": text,
        "git": doc.list_of(text),
        "ref": text,
    }
    entry = doc.record(lambda place, **values: values, {}, keys)
    shape = doc.record(lambda place, trees: trees, {"trees": doc.mapping_of(entry)})
    trees: dict[str, Tree] = {}
    errors: list[UsageError] = []
    for name, values in doc.load_document(file, shape).items():
        match values:
            case {"debian": package, "suite": suite, **rest} if not rest:
                trees[name] = DebianTree(name, package, suite)
            case {"git": [_, *_] as urls, "ref": ref, **rest} if not rest:
                trees[name] = GitTree(name, tuple(urls), ref)
            case _:
                what = "expected {debian: PACKAGE, suite: SUITE} or {git: [URL, MIRROR...], ref: REF}"
                errors.append(UsageError(what, where=f"{file}: trees.{name}"))
    raise_all(errors)
    return trees


def find_local_tree(path: Path) -> GitTree:
    """The tree of a user's own checkout, at its HEAD; nothing in it is touched.

    Raises ``UsageError`` when it is no git checkout of a kernel, or has changes that are not committed.
    """
    where = str(path)
    if not (path / "Makefile").is_file() or not (path / "Kconfig").is_file():
        raise UsageError("is no kernel tree: it has no Makefile and Kconfig", where=where)
    head = _git(path, "rev-parse", "--verify", "HEAD", check=False)
    if head.returncode:
        hint = f"git -C {path} init, add and commit make it one"
        raise UsageError(f"is no git checkout: {head.output}", where=where, hint=hint)
    changed = _git(path, "status", "--porcelain", "--untracked-files=no").output.splitlines()
    if changed:
        raise UsageError(
            f"has {len(changed)} change(s) that are not committed: {changed[0].strip()} ...",
            where=where,
            hint="commit them; what is tested is HEAD",
        )
    top = path.resolve()
    return GitTree(f"{top.name}-{make_id(str(top))[:6]}", (top.as_uri(),), "HEAD", head.output)


def load_series(folder: Path) -> Series:
    """A quilt ``series`` file, its patches, and ``series.yaml`` which says what they are for."""
    text = doc.scalar(doc.text)
    patch = doc.record(
        lambda place, file, flips=None: (place, file), {"file": text}, {"flips": doc.mapping_of(text)}
    )
    claimed = doc.load_document(
        folder / "series.yaml",
        doc.record(
            lambda place, title, when, patches: (when, patches),
            {"title": text, "when": doc.condition, "patches": doc.list_of(patch)},
        ),
    )
    listing = folder / "series"
    if not listing.is_file():
        raise UsageError("has no series file (one patch name a line)", where=str(folder))
    names = [
        (number, line.split("#")[0].strip())
        for number, line in enumerate(listing.read_text().splitlines(), 1)
        if line.split("#")[0].strip()
    ]
    raise_all(
        [
            *(
                UsageError(f"{name} does not exist", where=f"{listing}:{number}")
                for number, name in names
                if not (folder / name).is_file()
            ),
            *(
                UsageError(f"{file} is not in {listing.name}", where=str(place))
                for place, file in claimed[1]
                if file not in dict((name, number) for number, name in names)
            ),
            *([] if names else [UsageError("lists no patch", where=str(listing))]),
        ]
    )
    patches = tuple(folder / name for _, name in names)
    content_id = make_tree_id({f"{i} {patch.name}": patch for i, patch in enumerate(patches)})
    return Series(folder.name, claimed[0], patches, content_id)


def fetch_tree(tree: Tree, store: Store, progress: Progress, *, redo: bool = False) -> Source:
    """The tree's commit: what an earlier run fetched, or (first time, ``redo``) the newest there is.

    Raises ``InfraError`` when it can not be had, ``UsageError`` when it is no kernel.
    """
    known = find_tree(tree, store)
    if redo or not known:
        store.check_space(_NEEDED_MIB, "a kernel tree")
        progress.stage("source", f"{tree.name}: {tree}")
        match tree:
            case DebianTree():
                _fetch_debian(tree, store)
            case GitTree():
                _fetch_git(tree, store, progress)
        known = find_tree(tree, store)
        if not known:
            raise InfraError(f"has moved on from {tree} while it was fetched", where=tree.name)
    return known


def find_tree(tree: Tree, store: Store) -> Source | None:
    """The tree's commit as it was fetched last."""
    commit = _find_commit(store, _tree_ref(tree))
    if not commit or (isinstance(tree, GitTree) and tree.commit not in ("", commit)):
        return None
    return _describe(store, tree.name, "", commit, commit, make_id(commit))


def _fetch_debian(tree: DebianTree, store: Store) -> None:
    with store.scratch(f"fetch-{tree.name}") as scratch:
        package = debian.download_package(store, tree.package, tree.suite, scratch)
        command.run([command.find_tool("dpkg-deb", "dpkg"), "-x", str(package), str(scratch)])
        archive = next(scratch.glob(f"usr/src/{tree.package}.tar.*"), None)
        if archive is None:
            raise InfraError(f"{package.name} holds no usr/src/{tree.package}.tar.*", where=tree.name)
        with worktree(store, tree.name) as place:
            _import_archive(archive, place, _tree_ref(tree), f"{tree.name}: {package.stem}")


def _fetch_git(tree: GitTree, store: Store, progress: Progress) -> None:
    """Fetch one commit, without its history, from the first mirror that has it."""
    repository = _repository(store)
    failures: list[str] = []
    for url in tree.urls:
        fetch = ["fetch", "-q", "--depth=1", "--no-tags", url, f"+{tree.ref}:{_tree_ref(tree)}"]
        with store.lock("git-fetch"):
            done = _git(repository, *fetch, check=False)
        if done.returncode == 0:
            progress.note(f"{tree.name}: from {url}")
            return
        failures.append(f"{url}: {done.output.splitlines()[-1] if done.output else 'no word'}")
    raise InfraError(f"{tree.ref} can not be fetched", where=tree.name, hint="\n  ".join(failures))


def apply_series(base: Source, series: Series, store: Store, progress: Progress) -> Source:
    """The base with every patch of the series as a commit.

    Raises ``StageFailure`` naming patch, file and line when one does not apply; nothing is kept then.
    """
    known = find_source(base, series, store)
    if not known:
        progress.stage("source", f"{base.tree}: {series.name}, {len(series.patches)} patch(es)")
        with worktree(store, base.tree) as place:
            _checkout(place, base.commit)
            done = _git(place, "am", "--3way", "--no-gpg-sign", *map(str, series.patches), check=False)
            if done.returncode:
                raise _explain_reject(place, series, base, done.output)
            _git(place, "update-ref", _source_ref(base, series), "HEAD")
        known = find_source(base, series, store)
        assert known
    return known


def find_source(base: Source, series: Series, store: Store) -> Source | None:
    """What an earlier ``apply_series`` made."""
    if not series.patches:
        return base
    commit = _find_commit(store, _source_ref(base, series))
    if not commit:
        return None
    return _describe(store, base.tree, series.name, base.commit, commit, _make_source_id(base, series))


def _make_source_id(base: Source, series: Series) -> str:
    return make_id(base.commit, series.content_id)


def _source_ref(base: Source, series: Series) -> str:
    return f"refs/cowbell/sources/{_make_source_id(base, series)}"


def _tree_ref(tree: Tree) -> str:
    return f"refs/cowbell/trees/{tree.name}"


@contextlib.contextmanager
def checkout(source: Source, store: Store) -> Iterator[Path]:
    """The worktree at this commit, ours alone meanwhile. Only files that differ get a new time stamp."""
    with worktree(store, source.tree) as place:
        _checkout(place, source.commit)
        yield place


@contextlib.contextmanager
def worktree(store: Store, tree: str) -> Iterator[Path]:
    """A tree's worktree, whatever it holds, under its lock."""
    place = store.path("worktrees", tree)
    with store.lock(f"worktree-{tree}"):
        if not _clear_remains(place):
            _add_worktree(store, place)
        yield place


def _clear_remains(place: Path) -> bool:
    """Clear what a killed git left in a worktree; whether git takes it now."""
    try:
        git_dir = Path((place / ".git").read_text().removeprefix("gitdir:").strip())
    except OSError:
        return False
    for lock in git_dir.glob("*.lock"):
        lock.unlink()
    shutil.rmtree(git_dir / "rebase-apply", ignore_errors=True)
    return _git(place, "ls-files", "--error-unmatch", ":/Makefile", check=False).returncode == 0


def _add_worktree(store: Store, place: Path) -> None:
    """Make a worktree of no files, in place of whatever is there."""
    repository = _repository(store)
    shutil.rmtree(place, ignore_errors=True)
    # a half-made one is locked, and prune passes over it
    shutil.rmtree(repository / "worktrees" / place.name, ignore_errors=True)
    _git(repository, "worktree", "prune")
    commit = _git(repository, "commit-tree", "-m", "empty", _git(repository, "mktree").output).output
    _git(repository, "worktree", "add", "-q", "--no-checkout", "--detach", str(place), commit)


def _repository(store: Store) -> Path:
    def fill(folder: Path) -> None:
        _git(folder, "init", "-q", "--bare", ".")
        _git(folder, "config", "gc.auto", "0")

    return store.publish("git", "kernels.git", fill)


def _import_archive(archive: Path, place: Path, ref: str, message: str) -> None:
    """Commit the content of a source archive. A threshold of one byte makes git add write a single pack."""
    _git(place, "read-tree", "--empty")
    for old in place.iterdir():
        if old.name != ".git":
            shutil.rmtree(old) if old.is_dir() and not old.is_symlink() else old.unlink()
    tar = command.find_tool("tar", "tar")
    command.run([tar, "-xf", str(archive), "-C", str(place), "--strip-components=1", "--no-same-owner"])
    pack = ("-c", "core.bigFileThreshold=1", "-c", "core.compression=1")
    _git(place, *pack, "add", "--all", "--force", ".")
    tree = _git(place, "write-tree").output
    commit = _git(place, "commit-tree", "-m", message, tree).output
    _git(place, "update-ref", "--no-deref", "HEAD", commit)
    _git(place, "update-ref", ref, commit)


def _checkout(place: Path, commit: str) -> None:
    """Take the worktree to a commit, whatever is in it."""
    _git(place, "checkout", "-q", "--force", "--detach", commit)
    _git(place, "clean", "-q", "-ffdx")


def _find_commit(store: Store, ref: str) -> str:
    """The commit a ref names, or an empty string."""
    done = _git(_repository(store), "rev-parse", "-q", "--verify", f"{ref}^{{commit}}", check=False)
    return done.output if done.returncode == 0 else ""


def _describe(store: Store, tree: str, series: str, base: str, commit: str, source_id: str) -> Source:
    repository = _repository(store)
    tree_id = _git(repository, "rev-parse", f"{commit}^{{tree}}").output
    makefile = _git(repository, "show", f"{commit}:Makefile").output
    numbers = dict(re.findall(r"^(VERSION|PATCHLEVEL|SUBLEVEL) *= *(\d+)$", makefile, re.M))
    try:
        version = Version.parse(".".join(numbers[key] for key in ("VERSION", "PATCHLEVEL", "SUBLEVEL")))
    except KeyError:
        raise UsageError("is not a kernel tree: Makefile states no VERSION", where=tree) from None
    return Source(source_id, tree, series, version, base, commit, tree_id)


def _explain_reject(place: Path, series: Series, base: Source, said: str) -> StageFailure:
    """Which patch git am stopped at, and where in the tree; takes the worktree out of the am.

    A three-way am says no line, so the patch is tried once more by itself.
    """
    git_dir = Path(_git(place, "rev-parse", "--absolute-git-dir").output)
    stopped_at = git_dir / "rebase-apply" / "next"
    patch = series.patches[int(stopped_at.read_text()) - 1 if stopped_at.exists() else 0]
    _git(place, "reset", "-q", "--hard")
    check = _git(place, "apply", "--check", str(patch), check=False).output
    _git(place, "am", "--abort", check=False)
    where = re.search(r"^error: patch failed: (\S+:\d+)", check, re.M)
    return StageFailure(
        "source",
        f"{patch.name} does not apply to {base.tree} ({base.version})",
        where=where[1] if where else "",
        hint="what git said:\n"
        + "\n".join(f"    {line}" for line in (said + "\n" + check).splitlines()[-12:]),
    )


def _git(place: Path, *words: str, check: bool = True) -> command.Completed:
    git = command.find_tool("git", "git")
    try:
        return command.run([git, *words], cwd=place, env=_ENV, check=check)
    except InfraError as error:
        raise InfraError(f"git {words[0]} failed", where=str(place), hint=error.hint) from error
