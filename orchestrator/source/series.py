# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and checks patch series: a folder of ``patches/``, an mbox, a patch, or a range of a git tree.

All of them become files for ``git am``, in order. Nothing is applied here.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.condition import Condition, Version
from orchestrator.source.mail import clean_title, find_base, has_diff, make_mail, read_subject
from orchestrator.source.patch import check_patch, export_commit
from orchestrator.source.repository import find_commit, git
from orchestrator.source.thread import find_patches, is_file
from orchestrator.source.tree import LocalTree
from orchestrator.status import Status
from orchestrator.store.store import Store, make_id

_ALWAYS = Condition()


@dataclass(frozen=True, slots=True)
class Backport:
    """Another version of a patch, for kernels that match ``when``, and the additional tests it flips."""

    when: Condition
    path: Path
    flips: Mapping[str, Status] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Patch:
    """One patch: a file for ``git am``, and the tests it should flip to a status.

    ``when`` matches the kernels it applies to, in addition to those of its backports; ``where`` is the line
    of its entry.
    """

    path: Path
    subject: str = ""
    flips: Mapping[str, Status] = field(default_factory=dict)
    backports: tuple[Backport, ...] = ()
    when: Condition = _ALWAYS
    where: str = ""

    @property
    def name(self) -> str:
        return self.path.name

    def choose(self, version: Version) -> Backport | None:
        """The file for a kernel: the first matching backport, or else the patch, if it matches."""
        choices = (*self.backports, Backport(self.when, self.path))
        chosen = next((choice for choice in choices if choice.when.holds_for(version)), None)
        return replace(chosen, flips={**self.flips, **chosen.flips}) if chosen else None


@dataclass(frozen=True, slots=True)
class Series:
    """Ordered patches and their kernel range. Without patches it means no series.

    ``is_generated``: Cowbell wrote the last patch. ``base`` is the commit that a mail says it was made for,
    ``needed`` are the ids of the patches that it says are needed before (git format-patch --base).
    """

    name: str = ""
    title: str = ""
    when: Condition = _ALWAYS
    patches: tuple[Patch, ...] = ()
    is_generated: bool = False
    base: str = ""
    needed: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all patches and backports."""
        return tuple(path for p in self.patches for path in (p.path, *(one.path for one in p.backports)))

    def choose(self, version: Version) -> tuple[Path, ...]:
        """The patch files for a kernel."""
        return tuple(chosen.path for patch in self.patches if (chosen := patch.choose(version)))


# --- a folder of patches/


def load_series(folder: Path, *, is_foreign: bool = False) -> Series:
    """Read a quilt ``series`` file, its patches, and ``series.yaml``, which is optional for a foreign folder.

    Raises all errors at once as ``UsageError``.
    """
    listing = folder / "series"
    errors: list[UsageError] = []
    names = [name for name, _ in read_listing(listing, errors) if name]
    if not names and not errors:
        errors.append(UsageError("lists no patches", where=str(listing)))
    declared = folder / "series.yaml"
    about = _About(str(folder), folder.name, Condition(), {})
    if declared.exists() or not is_foreign:
        try:
            about = doc.load_document(declared, _make_shape(folder))
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
        errors += [
            UsageError(f"{name} is not in {listing.name}", where=patch.where)
            for name, patch in about.patches.items()
            if name not in names
        ]
    entries = {name: about.patches.get(name, _Entry("", Condition(), {}, ())) for name in names}
    files = [
        path
        for name, entry in entries.items()
        for path in (folder / name, *(backport.path for backport in entry.backports))
    ]
    errors += [error for path in files if is_file(path) for error in check_patch(path)]
    raise_all(errors)
    patches = tuple(
        Patch(
            folder / name, read_subject(folder / name), entry.flips, entry.backports, entry.when, entry.where
        )
        for name, entry in entries.items()
    )
    return Series(about.name, about.title, about.when, patches)


def read_listing(listing: Path, errors: list[UsageError]) -> list[tuple[str, str]]:
    """The patches of a quilt series file, each with the text up to the end of its line.

    Text after the last one has an empty name.
    """
    try:
        data = listing.read_bytes()
    except OSError as error:
        what = f"has no series file: {error.strerror}"
        raise UsageError(what, where=str(listing.parent), hint="it lists one patch per line") from None
    found: list[tuple[str, str]] = []
    names: set[str] = set()
    text = ""
    # as bytes that are no UTF-8 are kept in comments, they are written back as they were
    lines = data.decode(errors="surrogateescape").split("\n")
    for number, line in enumerate(lines, 1):
        where = f"{listing}:{number}"
        text += line + ("\n" if number < len(lines) else "")
        # as in quilt, a comment starts after a blank: a name may contain the sign
        words = re.sub(r"(?:^|\s)#.*", "", line.removeprefix("\ufeff")).split()
        if not words:
            continue
        name = words[0]
        if not name.isprintable():
            errors.append(UsageError("the name of a patch is not UTF-8 text", where=where))
        elif name in names:
            errors.append(UsageError(f"lists {name} twice", where=where))
        elif not is_file(listing.parent / name):
            errors.append(UsageError(f"{name[:200]} does not exist", where=where))
        elif words[1:] not in ([], ["-p1"], ["-p", "1"], ["-pab"]):
            # quilt allows options after the name; git am knows only -p1
            errors.append(UsageError(f"{' '.join(words[1:])} is not supported", where=where))
        else:
            found.append((name, text))
            names.add(name)
        text = ""
    return [*found, ("", text)] if text else found


@dataclass(frozen=True, slots=True)
class _Entry:
    where: str
    when: Condition
    flips: Mapping[str, Status]
    backports: tuple[Backport, ...]


@dataclass(frozen=True, slots=True)
class _About:
    name: str
    title: str
    when: Condition
    patches: Mapping[str, _Entry]


def _make_shape(folder: Path) -> doc.Shape[_About]:
    def make_backport(
        place: doc.Place, when: Condition, file: str, flips: Mapping[str, str] | None = None
    ) -> Backport:
        if not is_file(folder / file):
            raise ValueError(f"{file[:200]} does not exist")
        return Backport(_by_kernel(when), folder / file, _read_flips(flips))

    def make_patch(
        place: doc.Place,
        file: str,
        when: Condition = _ALWAYS,
        flips: Mapping[str, str] | None = None,
        backports: tuple[Backport, ...] = (),
    ) -> tuple[str, _Entry]:
        return file, _Entry(str(place), _by_kernel(when), _read_flips(flips), backports)

    text = doc.scalar(doc.text)
    flips = doc.mapping_of(doc.scalar(doc.one_of((Status.PASS.value, Status.FAIL.value))))
    backport = doc.record(make_backport, {"when": doc.condition, "file": text}, {"flips": flips})
    patch = doc.record(
        make_patch,
        {"file": text},
        {"when": doc.condition, "flips": flips, "backports": doc.list_of(backport)},
    )
    return doc.record(
        lambda place, title, when, patches: _About(folder.name, title, when, dict(patches)),
        {"title": text, "when": doc.condition, "patches": doc.list_of(patch)},
    )


def _by_kernel(when: Condition) -> Condition:
    if when.names_arch:
        raise ValueError(f"expected a kernel range only, got {when.text!r}")
    return when


def _read_flips(flips: Mapping[str, str] | None) -> Mapping[str, Status]:
    return {test: Status(status) for test, status in (flips or {}).items()}


# --- series given on the command line


def find_series(path: Path, store: Store, data: bytes | None = None) -> Series:
    """The series in a folder, an mbox or a patch file given on the command line; ``data`` is its content.

    A folder has a quilt series file, or the files of git format-patch. Replies of a thread are left out.
    """
    if data is None and is_file(path / "series"):
        return load_series(path, is_foreign=True)
    found, mails = find_patches(path, data)
    made: dict[str, bytes] = {}
    for number, mail in enumerate(mails, 1):
        title = clean_title(mail.subject) or mail.file.stem
        slug = re.sub(r"[^\w.]+", "-", title).strip("-.")[:52].rstrip("-.")
        made[f"{number:04}-{slug}.patch"] = make_mail(mail.data, title)

    def fill(folder: Path) -> None:
        for name, text in made.items():
            (folder / name).write_bytes(text)

    digests = {name: hashlib.sha256(text).hexdigest() for name, text in made.items()}
    patches = _load_folder(store.publish("series", make_id(digests), fill))
    base, needed = find_base([mail.data for mail in found])
    left_out = sum(mail not in mails and has_diff(mail.data) for mail in found)
    title = patches[0].subject if len(patches) == 1 else path.name
    if left_out:
        title += f" (left out: {left_out} diff(s) in replies)"
    return Series(str(path), title, Condition(), patches, base=base, needed=needed)


def _load_folder(folder: Path) -> tuple[Patch, ...]:
    return tuple(Patch(path, read_subject(path)) for path in sorted(folder.iterdir()))


def export_range(name: str, start: str, tip: str, repo: Path, store: Store) -> Series:
    """The commits after ``start`` up to ``tip`` as a series; both are full commit ids.

    A merge is followed to the parent with the same files, as in a stack that was rebased and merged over its
    older version. Raises ``UsageError`` for any other merge, which a series of patches cannot express.
    """
    listed = git(repo, "log", "--format=%H %T %P", "--topo-order", tip, f"^{start}").output.splitlines()
    known = {line.split()[0]: line.split()[1:] for line in listed}
    commits: list[str] = []
    at = tip
    while at != start:
        if at not in known:
            raise UsageError(f"the history of {tip[:12]} leads to {at[:12]}, not to {start[:12]}", where=name)
        files, *parents = known[at]
        if len(parents) == 1:
            commits.append(at)
            at = parents[0]
            continue
        same = [parent for parent in parents if _find_files(repo, parent) == files]
        if not same:
            raise UsageError(
                f"{at[:12]} merges two lines of history, which a series of patches cannot express", where=name
            )
        at = same[0]
    if not commits:
        raise UsageError("is an empty range", where=name)
    commits.reverse()

    def fill(folder: Path) -> None:
        for number, commit in enumerate(commits, 1):
            export_commit(repo, commit, folder, number)

    patches = _load_folder(store.publish("series", make_id(start, tip, *commits), fill))
    return Series(name, f"{len(patches)} commits up to {tip[:12]}", Condition(), patches)


def _find_files(repo: Path, commit: str) -> str:
    return git(repo, "rev-parse", f"{commit}^{{tree}}").output


def parse_range(word: str) -> tuple[str, str, str] | None:
    """Split ``TREE:BASE..TIP``; None for any other word."""
    match = re.fullmatch(r"(.+):([^:]+?)(?<!\.)\.\.(?!\.)([^:]+)", word)
    return (match[1], match[2], match[3]) if match else None


def find_local_range(word: str, tree: LocalTree, base: str, tip: str, store: Store) -> Series:
    """A range of a user's checkout."""
    place = Path(tree.path)
    commits = {name: find_commit(place, name, is_users=True) for name in (base, tip)}
    raise_all(
        [UsageError(f"has no {name}", where=tree.path) for name, commit in commits.items() if not commit]
    )
    if git(
        place, "merge-base", "--is-ancestor", commits[base], commits[tip], check=False, is_users=True
    ).returncode:
        raise UsageError(f"{base} is not in the history of {tip}", where=tree.path)
    return export_range(word, commits[base], commits[tip], place, store)
