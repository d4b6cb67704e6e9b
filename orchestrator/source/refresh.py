# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens a series as commits of a worktree for editing with git, and writes it back as patches.

The same commits give identical files, so a series that was not edited does not change. Opening a series never
overwrites edits.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import StageFailure, UsageError, raise_all
from orchestrator.project.condition import Version
from orchestrator.source.apply import AM
from orchestrator.source.patch import check_patch, export_commit, make_mail, read_subject
from orchestrator.source.repository import (
    Source,
    find_commit,
    find_git_dir,
    git,
    open_repository,
    read_note,
    read_version,
    save_ref,
)
from orchestrator.source.series import Patch, Series
from orchestrator.store.store import Store, convert_disk_errors, make_id, write_atomic


@dataclass(frozen=True, slots=True)
class Worktree:
    """An open series: its worktree, and the ref of the commit below its patches."""

    place: Path
    branch: str
    base_ref: str


def find_worktree(series: str, kernel: str, place: Path | None, store: Store) -> Worktree:
    """The worktree of a series on a tree: ``place``, or a folder of the store."""
    branch = re.sub(r"[^\w.-]+", "-", f"{series}-on-{kernel}").strip("-.")
    if place:
        branch += f"-{make_id(str(place.resolve()))[:6]}"
    return Worktree((place or store.path("edit", branch)).resolve(), branch, f"refs/cowbell/edit/{branch}")


def open_worktree(base: Source, series: Series, opened: Worktree, store: Store) -> bool:
    """Make the worktree with a commit per patch; returns whether it is new. An existing one is not changed.

    Raises ``StageFailure`` if a patch does not apply: git am stops there and can be continued.
    """
    if (opened.place / ".git").exists():
        return False
    if opened.place.exists() and any(opened.place.iterdir()):
        raise UsageError(
            "exists already with other content",
            where=str(opened.place),
            hint="choose another folder with DIR=",
        )
    repository = open_repository(store)
    git(repository, "worktree", "prune")
    git(repository, "worktree", "add", "-q", "-B", opened.branch, str(opened.place), base.commit)
    save_ref(store, opened.base_ref, base.commit, f"{series.name} on {base.tree}")
    files = series.choose(base.version)
    with store.scratch(f"am-{opened.branch}") as scratch:
        mails = []
        for number, path in enumerate(files):
            mails.append(scratch / f"{number:04}")
            mails[-1].write_bytes(make_mail(path.read_bytes(), path.stem))
        done = git(opened.place, *AM, *map(str, mails), check=False)
    if done.returncode:
        stopped = find_git_dir(opened.place) / "rebase-apply" / "next"
        at = int(stopped.read_text()) if stopped.exists() else 1
        raise StageFailure(
            "source",
            f"{files[at - 1].name} does not apply to {base.tree} ({base.version}); git am stopped there",
            where=str(opened.place),
            hint="resolve the conflict there, then: git add ...; git am --continue; cowbell refresh\n"
            + "\n".join(f"    {line}" for line in done.output.splitlines()[-8:]),
        )
    return True


def refresh_series(
    folder: Path, series: Series, opened: Worktree, store: Store, *, is_dry: bool = False
) -> list[Path]:
    """Write the worktree's commits to the series; returns the files that were changed or removed
    (``is_dry``: would be).

    Raises ``UsageError`` if a git operation is in progress or changes are uncommitted. ``series.yaml`` keeps
    the entry of a patch as long as a commit has its title.
    """
    base = find_commit(open_repository(store), opened.base_ref)
    if not base or not (opened.place / ".git").exists():
        what = f"no worktree of {folder.name} is open"
        raise UsageError(
            what, where=str(opened.place), hint=f"cowbell worktree SERIES={folder.name} KERNEL=..."
        )
    foreign = [patch for patch in series.patches if patch.path.resolve().parent != folder.resolve()]
    raise_all(
        [
            UsageError("belongs to another folder: edit that series", where=str(patch.path))
            for patch in foreign
        ]
    )
    commits = _list_commits(opened.place, base)
    version = read_version(store, base, read_note(store, opened.base_ref))
    with store.scratch(f"refresh-{opened.branch}") as scratch:
        exported = [export_commit(opened.place, commit, scratch, i) for i, commit in enumerate(commits, 1)]
        raise_all([error for path in exported for error in check_patch(path)])
        made_of = dict(zip(exported, commits, strict=True))

        def is_same(path: Path, old: Path) -> bool:
            return _is_same(opened.place, made_of[path], path, old, scratch / "index")

        wanted = _place_files(exported, series, folder, version, is_same)
    return _write_changes(folder, series, wanted, is_dry=is_dry)


def _list_commits(place: Path, base: str) -> list[str]:
    git_dir = find_git_dir(place)
    errors = [
        UsageError(f"git {verb} is in progress", where=str(place), hint=f"git {verb} --continue, or --abort")
        for folder, verb in (("rebase-apply", "am"), ("rebase-merge", "rebase"))
        if (git_dir / folder).is_dir()
    ]
    if changed := git(place, "status", "--porcelain", "--untracked-files=no").output.splitlines():
        what = f"has {len(changed)} uncommitted change(s): {changed[0].strip()} ..."
        errors.append(
            UsageError(
                what, where=str(place), hint="put them into a patch by git commit --amend or git rebase -i"
            )
        )
    if git(place, "merge-base", "--is-ancestor", base, "HEAD", check=False).returncode:
        errors.append(UsageError(f"is no longer based on {base[:12]}", where=str(place)))
    raise_all(errors)
    listed = git(place, "rev-list", "--reverse", "--parents", f"{base}..HEAD").output.splitlines()
    for line in listed:
        if len(line.split()) > 2:
            errors.append(
                UsageError(f"{line[:12]} is a merge, which a patch cannot express", where=str(place))
            )
    if not listed:
        errors.append(UsageError("has no commit above its base", where=str(place)))
    raise_all(errors)
    return [line.split()[0] for line in listed]


def _place_files(
    exported: Sequence[Path],
    series: Series,
    folder: Path,
    version: Version,
    is_same: Callable[[Path, Path], bool],
) -> dict[Path, tuple[str, bytes]]:
    """The files of the new series, each with its old file name, if any, and its content."""
    wanted: dict[Path, tuple[str, bytes]] = {}
    for number, (path, known) in enumerate(_merge(exported, series, version), 1):
        made = folder / re.sub(r"^\d+", f"{number:04}", path.name)
        data = path.read_bytes()
        if not known:
            wanted[made] = ("", data)
            continue
        chosen = known.choose(version)
        for file in dict.fromkeys([known.path, *(backport.path for backport in known.backports)]):
            renamed = made if file == known.path else folder / _rename(file.name, known, made)
            old = file.read_bytes()
            # different line numbers or less context are not an edit
            is_edited = chosen and chosen.path == file and not is_same(path, file)
            wanted[renamed] = (file.name, data if is_edited else old)
    return wanted


def _merge(exported: Sequence[Path], series: Series, version: Version) -> list[tuple[Path, Patch | None]]:
    """The new series with the old patches; patches for other kernels stay after their predecessor."""
    old = {patch.subject: patch for patch in series.patches}
    merged: list[tuple[Path, Patch | None]] = [(path, old.get(read_subject(path))) for path in exported]
    before: list[Patch] = []
    for patch in series.patches:
        if not patch.choose(version):
            places = [i for i, (_, known) in enumerate(merged, 1) if known in before]
            merged.insert(max(places, default=0), (patch.path, patch))
        before.append(patch)
    return merged


def _is_same(place: Path, commit: str, made: Path, old: Path, index: Path) -> bool:
    """Whether ``old`` gives the same commit as ``made``; the context of hunks is ignored."""
    new_mail, old_mail = _strip(made.read_bytes()), _strip(old.read_bytes())
    if new_mail == old_mail:
        return True
    if new_mail.split(b"\n---\n")[0] != old_mail.split(b"\n---\n")[0]:
        return False
    if new_mail.count(b"\nindex\n") != old_mail.count(b"\nindex\n"):
        return False  # a three-way merge needs the index lines
    env = {"GIT_INDEX_FILE": str(index)}
    git(place, "read-tree", f"{commit}^", env=env)
    if git(place, "apply", "--cached", str(old.resolve()), env=env, check=False).returncode:
        return False
    return git(place, "write-tree", env=env).output == git(place, "rev-parse", f"{commit}^{{tree}}").output


def _strip(mail: bytes) -> bytes:
    """A patch without ids and line numbers, which depend on the kernel."""
    return re.sub(rb"(?m)^(From|index|@@) .*$", rb"\1", mail)


def _rename(backport: str, known: Patch, path: Path) -> str:
    """Rename a backport with its patch: ``0001-old.5.10.patch`` to ``0002-new.5.10.patch``."""
    stem = known.path.stem
    return path.stem + backport.removeprefix(stem) if backport.startswith(stem) else backport


def _write_changes(
    folder: Path, series: Series, wanted: Mapping[Path, tuple[str, bytes]], *, is_dry: bool
) -> list[Path]:
    listing, claims = folder / "series", folder / "series.yaml"
    backports = {backport.path.name for patch in series.patches for backport in patch.backports}
    # a backport may be the patch file of another entry
    backports -= {patch.name for patch in series.patches}
    names = [path.name for path, (old, _) in wanted.items() if old not in backports]
    heading = [line for line in listing.read_text().splitlines() if line.startswith("#")]
    texts = {path: data for path, (_, data) in wanted.items()}
    texts[listing] = listing.read_bytes()
    if names != [patch.name for patch in series.patches]:
        texts[listing] = "".join(f"{line}\n" for line in [*heading, *names]).encode()
    if claims.exists():
        renamed = {old: path.name for path, (old, _) in wanted.items() if old}
        texts[claims] = re.sub(
            r"(?m)(\bfile: *)(\S+?)(?=[\s,}]|$)",
            lambda match: match[1] + renamed.get(match[2], match[2]),
            claims.read_text(),
        ).encode()
    gone = {patch.path for patch in series.patches}
    gone |= {backport.path for patch in series.patches for backport in patch.backports}
    changed = [path for path, data in texts.items() if not path.exists() or path.read_bytes() != data]
    removed = sorted(gone - texts.keys())
    if not is_dry:
        with convert_disk_errors(folder):
            for path in changed:
                write_atomic(path, texts[path])
            for path in removed:
                path.unlink()
    return [*changed, *removed]
