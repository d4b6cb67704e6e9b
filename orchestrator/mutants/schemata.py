# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes one patch that puts every mutant into a source; in the kernel they are all switched off."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.mutants import operators
from orchestrator.mutants.operators import WRITTEN, Site, mutate
from orchestrator.parse.csource import replace_code
from orchestrator.plan.generated import add_patch, export_files_as_patch
from orchestrator.plan.plan import Job
from orchestrator.project.mutants import CodeChange, MutantSpec, WrittenMutant
from orchestrator.source.repository import Source, export_files, list_files
from orchestrator.source.series import Patch
from orchestrator.store.store import Store, make_id

_HERE = Path(__file__).parent
# below are those written by hand
FIRST = 1000
_SUBJECT = "mm: mutants: generated mistakes, switched by number"


@dataclass(frozen=True, slots=True)
class Schemata:
    """A patch with all mutants of one source, and their sites."""

    patch: Path
    sites: tuple[Site, ...]

    def put_into(self, job: Job) -> Job:
        """The job with the mutants after its series; all of them are off."""
        return add_patch(job, "mutants", Patch(self.patch, _SUBJECT))


def make_schemata(source: Source, spec: MutantSpec, store: Store) -> Schemata:
    """The schemata of a source, made once. Absent files and functions are ignored.

    Raises ``UsageError`` for each mutant written by hand whose code is not there.
    """
    made_by = [
        path.read_text() for path in (Path(operators.__file__), _HERE / "mutant.h", _HERE / "mutant.c")
    ]
    functions = {file: list(names) for file, names in spec.functions.items()}
    written = [(number, one.name, _choose_changes(one, source)) for number, one in enumerate(spec.written, 1)]
    changes = [(c.file, c.function, c.code, c.becomes) for _, _, chosen in written for c in chosen]
    identity = make_id(source.tree_id, functions, [name for _, name, _ in written], changes, *made_by)

    def fill(draft: Path) -> None:
        with store.scratch("mutants") as tree:
            sites = _write(source, functions, written, tree, store)
            export_files_as_patch(source, tree, _SUBJECT, draft, store)
        (draft / "sites.json").write_text(json.dumps([asdict(site) for site in sites], indent=1) + "\n")

    folder = store.publish("mutants", identity, fill)
    listed = json.loads((folder / "sites.json").read_text())
    return Schemata(next(folder.glob("0001-*")), tuple(Site(**one) for one in listed))


def _choose_changes(mutant: WrittenMutant, source: Source) -> tuple[CodeChange, ...]:
    return tuple(
        change
        for change in mutant.changes
        if change.when.holds_for(source.version) and change.series in ("", source.series)
    )


# number, name and changes of those written by hand
_Written = Sequence[tuple[int, str, Sequence[CodeChange]]]


def _write(
    source: Source, functions: Mapping[str, Sequence[str]], written: _Written, tree: Path, store: Store
) -> list[Site]:
    """Write the changed files into an empty folder."""
    wanted = {*functions, *(change.file for _, _, changes in written for change in changes), "mm/Makefile"}
    lines = [line for line in list_files(store, source.commit).splitlines() if line.split("\t")[1] in wanted]
    export_files(store, "\n".join(lines), tree)
    sites = list(_write_changes(written, tree))
    number = FIRST
    for file in sorted(wanted - {"mm/Makefile"}):
        if not (tree / file).is_file():
            continue
        text, found = mutate(file, (tree / file).read_bytes(), functions.get(file, ()), number)
        sites += found
        number += len(found)
        if b"mutant(" in text:
            text = text.replace(b"#include <", b"#include <linux/mutant.h>\n#include <", 1)
            (tree / file).write_bytes(text)
    makefile = tree / "mm/Makefile"
    makefile.write_text(f"{makefile.read_text()}obj-y += mutant.o\n")
    header = tree / "include/linux/mutant.h"
    header.parent.mkdir(parents=True)
    header.write_text((_HERE / "mutant.h").read_text())
    limit = f"#define MUTANTS {number}\n"
    (tree / "mm/mutant.c").write_text(
        (_HERE / "mutant.c").read_text().replace("\nint mutant", f"\n{limit}\nint mutant", 1)
    )
    return sites


def _write_changes(written: _Written, tree: Path) -> Iterator[Site]:
    """Make the changes of the mutants written by hand; raises ``UsageError`` for each that does not fit."""
    errors = []
    for number, name, changes in written:
        for change in changes:
            path = tree / change.file
            text = path.read_bytes() if path.is_file() else b""
            try:
                changed, line = replace_code(
                    text, change.function, change.code, change.becomes.replace("MUTANT", f"mutant({number})")
                )
            except ValueError as error:
                errors.append(UsageError(f"{name}: {error}", where=change.where))
                continue
            path.write_bytes(changed)
            if change is changes[0]:
                code = " ".join(change.becomes.split())
                yield Site(number, f"{change.file}:{change.function}:{WRITTEN}:{name}", line, code)
    raise_all(errors)
