# SPDX-License-Identifier: GPL-2.0-or-later
"""Applies a series to a tree, as commits that can be built.

A series is applied completely or not at all, in a worktree of the store, never in a checkout of the user.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from orchestrator.errors import InfraError, StageFailure
from orchestrator.process.progress import Progress
from orchestrator.source import repository
from orchestrator.source.fixup import Fixup, choose_fixups
from orchestrator.source.mail import make_mail, read_subject
from orchestrator.source.reject import Reject, explain_reject
from orchestrator.source.repository import Source, find_commit, git, open_repository
from orchestrator.source.series import Series
from orchestrator.store.store import Store, make_id, make_tree_id


class PatchState(StrEnum):
    """The state of one patch."""

    APPLIES = "applies"
    REJECTED = "does not apply"
    PRESENT = "is already in the tree"
    NOT_TRIED = "not tried"


@dataclass(frozen=True, slots=True)
class PatchOutcome:
    """One patch of a series, tried on a tree."""

    patch: str
    subject: str
    state: PatchState
    reject: Reject | None = None


def apply_series(
    base: Source,
    series: Series,
    fixups: Sequence[Fixup],
    store: Store,
    progress: Progress,
    *,
    keep_going: bool = False,
    redo: bool = False,
) -> Source:
    """The base with its fixups, and every patch of the series, as commits.

    Raises ``StageFailure`` naming patch, file and hunk when one does not apply (``keep_going``: and what
    becomes of the later ones); nothing is kept then. ``redo`` applies them although they were applied before.
    """
    known = find_source(base, series, fixups, store)
    if known and not (redo and list_patches(base, series, fixups)):
        return known
    outcomes = try_series(base, series, fixups, store, progress, keep_going=keep_going)
    if failure := find_failure(base, series, outcomes):
        if about := describe_base(base, series, store):
            failure.hint += f"\n{about}"
        raise failure
    known = find_source(base, series, fixups, store)
    assert known
    return known


def find_source(base: Source, series: Series, fixups: Sequence[Fixup], store: Store) -> Source | None:
    """The result of an earlier ``apply_series``, if any."""
    chosen = choose_fixups(fixups, base.version)
    made = replace(
        base,
        series=series.name,
        is_generated=series.is_generated,
        fixups=tuple(fixup.name for fixup in chosen),
        make_words=tuple(word for fixup in chosen for word in fixup.make_words),
    )
    files = list_patches(base, series, fixups)
    if not files:
        return made
    source_id = _make_source_id(base, files)
    commit = find_commit(open_repository(store), _source_ref(source_id))
    if not commit:
        return None
    return replace(made, source_id=source_id, commit=commit, tree_id=repository.read_tree_id(store, commit))


def list_patches(base: Source, series: Series, fixups: Sequence[Fixup]) -> tuple[Path, ...]:
    """All patches in their order: fixups come first, so that a series does not depend on them."""
    chosen = choose_fixups(fixups, base.version)
    return (*(fixup.patch for fixup in chosen if fixup.patch), *series.choose(base.version))


def _make_source_id(base: Source, files: Sequence[Path]) -> str:
    return make_id(base.commit, make_tree_id({f"{i} {path.name}": path for i, path in enumerate(files)}))


def _source_ref(source_id: str) -> str:
    return f"refs/cowbell/sources/{source_id}"


def try_series(
    base: Source,
    series: Series,
    fixups: Sequence[Fixup],
    store: Store,
    progress: Progress,
    *,
    keep_going: bool = False,
) -> list[PatchOutcome]:
    """Apply every patch, and keep the result if all of them apply.

    After a reject, later patches are tried without it (``keep_going``) or not at all.
    """
    files = list_patches(base, series, fixups)
    progress.stage("source", f"{base.tree}: {series.name or 'fixups'}, {len(files)} patch(es)")
    with repository.worktree(store, base.folder) as place, store.scratch(f"am-{base.folder}") as scratch:
        repository.move_worktree(place, base.commit)
        mails = [_write_mail(path, scratch / f"{i:04}") for i, path in enumerate(files)]
        history = [(Path(base.origin), base.commit)] if Path(base.origin).is_dir() else []
        history.append((open_repository(store), base.commit))
        outcomes = _apply(place, files, mails, history, keep_going=keep_going)
        if all(outcome.state is PatchState.APPLIES for outcome in outcomes):
            git(place, "update-ref", _source_ref(_make_source_id(base, files)), "HEAD")
    return outcomes


def _write_mail(patch: Path, target: Path) -> Path:
    target.write_bytes(make_mail(patch.read_bytes(), patch.stem))
    return target


# keep CRs, which are part of the tree; check_patch rejects those added by a mailer
AM = ("am", "--3way", "--keep-cr", "--no-gpg-sign", "--no-scissors")


def _apply(
    place: Path,
    files: Sequence[Path],
    mails: Sequence[Path],
    history: Sequence[tuple[Path, str]],
    *,
    keep_going: bool,
) -> list[PatchOutcome]:
    outcomes: list[PatchOutcome] = []

    def note(state: PatchState, reject: Reject | None = None) -> None:
        patch = files[len(outcomes)]
        outcomes.append(PatchOutcome(patch.name, read_subject(patch), state, reject))

    done = git(place, *AM, *map(str, mails), check=False)
    while True:
        applied = re.split(r"^Applying: ", done.output, flags=re.M)[1:]
        for output in applied[: len(applied) - bool(done.returncode)]:
            # git am skips such a patch without an error
            is_present = re.search(r"^No changes -- Patch already applied", output, re.M)
            note(PatchState.PRESENT if is_present else PatchState.APPLIES)
        if done.returncode == 0:
            break
        if not applied or not (repository.find_git_dir(place) / "rebase-apply").is_dir():
            raise InfraError("git am failed", where=str(place), hint=done.output)
        reject = explain_reject(place, mails[len(outcomes)], history)
        note(PatchState.PRESENT if reject.present_as else PatchState.REJECTED, reject)
        if not keep_going:
            break
        done = git(place, "am", "--skip", check=False)
    for i, outcome in enumerate(outcomes):
        if outcome.state is PatchState.PRESENT and not outcome.reject:
            repository.move_worktree(place, history[-1][1])
            outcomes[i] = replace(outcome, reject=explain_reject(place, mails[i], history))
    git(place, "am", "--abort", check=False)
    while len(outcomes) < len(files):
        note(PatchState.NOT_TRIED)
    return outcomes


def find_failure(base: Source, series: Series, outcomes: Sequence[PatchOutcome]) -> StageFailure | None:
    """The error of the first patch that did not apply; its hint lists the later ones tried."""
    bad = [outcome for outcome in outcomes if outcome.state in (PatchState.REJECTED, PatchState.PRESENT)]
    if not bad:
        return None
    first = bad[0]
    is_fixup = first.patch not in [path.name for path in series.choose(base.version)]
    what = f"{'fixup ' if is_fixup else ''}{first.patch} does not apply to {base.tree} ({base.version})"
    hint = first.reject.text if first.reject else ""
    if first.state is PatchState.PRESENT:
        as_what = f" as {first.reject.present_as}" if first.reject and first.reject.present_as else ""
        what = f"{first.patch} is in {base.tree} ({base.version}) already{as_what}"
        hint = "a series must apply completely: remove the patch, or use a tree without it"
    later = [o for o in outcomes[outcomes.index(first) + 1 :] if o.state is not PatchState.NOT_TRIED]
    hint = "\n".join([hint, *(f"{o.patch}: {o.state}" for o in later)])
    return StageFailure("source", what, where=first.reject.where if first.reject else "", hint=hint)


def describe_base(base: Source, series: Series, store: Store) -> str:
    """Where to get the commit that the mails of a series were made for, if the tree is another one."""
    about = ""
    if series.base and series.base != base.base:
        place = Path(base.origin)
        is_local = place.is_dir()
        has_it = (is_local and find_commit(place, series.base, is_users=True)) or find_commit(
            open_repository(store), series.base
        )
        word = f"KERNEL={base.origin if is_local else base.folder}:{series.base[:12]}"
        about = f"it was made for the commit {series.base[:12]} (base-commit)"
        about += f": {word}" if has_it else f", which is not in {base.tree}"
    if series.needed:
        needed = f"{len(series.needed)} patch(es) are needed before it (prerequisite-patch-id)"
        about = f"{about}; {needed}" if about else needed
    return about
