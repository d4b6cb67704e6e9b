# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens a series as commits of a worktree for editing with git, and writes it back as patches.

A patch whose commit was not edited keeps its file, byte for byte and with its name. An edited one keeps its
name, the notes below ``---``, and headers that git does not know. Opening a series never overwrites edits.
"""

import email.utils
import re
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import StageFailure, UsageError, raise_all
from orchestrator.source.apply import AM
from orchestrator.source.mail import clean_title, decode_mail, make_mail
from orchestrator.source.patch import check_patch, export_commit, find_tail
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
from orchestrator.source.series import Series, read_listing
from orchestrator.store.name import make_name
from orchestrator.store.store import Store, convert_disk_errors, make_id, write_atomic


@dataclass(frozen=True, slots=True)
class Worktree:
    """An open series: its worktree, and the ref of the commit below its patches."""

    place: Path
    branch: str
    base_ref: str


def find_worktree(series: str, kernel: str, place: Path | None, store: Store) -> Worktree:
    """The worktree of a series on a tree: ``place``, or a folder of the store."""
    words = f"{series}-on-{kernel}"
    branch = make_name(words)
    if branch != words.replace(":", "-"):
        # a path or a range
        branch += f"-{make_id(words)[:6]}"
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
            + "\n".join(f"  {line}" for line in done.output.splitlines()[-8:]),
        )
    return True


def refresh_series(
    folder: Path, series: Series, opened: Worktree, store: Store, *, is_dry: bool = False
) -> list[Path]:
    """Write the worktree's commits to the series; returns the files that were changed or removed
    (``is_dry``: would be).

    Raises ``UsageError`` if a git operation is in progress or changes are uncommitted. A patch is known by
    its title; several patches of one title by their content, and then by their order.
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
    chosen = {patch.name: found.path for patch in series.patches if (found := patch.choose(version))}
    texts: dict[Path, bytes] = {}
    order: list[str] = []
    with store.scratch(f"refresh-{opened.branch}") as scratch:
        edits = _Edits(opened.place, scratch)
        exported = [export_commit(opened.place, commit, scratch, i) for i, commit in enumerate(commits, 1)]
        raise_all([error for path in exported for error in check_patch(path)])
        made = [edits.read_commit(commit, path) for commit, path in zip(commits, exported, strict=True)]
        old = {name: (path, edits.read_file(path)) for name, path in chosen.items()}
        known = _match(made, old, edits)
        gone = old.keys() - {name for name, _ in known}
        new: dict[str, bytes] = {}
        for path, commit, (name, is_same) in zip(exported, made, known, strict=True):
            if not name:
                # has no name yet: a slash is in no other
                name = f"/{path.name}"
                before = next(
                    (old[other][0] for other in gone if old[other][1].changes == commit.changes), None
                )
                new[name] = _keep_notes(before.read_bytes() if before else b"", path.read_bytes())
            elif not is_same:
                texts[chosen[name]] = _keep_notes(chosen[name].read_bytes(), path.read_bytes())
            order.append(name)
    names = _merge(order, [patch.name for patch in series.patches], chosen)
    for at, name in enumerate(names):
        if name in new:
            names[at] = _find_free_name(folder, re.sub(r"^/\d+", f"{at + 1:04}", name), names)
            texts[folder / names[at]] = new[name]
    return _write_changes(folder, series, names, texts, is_dry=is_dry)


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


@dataclass(frozen=True, slots=True)
class _Commit:
    """A commit without its place in the history: what a patch makes of any tree. ``diff`` is without ids."""

    commit: str
    author: str
    address: str
    date: float
    message: str
    diff: bytes

    @property
    def title(self) -> str:
        return self.message.partition("\n")[0]

    @property
    def changes(self) -> list[bytes]:
        return re.findall(rb"^[+-].*$", self.diff, re.M)

    @property
    def head(self) -> tuple[str, str, float, str]:
        return self.author, self.address, self.date, self.message


@dataclass(frozen=True, slots=True)
class _Edits:
    """Reads commits and patches as the same data, to find out which commit was edited."""

    place: Path
    scratch: Path

    def read_commit(self, commit: str, exported: Path) -> _Commit:
        words = ("log", "-1", "--no-show-signature", "--format=%an%x00%ae%x00%at%x00%B")
        author, address, date, message = git(self.place, *words, commit).output.split("\0", 3)
        diff = _strip_diff(exported.read_bytes())
        return _Commit(commit, _clean_name(author), address, float(date), _clean(message), diff)

    def read_file(self, path: Path) -> _Commit:
        """The commit that git am makes of a patch."""
        mail = make_mail(path.read_bytes(), path.stem)
        words = ("mailinfo", "--no-scissors", "msg", "patch")
        read = dict(
            line.partition(": ")[::2] for line in git(self.scratch, *words, stdin=mail).output.splitlines()
        )
        message = (self.scratch / "msg").read_text(errors="replace")
        date = email.utils.parsedate_tz(read.get("Date", ""))
        return _Commit(
            "",
            _clean_name(read.get("Author", "")),
            read.get("Email", ""),
            float(email.utils.mktime_tz(date)) if date else 0.0,
            _clean(f"{read.get('Subject', '')}\n\n{message}"),
            _strip_diff(mail),
        )

    def is_same(self, made: _Commit, path: Path, old: _Commit) -> bool:
        """Whether a patch gives a commit where that is; the context and the lines of hunks are ignored."""
        if made.head != old.head:
            return False
        if made.diff == old.diff:
            return True
        mail, env = self.scratch / "mail", {"GIT_INDEX_FILE": str(self.scratch / "index")}
        mail.write_bytes(make_mail(path.read_bytes(), path.stem))
        for way in ((), ("--3way",)):
            git(self.place, "read-tree", f"{made.commit}^", env=env)
            if not git(self.place, "apply", "--cached", *way, str(mail), env=env, check=False).returncode:
                tree = git(self.place, "rev-parse", f"{made.commit}^{{tree}}").output
                return git(self.place, "write-tree", env=env).output == tree
        return False


def _clean(message: str) -> str:
    """A message as git commits it: without blanks at the ends of lines, and without repeated empty lines."""
    return re.sub(r"\n{3,}", "\n\n", re.sub(r"[ \t]+$", "", message, flags=re.M)).strip()


def _clean_name(name: str) -> str:
    """An author as git commits it."""
    return name.strip(" \t.,:;<>\"\\'")


def _strip_diff(mail: bytes) -> bytes:
    """The diff of a mail without ids, line numbers and signature."""
    found = re.search(rb"^(?:diff --git |--- \S[^\n]*\n\+\+\+ )", mail, re.M)
    diff = mail[found.start() :] if found else b""
    diff = diff.removesuffix(find_tail(diff)).rstrip(b"\n")
    return re.sub(rb"(?m)^(index|@@) .*$", rb"\1", diff)


def _match(
    made: Sequence[_Commit], old: Mapping[str, tuple[Path, _Commit]], edits: _Edits
) -> list[tuple[str, bool]]:
    """For each commit the name of its patch, and whether they are the same: by content, then by title."""
    found: list[tuple[str, bool]] = [("", False)] * len(made)
    free = dict(old)
    for needs_same in (True, False):
        for at, commit in enumerate(made):
            for name, (path, before) in () if found[at][0] else free.items():
                if before.title == commit.title and (not needs_same or edits.is_same(commit, path, before)):
                    found[at] = name, needs_same
                    del free[name]
                    break
    return found


def _merge(order: Sequence[str], old: Sequence[str], chosen: Container[str]) -> list[str]:
    """The names of the new series; patches for other kernels stay after their predecessor."""
    merged = list(order)
    for at, name in enumerate(old):
        if name not in chosen:
            places = [i for i, other in enumerate(merged, 1) if other in old[:at]]
            merged.insert(max(places, default=0), name)
    return merged


def _find_free_name(folder: Path, name: str, taken: Container[str]) -> str:
    """A name that no file has: two patches may have one title."""
    stem, number, found = name.removesuffix(".patch"), 1, name
    while (folder / found).exists() or found in taken:
        number += 1
        found = f"{stem}-{number}.patch"
    return found


_STAT = re.compile(
    rb" .*\| +(?:\d+|Bin)\b.*| \d+ files? changed.*| (?:create|delete|mode|rename|copy|rewrite) .*"
)
_OWN_FIELDS = re.compile(rb"(?:from|date|subject|mime-version|content-[\w-]+)\Z", re.I)
_FIELD = re.compile(rb"^([!-9;-~]+):[^\n]*\n(?:[ \t][^\n]*\n)*", re.M)


def _keep_notes(old: bytes, new: bytes) -> bytes:
    """An edited patch, with the tags of the title, the unknown headers, the notes and the signature of the
    old one.
    """
    mail = decode_mail(old)
    found = re.search(rb"^---\n(.*?)^(?:diff --git |--- )", mail.body, re.M | re.S) if mail.headers else None
    lines = found[1].split(b"\n") if found else []
    notes = b"\n".join(line for line in lines if not _STAT.fullmatch(line)).strip(b"\n")
    head, blank, rest = new.partition(b"\n\n")
    if mail.shift is not None and mail.headers:
        fields = list(_FIELD.finditer(mail.text[: len(mail.text) - len(mail.body)]))
        more = [match[0] for match in fields if not _OWN_FIELDS.match(match[1])]
        subject = next((match[0] for match in fields if match[1].lower() == b"subject"), b"")
        title = decode_mail(new).headers.get("subject", "")
        if subject and clean_title(title) == clean_title(mail.headers.get("subject", "")):
            head = _FIELD.sub(
                lambda match: subject if match[1] == b"Subject" else match[0], head + b"\n"
            ).rstrip(b"\n")
        head = b"\n".join([head, *(field.rstrip(b"\n") for field in more)])
    if notes:
        rest = re.sub(rb"(?m)^---\n", lambda rule: rule[0] + notes + b"\n\n", rest, count=1)
    if tail := find_tail(mail.body):
        rest = rest.rstrip(b"\n") + b"\n" + tail
    return head + blank + rest


def _write_changes(
    folder: Path, series: Series, names: Sequence[str], texts: dict[Path, bytes], *, is_dry: bool
) -> list[Path]:
    listing = folder / "series"
    texts = {path: data for path, data in texts.items() if not path.exists() or path.read_bytes() != data}
    if names != [patch.name for patch in series.patches]:
        texts[listing] = _render_listing(listing, names)
    kept = {
        path for patch in series.patches if patch.name in names for path in Series(patches=(patch,)).files
    }
    removed = sorted(set(series.files) - kept - texts.keys())
    if not is_dry:
        with convert_disk_errors(folder):
            for path, data in texts.items():
                write_atomic(path, data)
            for path in removed:
                path.unlink()
    return [*texts, *removed]


def _render_listing(listing: Path, names: Sequence[str]) -> bytes:
    """The series file in a new order. Comments stay at the top, or with the patch that they precede."""
    entries = read_listing(listing, [])
    above = ""
    lines: dict[str, str] = {}
    heading = ""
    for number, (name, text) in enumerate(entries):
        whole = text if text.endswith("\n") or not name else f"{text}\n"
        at = whole.rstrip("\n").rfind("\n") + 1 if name else len(whole)
        above += whole[:at]
        if not number and name:
            heading, above = above, ""
        if name in names:
            lines[name] = above + whole[at:]
            above = ""
    return (heading + "".join(lines.get(name, f"{name}\n") for name in names) + above).encode(
        errors="surrogateescape"
    )
