# SPDX-License-Identifier: GPL-2.0-or-later
"""The line of commits that a bisection searches: a tree's history, a series' patches, or config symbols.

For each commit it makes the job that tests the commit, and the job that tests everything but the commit. The
versions of Debian trees are in ``versionline``.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.kernel.fragment import Fragment, SymbolRequest
from orchestrator.kernel.kconfig import make_config
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.products import apply_job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Condition
from orchestrator.project.matrix import Variant
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.mail import make_mail
from orchestrator.source.remote import fetch_range, is_ancestor
from orchestrator.source.repository import Source, find_commit, git, make_folder, open_repository
from orchestrator.source.series import Series, find_series
from orchestrator.source.tree import GitTree, LocalTree, find_tree
from orchestrator.store.name import make_name
from orchestrator.store.store import make_id

# kinds of lines whose commits have no files
SYMBOLIC = ("symbol", "version")


@dataclass(frozen=True, slots=True)
class Line:
    """The commits from ``old`` to ``new``, in a git directory.

    ``kind`` is the kind of a commit, ``names`` are the user's names of the ends. ``make_job`` makes the job
    of a commit, ``leave_out`` the job of the new end without it, or None if that is not possible.
    ``make_diff_command`` returns the command that shows the changes of a commit if ``git show`` cannot.
    """

    kind: str
    git_dir: Path
    old: str
    new: str
    names: tuple[str, str]
    declared: Declarations
    make_job: Callable[[str], Job]
    leave_out: Callable[[str], Job | None]
    make_diff_command: Callable[[str, str], str] = lambda parent, commit: ""

    @property
    def is_symbolic(self) -> bool:
        """Whether the commits have no files and their ids mean nothing to users."""
        return self.kind in SYMBOLIC

    def count(self, paths: Sequence[str]) -> int:
        """The number of candidate commits."""
        return int(git(self.git_dir, "rev-list", "--count", self.new, f"^{self.old}", "--", *paths).output)

    def describe(self, commit: str) -> str:
        return git(self.git_dir, "log", "-1", "--format=%s", commit).output


def name_job(job: Job, variant: str) -> Job:
    """The job with another variant name and without the expectations of its row."""
    return replace(job, variant=Variant(make_name(variant), job.series.name, ()))


# --- a tree's history


def make_history_line(job: Job, ends: tuple[str, str], declared: Declarations, place: Workspace) -> Line:
    """From one rev of the job's tree to another, the older one first.

    Raises ``UsageError`` for a tree that is not a git tree, unknown revs, revs in the wrong order or of the
    same commit, and revs without a common history.
    """
    tree = job.tree
    if isinstance(tree, LocalTree) and tree.is_checkout:
        git_dir, (old, new) = _find_local(Path(tree.path), ends)
        _check_order(git_dir, old, new, ends)
        word = make_folder(tree.name) if make_folder(tree.name) in declared.trees else tree.path
    elif isinstance(tree, GitTree):
        word = make_folder(tree.name)
        base, tip = (_fetch_end(word, rev, declared, place) for rev in ends)
        git_dir, old, new = open_repository(place.store), base.commit, tip.commit
        _check_order(git_dir, old, new, ends)
        fetch_range(base, tip, place.store, place.progress)
    else:
        raise UsageError(
            f"{tree.name} is not a git tree, so it has no history",
            where="KERNEL",
            hint="SERIES= bisects a series",
        )

    def make_job(commit: str) -> Job:
        tree = find_tree(f"{word}:{commit}", declared.trees)
        short = replace(tree, name=f"{make_folder(tree.name)}:{commit[:12]}")
        return name_job(replace(job, tree=short), commit[:12])

    def leave_out(commit: str) -> Job | None:
        parents = git(git_dir, "rev-list", "--parents", "-n1", commit).output.split()[1:]
        if len(parents) != 1 or commit == new:
            return None
        revert = _make_revert(git_dir, commit, place)
        series = replace(job.series, name=revert.name, patches=(*revert.patches, *job.series.patches))
        return name_job(replace(make_job(new), series=series), f"without-{commit[:12]}")

    return Line("commit", git_dir, old, new, ends, declared, make_job, leave_out)


def _check_order(git_dir: Path, old: str, new: str, ends: tuple[str, str]) -> None:
    """Raise ``UsageError`` if there is nothing between the ends, which the user may have swapped."""
    if old == new:
        raise UsageError(f"are the same commit, {old[:12]}", where="GOOD, BAD")
    if is_ancestor(git_dir, new, old):
        raise UsageError(
            f"are in the wrong order: {ends[1]} is older than {ends[0]}",
            where="GOOD, BAD",
            hint="GOOD= is the older one; with FIND=fix, which finds the commit that fixed the test, BAD= is",
        )


def _find_local(place: Path, ends: tuple[str, str]) -> tuple[Path, list[str]]:
    """The git directory of a user's checkout and the commits of its revs. Read-only."""
    commits = [find_commit(place, rev, is_users=True) for rev in ends]
    raise_all(
        [
            UsageError(f"has no {rev}", where=str(place))
            for rev, commit in zip(ends, commits, strict=True)
            if not commit
        ]
    )
    git_dir = git(place, "rev-parse", "--path-format=absolute", "--git-common-dir", is_users=True).output
    return Path(git_dir), commits


def _fetch_end(word: str, rev: str, declared: Declarations, place: Workspace) -> Source:
    return fetch_tree(find_tree(f"{word}:{rev}", declared.trees), place.store, place.progress)


def _make_revert(git_dir: Path, commit: str, place: Workspace) -> Series:
    """A series of one patch that reverts a commit."""
    diff = git(git_dir, "diff", "--binary", "--full-index", commit, f"{commit}^").output
    name = f"revert-{commit[:12]}"
    with place.store.scratch(name) as scratch:
        path = scratch / f"{name}.patch"
        path.write_bytes(make_mail(f"{diff}\n".encode(), f"Revert {commit[:12]}"))
        return replace(find_series(path, place.store), name=name)


# --- a series' patches


def make_series_line(job: Job, declared: Declarations, place: Workspace) -> Line:
    """From the tree without the job's series to all of it, patch by patch; raises as ``apply_series``.

    Raises ``UsageError`` if no patch of the series is for the tree.
    """
    base = fetch_tree(job.tree, place.store, place.progress)
    patches = tuple(patch for patch in job.series.patches if patch.choose(base.version))
    if not patches:
        what = f"{job.series.name} has no patch for {job.tree.name} ({base.version})"
        raise UsageError(what, where="SERIES", hint="KERNEL= names another tree")
    job = replace(job, series=replace(job.series, patches=patches))
    src = apply_job(job, base, declared, place)
    number = len(patches)
    git_dir = open_repository(place.store)
    listed = git(git_dir, "rev-list", "--reverse", f"-n{number}", src.commit).output.split()
    old = git(git_dir, "rev-parse", f"{listed[0]}^").output
    places = {commit: i for i, commit in enumerate([old, *listed])}

    def make_job(commit: str) -> Job:
        return make_prefix(job, places[commit])

    def leave_out(commit: str) -> Job | None:
        at = places[commit] - 1
        if number == 1 or at == number - 1:
            return None
        patches = job.series.patches[:at] + job.series.patches[at + 1 :]
        series = replace(job.series, patches=patches)
        return name_job(replace(job, series=series), f"without-{at + 1:02}-of-{number:02}")

    names = (f"{job.tree.name} without {job.series.name}", f"{job.tree.name} with {job.series.name}")
    return Line("patch", git_dir, old, src.commit, names, declared, make_job, leave_out)


def make_prefix(job: Job, number: int) -> Job:
    """The job with only the first patches of its series."""
    patches = job.series.patches[:number]
    variant = f"{job.series.name}-{number:02}-of-{len(job.series.patches):02}"
    return name_job(
        replace(job, series=replace(job.series, patches=patches) if patches else Series()), variant
    )


# --- the symbols between two configs

_Requests = Mapping[str, SymbolRequest | None]


def make_config_line(
    job: Job, good: Sequence[str], bad: Sequence[str], declared: Declarations, place: Workspace
) -> Line:
    """From the fragments of one config to those of another, symbol by symbol.

    In between, a symbol whose dependencies are missing is dropped without an error.
    """
    base = fetch_tree(job.tree, place.store, place.progress)
    arch = ARCHES[job.row.arch]
    configs = [make_config(names, declared.fragments, arch, base.version) for names in (good, bad)]
    requested: list[_Requests] = [
        {request.symbol: request for request in config.requests} for config in configs
    ]
    appends = [config.append for config in configs]
    changes = list(_list_changes(*requested))
    if appends[0] != appends[1]:
        changes.append(_APPEND)
    if not changes:
        raise UsageError("request the same symbols", where="CONFIG_GOOD, CONFIG_BAD")

    family = make_id(*(config.config_id for config in configs))

    def make_fragment(name: str, changed: Sequence[str], *, is_end: bool) -> Fragment:
        union = dict.fromkeys([*requested[1], *requested[0]])
        wanted = [requested[symbol not in changes or symbol in changed].get(symbol) for symbol in union]
        requests = (request for request in wanted if request)
        return Fragment(
            name,
            "some symbols of one config and the rest of another",
            Condition(),
            tuple(
                replace(one, is_optional=one.is_optional or not is_end, only=Condition()) for one in requests
            ),
            appends[_APPEND not in changes or _APPEND in changed],
            frozenset(),
            family,
        )

    number = len(changes)
    made = {
        f"symbols-{i:03}": make_fragment(f"symbols-{i:03}", changes[:i], is_end=i in (0, number))
        for i in range(number + 1)
    }
    made |= {
        f"without-{symbol}": make_fragment(
            f"without-{symbol}", [one for one in changes if one != symbol], is_end=False
        )
        for symbol in changes
    }
    git_dir = open_repository(place.store)
    messages = [f"{symbol}: {_describe_change(symbol, requested, appends)}" for symbol in changes]
    commits = list(commit_chain(git_dir, [f"{' '.join(good)}", *messages]))
    places = {commit: i for i, commit in enumerate(commits)}

    def use(fragment: str) -> Job:
        return name_job(replace(job, row=replace(job.row, kconfig=(fragment,))), fragment)

    def leave_out(commit: str) -> Job | None:
        at = places[commit] - 1
        return None if at == number - 1 else use(f"without-{changes[at]}")

    return Line(
        "symbol",
        git_dir,
        commits[0],
        commits[-1],
        (f"CONFIG_GOOD={','.join(good)}", f"CONFIG_BAD={','.join(bad)}"),
        replace(declared, fragments={**declared.fragments, **made}),
        lambda commit: use(f"symbols-{places[commit]:03}"),
        leave_out,
    )


# stands for the kernel command line, which is not a symbol
_APPEND = "append"


def _list_changes(good: _Requests, bad: _Requests) -> Iterator[str]:
    """The symbols that differ, in the order of the fragments: dependencies come first."""
    for symbol in dict.fromkeys([*bad, *good]):
        one, other = good.get(symbol), bad.get(symbol)
        if (one and one.value) != (other and other.value):
            yield symbol


def _describe_change(symbol: str, requested: Sequence[_Requests], appends: Sequence[str]) -> str:
    if symbol == _APPEND:
        return f"{appends[0] or '-'} becomes {appends[1] or '-'}"
    values = [request.value if (request := each.get(symbol)) else "not requested" for each in requested]
    return f"{values[0]} becomes {values[1]}"


def commit_chain(git_dir: Path, messages: Sequence[str]) -> Iterator[str]:
    """A commit per message, each the parent of the next; the same messages give the same commits."""
    tree = git(git_dir, "mktree").output
    parent: list[str] = []
    for message in messages:
        commit = git(
            git_dir, "commit-tree", *itertools.chain(*(("-p", one) for one in parent)), "-m", message, tree
        ).output
        parent = [commit]
        yield commit
