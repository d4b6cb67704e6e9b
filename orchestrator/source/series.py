# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and checks patch series: a folder of ``patches/``, an mbox, a patch, or a range of a git tree.

All of them become files for ``git am``, in order. Nothing is applied here.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project import yamlfile as doc
from orchestrator.project.condition import Condition, Version
from orchestrator.source.patch import (
    check_mail,
    check_patch,
    export_commit,
    has_diff,
    make_mail,
    parse_subject,
    read_subject,
)
from orchestrator.source.repository import find_commit, git
from orchestrator.source.tree import LocalTree
from orchestrator.status import Status
from orchestrator.store.store import Store, make_id

_NUMBERED = re.compile(r"\[[^]]*?(?:\bv(?P<version>\d+)\b[^]]*?)?\b(?P<n>\d+)/(?P<m>\d+)\s*\]")
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

    ``is_generated``: Cowbell wrote the last patch.
    """

    name: str = ""
    title: str = ""
    when: Condition = _ALWAYS
    patches: tuple[Patch, ...] = ()
    is_generated: bool = False

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
    if not listing.is_file():
        raise UsageError("has no series file (one patch name per line)", where=str(folder))
    names: list[str] = []
    errors: list[UsageError] = []
    for number, line in enumerate(listing.read_text().splitlines(), 1):
        # quilt allows options after the name; git am knows only -p1
        words = line.split("#")[0].split()
        if words and words[0] in names:
            errors.append(UsageError(f"lists {words[0]} twice", where=f"{listing}:{number}"))
        elif words and not (folder / words[0]).is_file():
            errors.append(UsageError(f"{words[0]} does not exist", where=f"{listing}:{number}"))
        elif words and words[1:] not in ([], ["-p1"]):
            errors.append(UsageError(f"{' '.join(words[1:])} is not supported", where=f"{listing}:{number}"))
        elif words:
            names.append(words[0])
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
    errors += [error for path in files if path.is_file() for error in check_patch(path)]
    raise_all(errors)
    patches = tuple(
        Patch(
            folder / name, read_subject(folder / name), entry.flips, entry.backports, entry.when, entry.where
        )
        for name, entry in entries.items()
    )
    return Series(about.name, about.title, about.when, patches)


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
        if not (folder / file).is_file():
            raise ValueError(f"{file} does not exist")
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


def find_series(path: Path, store: Store) -> Series:
    """The series in a folder (quilt), an mbox or a patch file given on the command line."""
    if path.is_dir():
        return load_series(path, is_foreign=True)
    if not path.is_file():
        raise UsageError("there is no such series, mbox or patch", where=str(path))
    data = path.read_bytes()
    mails = _split_mbox(data)
    errors: list[UsageError] = []
    if len(mails) > 1:
        mails = _order_mails(path, mails, errors)
    if not mails:
        errors.append(UsageError("contains no patch", where=str(path)))
    for line, mail in mails:
        errors += check_mail(mail, str(path), line)
    raise_all(errors)

    def fill(folder: Path) -> None:
        for number, (_, mail) in enumerate(mails, 1):
            title = parse_subject(mail) or path.stem
            slug = re.sub(r"[^\w.]+", "-", title).strip("-.")[:52]
            (folder / f"{number:04}-{slug}.patch").write_bytes(make_mail(mail, title))

    made = _load_folder(store.publish("series", make_id(path.stem, data.hex()), fill))
    return Series(str(path), made[0].subject if len(made) == 1 else path.name, Condition(), made)


def _load_folder(folder: Path) -> tuple[Patch, ...]:
    return tuple(Patch(path, read_subject(path)) for path in sorted(folder.iterdir()))


def _split_mbox(data: bytes) -> list[tuple[int, bytes]]:
    """The mails of an mbox with their first line. A diff without headers counts as a mail."""
    starts = [match.start() for match in re.finditer(rb"^From \S+ .*\d{4}\s*$", data, re.M)]
    if not starts or starts[0] > 0:
        starts = [0, *starts]
    ends = [*starts[1:], len(data)]
    mails = [
        (data.count(b"\n", 0, start) + 1, data[start:end]) for start, end in zip(starts, ends, strict=True)
    ]
    return [(line, mail) for line, mail in mails if mail.strip()]


def _order_mails(
    path: Path, mails: list[tuple[int, bytes]], errors: list[UsageError]
) -> list[tuple[int, bytes]]:
    """The patches of a thread in order; checks that it is complete and has one version."""
    numbered: dict[int, tuple[int, bytes]] = {}
    unnumbered: list[tuple[int, bytes]] = []
    totals: dict[tuple[str, int], int] = {}
    for line, mail in mails:
        match = _NUMBERED.search(parse_subject(mail, keep_tags=True))
        if not has_diff(mail):
            if not match or int(match["n"]):
                errors.append(
                    UsageError(
                        f"is a mail without a patch: {parse_subject(mail, keep_tags=True)}",
                        where=f"{path}:{line}",
                        hint="b4 am makes an mbox with the patches only",
                    )
                )
        elif not match:
            unnumbered.append((line, mail))
        elif int(match["n"]) in numbered:
            errors.append(UsageError(f"patch {match['n']}/{match['m']} occurs twice", where=f"{path}:{line}"))
        else:
            numbered[int(match["n"])] = (line, mail)
            totals.setdefault((match["version"] or "1", int(match["m"])), line)
    if len(totals) > 1:
        found = ", ".join(f"v{version} of {total}" for version, total in totals)
        errors.append(UsageError(f"mixes several series: {found}", where=f"{path}:{max(totals.values())}"))
    elif totals:
        ((_, total),) = totals
        if lacking := [str(n) for n in range(1, total + 1) if n not in numbered]:
            errors.append(UsageError(f"lacks patch {', '.join(lacking)} of {total}", where=str(path)))
    return [*(numbered[n] for n in sorted(numbered)), *unnumbered]


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
    match = re.fullmatch(r"([^:]+):([^:]+?)(?<!\.)\.\.(?!\.)([^:]+)", word)
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
