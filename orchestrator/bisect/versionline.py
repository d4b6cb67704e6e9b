# SPDX-License-Identifier: GPL-2.0-or-later
"""The versions of a Debian tree or of its images as a line of commits, one commit without files per version.

Only the versions that a bisection tests are fetched.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from orchestrator.bisect.line import Line, commit_chain, name_job
from orchestrator.errors import InfraError, UsageError, raise_all
from orchestrator.plan.plan import Declarations, Job
from orchestrator.plan.workspace import Workspace
from orchestrator.source.debian import make_key
from orchestrator.source.fetch import find_fetched
from orchestrator.source.repository import make_folder, open_repository
from orchestrator.source.tree import VERSIONED, DebianImageTree, DebianTree
from orchestrator.source.versions import DebianVersion, complete_version, find_versions

# the suffix of a rebuild for another release, with the same kernel source
_REBUILD = re.compile(r"~(deb|bpo)\d+[+u]\d+$")


def make_version_line(job: Job, good: str, bad: str, declared: Declarations, place: Workspace) -> Line:
    """The versions between two versions that are on the mirror or were fetched, oldest first.

    Raises ``UsageError`` for versions that do not exist, or are the same.
    """
    assert isinstance(job.tree, VERSIONED)
    tree = replace(job.tree, name=make_folder(job.tree.name), version="")
    known = _look_up(tree, good, bad, place)
    old, new = sorted((complete_version(word, known) for word in (good, bad)), key=make_key)
    versions = [old, *choose_between(known, old, new), new]
    git_dir = open_repository(place.store)
    named = dict(zip(commit_chain(git_dir, versions), versions, strict=True))
    commits = list(named)

    def make_job(commit: str) -> Job:
        return name_job(replace(job, tree=tree.at(named[commit])), named[commit])

    def make_diff_command(parent: str, commit: str) -> str:
        if isinstance(tree, DebianImageTree):
            # point releases of one series have their source in the stable tree
            releases = [named[one].partition("-")[0] for one in (parent, commit)]
            return f"git log --oneline v{releases[0]}..v{releases[1]} -- mm (in a clone of the stable tree)"
        found = [find_fetched(tree.at(named[one]), place.store) for one in (parent, commit)]
        words = " ".join(src.commit[:12] for src in found if src)
        return f"git -C {git_dir} diff {words} -- mm"

    names = (tree.at(old).name, tree.at(new).name)
    return Line(
        "version",
        git_dir,
        commits[0],
        commits[-1],
        names,
        declared,
        make_job,
        lambda commit: None,
        make_diff_command,
    )


def _look_up(
    tree: DebianTree | DebianImageTree, good: str, bad: str, place: Workspace
) -> Sequence[DebianVersion]:
    found = find_versions(tree, (good, bad), place.store)
    versions = found.trees[tree.name]
    known = [version.version for version in versions]
    ends = [("GOOD", good), ("BAD", bad)]
    unknown = [(name, word) for name, word in ends if not complete_version(word, versions)]
    if unknown and found.errors:
        error = next(iter(found.errors.values()))
        what = f"{unknown[0][1]} cannot be looked up: {error.what}"
        raise InfraError(what, where=unknown[0][0], hint=error.hint)
    hint = f"known versions: {', '.join(known)}"
    errors = [
        UsageError(f"there is no version {word} of {tree.name}", where=name, hint=hint)
        for name, word in unknown
    ]
    if not errors and len({complete_version(word, versions) for word in (good, bad)}) == 1:
        errors.append(UsageError("are the same version", where="GOOD, BAD"))
    raise_all(errors)
    for error in found.errors.values():
        place.progress.note(f"{tree.name}: {error.what}; using an older list")
    return versions


def choose_between(versions: Sequence[DebianVersion], old: str, new: str) -> list[str]:
    """The versions between two others, oldest first.

    Of a version and its rebuilds for other releases only one is used: a fetched one, or else the original.
    """
    chosen: dict[str, DebianVersion] = {}
    for version in versions:
        original = _REBUILD.sub("", version.version)
        is_between = make_key(old) < make_key(version.version) < make_key(new)
        if not is_between or original in (_REBUILD.sub("", old), _REBUILD.sub("", new)):
            continue
        rival = chosen.get(original)
        if not rival or _rank(version, original) > _rank(rival, original):
            chosen[original] = version
    return sorted((version.version for version in chosen.values()), key=make_key)


def _rank(version: DebianVersion, original: str) -> tuple[bool, bool]:
    return version.is_fetched, version.version == original
