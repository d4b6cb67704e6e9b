# SPDX-License-Identifier: GPL-2.0-or-later
"""Fetches a commit from a git server into the store's repository.

The commit and its directories are fetched first and then the missing files, some thousands at a time, so that
an interrupted fetch is resumed.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.yamlfile import suggest
from orchestrator.source.repository import Source, find_commit, git, open_repository
from orchestrator.source.tree import GitTree
from orchestrator.store.store import Store

_FILES_A_FETCH = 8192
# search depths for a commit; the last one is the full history
_DEPTHS = (256, 4096, 65536, 2147483647)
# a server that sends nothing for this long counts as unreachable
_STALL_S = 60
_STALL = ("-c", "http.lowSpeedLimit=1", "-c", f"http.lowSpeedTime={_STALL_S}")


def fetch_git(tree: GitTree, store: Store, progress: Progress) -> tuple[str, str]:
    """Fetch from the first mirror that has the commit; returns the commit and the URL."""
    repo = open_repository(store)
    unreachable: list[str] = []
    unknown: list[str] = []
    for url, ref in itertools.product(tree.urls, tree.ref.split()):
        try:
            tip = _find_remote(repo, url, ref)
            if isinstance(tip, str):
                return _fetch_at(repo, url, tip, tree.commit, store, progress), url
            unknown.append(f"{url} has no {ref}{suggest(ref, list(tip))}")
        except UsageError as error:
            unknown.append(f"{url}: {error.what}")
        except InfraError as error:
            if error.where != url:
                # not an error of the mirror, for example a full disk
                raise
            unreachable.append(f"{url}: {error.hint}")
    hint = "\n".join([*unknown, *unreachable])
    if unreachable:
        raise InfraError(f"{tree} cannot be fetched", where=tree.name, hint=hint)
    raise UsageError(f"there is no {tree.commit or tree.ref}", where=tree.name, hint=hint)


def _find_remote(repo: Path, url: str, ref: str) -> str | dict[str, str]:
    """The commit of a ref on a server; if there is no such ref, all branches and tags."""
    if len(ref) == 40 and not ref.strip("0123456789abcdef"):
        return ref
    listed = git(repo, *_STALL, "ls-remote", "-q", url, is_users=True, check=False, limit_s=2 * _STALL_S)
    if listed.returncode:
        raise InfraError("cannot be reached", where=url, hint=find_git_errors(listed))
    refs: dict[str, str] = {}
    for line in listed.output.splitlines():
        commit, _, name = line.partition("\t")
        refs[name] = commit
    for prefix in ("", "refs/", "refs/tags/", "refs/heads/"):
        name = f"{prefix}{ref}"
        if name in refs:
            # an annotated tag is also listed with the commit that it points to
            return refs.get(f"{name}^{{}}", refs[name])
    return {name.removeprefix("refs/").partition("/")[2]: commit for name, commit in refs.items()}


def _fetch_at(repo: Path, url: str, tip: str, commit: str, store: Store, progress: Progress) -> str:
    """Fetch one commit with all files: the tip, or ``commit`` in its history."""
    if not commit:
        fetch_objects(repo, url, tip, store, progress=progress)
        return tip
    for _ in _deepen(repo, url, tip, store):
        found = find_commit(repo, commit)
        if found and is_ancestor(repo, found, tip):
            fetch_objects(repo, url, found, store, progress=progress)
            return found
    raise UsageError(f"{commit} is not in the history of {tip[:12]}", where=url)


def fetch_range(base: Source, tip: Source, store: Store, progress: Progress) -> None:
    """Fetch all commits from ``base`` to ``tip``, two fetched commits of the same git tree.

    Raises ``UsageError`` if ``base`` is not in the history of ``tip``.
    """
    repo = open_repository(store)
    if is_ancestor(repo, base.commit, tip.commit):
        return
    progress.stage("source", f"the commits from {base.tree} to {tip.tree}")
    for _ in _deepen(repo, tip.origin, tip.commit, store):
        if is_ancestor(repo, base.commit, tip.commit):
            _fill(repo, tip.origin, (tip.commit, f"^{base.commit}"), store, progress)
            return
    raise UsageError(f"{base.tree} is not in the history of {tip.tree}", where=tip.origin)


def _deepen(repo: Path, url: str, tip: str, store: Store) -> Iterator[None]:
    """Fetch history without files, deeper in each step; yields after each step."""
    for depth in _DEPTHS:
        _fetch_history(repo, url, tip, depth, store)
        yield


def is_ancestor(repo: Path, old: str, new: str) -> bool:
    """Whether one commit is in the history of another, or the same, as far as the history was fetched."""
    return git(repo, "merge-base", "--is-ancestor", old, new, check=False).returncode == 0


def fetch_objects(repo: Path, url: str, commit: str, store: Store, progress: Progress | None = None) -> None:
    if not is_whole(repo, commit):
        # fetching a known commit with --depth=1 would remove its known history
        if not find_commit(repo, commit):
            _fetch_history(repo, url, commit, 1, store)
        _fill(repo, url, ("--no-walk", commit), store, progress)


def _fetch_history(repo: Path, url: str, commit: str, depth: int, store: Store) -> None:
    with store.lock("git-fetch"):
        _fetch_from(repo, url, f"--depth={depth}", "cowbell", commit)


def _fill(repo: Path, url: str, revs: tuple[str, ...], store: Store, progress: Progress | None) -> None:
    """Fetch the files of commits that the repository lacks."""
    missing = _list_missing(repo, revs)
    for start in range(0, len(missing), _FILES_A_FETCH):
        if progress:
            progress.count(start, len(missing), "files fetched")
        batch = "".join(f"{blob}\n" for blob in missing[start : start + _FILES_A_FETCH])
        with store.lock("git-fetch"):
            _fetch_from(repo, url, "--stdin", "cowbell", stdin=batch)
    if left := _list_missing(repo, revs):
        raise InfraError(
            "did not send all files", where=url, hint=f"{len(left)} are missing, the first is {left[0]}"
        )


def _list_missing(repo: Path, revs: tuple[str, ...]) -> list[str]:
    listed = git(repo, "rev-list", "--objects", "--no-object-names", "--missing=print", *revs).output
    return [line[1:] for line in listed.splitlines() if line.startswith("?")]


def is_whole(repo: Path, commit: str) -> bool:
    return bool(find_commit(repo, commit)) and not _list_missing(repo, ("--no-walk", commit))


def _fetch_from(repo: Path, url: str, *words: str, stdin: str = "") -> None:
    """Fetch without files, except those requested by name.

    The server is configured as promisor remote for this command only, so git never fetches on demand.
    """
    remote = ("url=" + url, "promisor=true", "partialclonefilter=blob:none")
    config = [word for setting in remote for word in ("-c", f"remote.cowbell.{setting}")]
    quiet = ("-q", "--no-tags", "--no-write-fetch-head", "--recurse-submodules=no", "--filter=blob:none")
    done = git(repo, *_STALL, *config, "fetch", *quiet, *words, is_users=True, check=False, stdin=stdin)
    if done.returncode:
        error = command.find_host_error(done, done.output.splitlines())
        raise error or InfraError("fetch failed", where=url, hint=find_git_errors(done))


def find_git_errors(done: command.Completed) -> str:
    lines = [line for line in done.output.splitlines() if line.startswith(("fatal:", "error:", "ssh:"))]
    return "; ".join(lines[:2]) or done.output.strip() or f"git exited with status {done.returncode}"
