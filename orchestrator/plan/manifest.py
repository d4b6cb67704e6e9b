# SPDX-License-Identifier: GPL-2.0-or-later
"""Records the inputs of a job's last run, file by file, and how long its parts took.

Identities decide what is done; this says which input made the difference, and about how long it will take.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.guest.qemu import Machine
from orchestrator.kernel.build import BuildRequest
from orchestrator.kernel.fragment import Fragment
from orchestrator.kernel.kconfig import choose_fragments
from orchestrator.plan.plan import Declarations, Job
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import SELFTEST, GuestTest, SourceReader
from orchestrator.project.yamlfile import suggest
from orchestrator.source.apply import list_patches
from orchestrator.source.fixup import Fixup
from orchestrator.source.repository import Source
from orchestrator.source.series import Series
from orchestrator.store.store import Store, make_id, make_tree_id, write_json

# the folders of a project; a file is called by its path from there, wherever the project lies
_TOPS = ("guest-tests", "kconfigs", "patches", "ci")
AS_CHANGED = "taken as changed"

Files = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Manifest:
    """Identities by file, or by what else goes in, and seconds.

    ``kernel`` and ``guest`` are what the kernel is and what it boots in; ``tests`` has the files of each.
    """

    kernel: Files = field(default_factory=dict)
    guest: Files = field(default_factory=dict)
    tests: dict[str, Files] = field(default_factory=dict)
    build_s: float | None = None
    test_s: dict[str, float] = field(default_factory=dict)

    def expect_tests_s(self, tests: Sequence[GuestTest]) -> float | None:
        """About how long these take; None when one of them was never seen to end."""
        times = [self.test_s.get(test.id) for test in tests]
        return sum(known) if len(known := [s for s in times if s is not None]) == len(times) else None


def load_manifest(job: Job, store: Store) -> Manifest:
    """That of the last time; an empty one when there was none."""
    try:
        return Manifest(**json.loads(_path(job, store).read_text()))
    except (OSError, ValueError, TypeError):
        return Manifest()


def save_manifest(manifest: Manifest, job: Job, store: Store) -> None:
    write_json(_path(job, store), dataclasses.asdict(manifest))


def _path(job: Job, store: Store) -> Path:
    return store.path(
        "jobs", f"{job.row.name}.{job.variant.name}.{make_id(job.tree.name, job.row.arch, job.boot)}"
    )


def list_kernel_files(job: Job, base: Source, request: BuildRequest, declared: Declarations) -> Files:
    """What a kernel is made of."""
    if job.built:
        return {"the kernel that was built elsewhere": request.build_id}
    src, arch = request.source, request.arch
    fragments = choose_fragments(job.row.kconfig, declared.fragments, arch, src.version)
    modules = request.guest_modules if request.has_modules else ()
    patches = list_patches(base, job.series, declared.fixups)
    return {
        f"the tree {base.tree}": base.commit,
        "the compiler": request.toolchain.identity,
        "the words for make": make_id(src.make_words),
        **{f"kconfigs/{one.name}.config": _make_fragment_id(one) for one in fragments},
        **{_shorten(path): make_tree_id({"": path}) for path in (*patches, *modules)},
    }


def _make_fragment_id(fragment: Fragment) -> str:
    """Changes with all that a fragment says of symbols, not with its comments."""
    asked = [
        [(c.symbol, c.value, c.is_optional, c.is_set, c.only.text) for c in r.candidates]
        for r in fragment.requests
    ]
    return make_id(asked, sorted(fragment.override), fragment.append)


def list_patch_names(series: Series, fixups: Sequence[Fixup]) -> tuple[str, ...]:
    """The names of all patches that may be applied, on whichever version."""
    return tuple(_shorten(path) for path in (*(f.patch for f in fixups if f.patch), *series.files))


def list_names(job: Job, declared: Declarations, modules: Sequence[Path], last: str) -> Iterator[str]:
    """The files of the project that are inputs of a job, up to a stage, on whichever version of its tree."""
    if not job.built:
        yield from list_patch_names(job.series, declared.fixups)
        if last != "source":
            names = [name for name in job.row.kconfig if name == job.row.arch or name not in ARCHES]
            names += [job.row.arch] if "base" in names else []
            yield from (f"kconfigs/{name}.config" for name in names)
            if any(
                (r.symbol, r.value) == ("MODULES", "y")
                for name in names
                if name in declared.fragments
                for r in declared.fragments[name].requests
            ):
                yield from map(_shorten, modules)
    if last == "run":
        yield from (name for test in job.tests for name in list_test_files(test))


def list_guest_files(machine: Machine) -> Files:
    """What a kernel boots in."""
    return {
        "the row's guest": make_id(dataclasses.asdict(machine.shape)),
        "the root image": machine.rootfs.rootfs_id,
        "the accelerator": machine.accel,
        "BOOT": machine.boot,
    }


def list_test_files(test: GuestTest) -> Files:
    if test.language == SELFTEST:
        # its source is the kernel's
        return {f"how {test.id} is built": test.content_id}
    own = [test.path / part for part in test.parts]
    files = own or [path for _, path in SourceReader(test.libs).list_files(test.path)]
    return {_shorten(path): make_tree_id({"": path}) for path in files}


def take_as_changed(files: Files, names: Sequence[str]) -> Files:
    """The files, with an identity of their own for those that ``--what-if`` names."""
    return {name: AS_CHANGED if name in names else identity for name, identity in files.items()}


def find_names(paths: Sequence[str]) -> tuple[str, ...]:
    """The names by which manifests know files; raises ``UsageError`` for those that are none."""
    raise_all(
        [
            UsageError("there is no such file", where=f"--what-if {path}")
            for path in paths
            if not Path(path).is_file()
        ]
    )
    return tuple(_shorten(Path(path).resolve()) for path in paths)


def raise_unknown(names: Sequence[str], known: Set[str]) -> None:
    """Raise ``UsageError`` for each name that nothing is made of."""
    raise_all(
        [
            UsageError(
                f"nothing that is asked for is made of {name}{suggest(name, known)}", where="--what-if"
            )
            for name in names
            if name not in known
        ]
    )


def explain(now: Files, before: Files) -> str:
    """Which inputs made the difference; empty when there was no time before, or no difference."""
    if not before:
        return ""
    told = [
        f"{name} is {identity}"
        if identity == AS_CHANGED
        else f"{name} {'changed' if name in before else 'is new'}"
        for name, identity in now.items()
        if before.get(name) != identity
    ]
    return ", ".join([*told, *(f"{name} is gone" for name in before if name not in now)])


def _shorten(path: Path) -> str:
    tops = [i for i, part in enumerate(path.parts) if part in _TOPS]
    return "/".join(path.parts[tops[-1] :]) if tops else str(path)
