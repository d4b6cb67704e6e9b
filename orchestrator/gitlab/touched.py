# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the jobs whose declarations a commit has changed.

The parsed declarations are compared, not lines of files. Any other change, such as one of Cowbell's code, may
affect all jobs, except for files that are used by neither a kernel nor a guest.
"""

import dataclasses
import fnmatch
import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.inputs import add_names
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.process import command
from orchestrator.project.root import IS_CHECKOUT, SHIPPED
from orchestrator.source.repository import find_commit, git
from orchestrator.store.store import make_id

_DECLARING = (
    "guest-tests", "kconfigs", "patches", "ci/matrix.yaml", "ci/expectations.yaml", "ci/known-splats.yaml",
)  # fmt: skip
# files that are neither built nor run
_IGNORED = ("*.md", "*.rst", "LICENSE*", "COPYING*", ".gitignore", "Documentation/*")
_OWN_IGNORED = ("tests/*", "docs/*")
# fields that are ignored: locations of declarations; the content of a test has an id
_PLACES = ("where", "place", "places", "libs")


def choose_touched(
    jobs: Sequence[Job], declared: Declarations, request: Request, root: Path, since: str
) -> tuple[tuple[Job, ...], str]:
    """The jobs of the rows that have changed since a commit, and the reason.

    ``declared`` has the declarations of all files, with tree and series of the request. Raises ``UsageError``
    if there is no such commit.
    """
    if not since.strip("0"):
        return tuple(jobs), "every row: there is no earlier commit"
    commit = _find_commit(root, since)
    top = Path(git(root, "rev-parse", "--show-toplevel", is_users=True).output)
    changed = git(root, "diff", "--name-only", "-z", commit, "HEAD", is_users=True).output.split("\0")
    ignored = (*_IGNORED, *(_OWN_IGNORED if root == SHIPPED and IS_CHECKOUT else ()))
    if others := list(_list_others(filter(None, changed), root.relative_to(top), ignored)):
        return tuple(jobs), f"every row: {others[0]} has changed"
    before = _identify_before(request, root, commit, top)
    if before is None:
        return tuple(jobs), f"every row: the declarations of {commit[:12]} cannot be read by this version"
    now = _identify_rows(jobs, declared)
    rows = {row for row, identity in now.items() if before.get(row) != identity}
    names = ", ".join(sorted(rows)) or "no row"
    why = f"changed since {commit[:12]}: {names}"
    return tuple(job for job in jobs if job.row.name in rows), why


def _find_commit(root: Path, since: str) -> str:
    if commit := find_commit(root, since, is_users=True):
        return commit
    # missing in a shallow clone; try the server
    git(root, "fetch", "-q", "--depth=1", "origin", since, check=False, is_users=True)
    if commit := find_commit(root, since, is_users=True):
        return commit
    raise UsageError(
        f"there is no commit {since}, neither here nor in origin",
        where="SINCE",
        hint="in a shallow clone of GitLab CI, set GIT_DEPTH: 0",
    )


def _list_others(changed: Iterator[str], root: Path, ignored: Sequence[str]) -> Iterator[str]:
    """Changed files that are not declarations and may affect a kernel or a guest."""
    for name in changed:
        path = Path(name)
        inner = str(path.relative_to(root)) if path.is_relative_to(root) else ""
        is_declaring = inner and any(f"{inner}/".startswith(f"{part}/") for part in _DECLARING)
        if not is_declaring and not any(fnmatch.fnmatch(name, glob) for glob in ignored):
            yield name


def _identify_before(request: Request, root: Path, commit: str, top: Path) -> Mapping[str, str] | None:
    """The ids of the rows as declared in a commit; None if they cannot be read."""
    rel = root.relative_to(top)
    tree = f"{commit}:{'' if rel == Path() else rel}"
    # extract only the declarations, as a kernel tree is large
    parts = {part.partition("/")[0] for part in _DECLARING}
    # run in the top folder, as git resolves paths relative to the current folder
    there = git(top, "ls-tree", "--name-only", tree, check=False, is_users=True).output.splitlines()
    with tempfile.TemporaryDirectory(prefix="cowbell-") as place:
        if found := sorted(parts.intersection(there)):
            archive = Path(place) / "archive.tar"
            git(top, "archive", "--format=tar", f"--output={archive}", tree, *found, is_users=True)
            command.run([command.find_tool("tar", "tar"), "-xf", str(archive), "-C", place])
        old = Path(place).resolve()
        try:
            declared = load_declarations(old, old if root == SHIPPED else SHIPPED)
            declared = add_names(declared, request.tree, request.series)
            rows = tuple(name for name in request.rows or declared.usual_rows if name in declared.rows)
            jobs = make_plan(dataclasses.replace(request, rows=rows), declared) if rows else ()
            identities = _identify_rows(jobs, declared)
        except* UsageError:
            identities = None
        return identities


def _identify_rows(jobs: Sequence[Job], declared: Declarations) -> dict[str, str]:
    """The id of each row: a hash of the declarations of its kernels, guests and tests."""
    common = _identify((declared.fixups, declared.known_splats))
    rows: dict[str, list[object]] = {}
    for job in jobs:
        fragments = [_identify(declared.fragments[name]) for name in job.row.kconfig]
        parts = (job.row, job.variant, job.tree, job.series, job.tests, job.boot)
        rows.setdefault(job.row.name, [common]).append([fragments, *map(_identify, parts)])
    return {row: make_id(parts) for row, parts in rows.items()}


def _identify(value: object) -> object:
    """A declaration as JSON values; files are replaced by a hash of their content."""
    match value:
        case Path():
            return [value.name, hashlib.sha256(value.read_bytes()).hexdigest() if value.is_file() else ""]
        case Mapping():
            return [[str(key), _identify(each)] for key, each in value.items()]
        case str() | int() | float() | None:
            return value
        case tuple() | list():
            return [_identify(each) for each in value]
        case frozenset() | set():
            return sorted(map(str, value))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.name not in _PLACES]
        return [[name, _identify(getattr(value, name))] for name in names]
    return str(value)
