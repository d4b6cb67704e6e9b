# SPDX-License-Identifier: GPL-2.0-or-later
"""Records the inputs of a job's last run, file by file, and how long its parts took.

Identities decide what is done; this says which input made the difference, and about how long it will take.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.guest.qemu import Machine
from orchestrator.kernel.build import BuildRequest
from orchestrator.kernel.kconfig import choose_fragments
from orchestrator.plan.plan import Declarations, Job
from orchestrator.project.guesttest import SELFTEST, GuestTest, list_files
from orchestrator.project.yamlfile import suggest
from orchestrator.source.apply import list_patches
from orchestrator.source.repository import Source
from orchestrator.store.store import Store, make_id, make_tree_id, write_json

# the folders of a project; a file is called by its path from there, wherever the project lies
_TOPS = ("guest-tests", "kconfigs", "patches", "ci")
_AS_CHANGED = "taken as changed"

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
        **{
            f"kconfigs/{one.name}.config": make_id([(r.symbol, r.value) for r in one.requests], one.append)
            for one in fragments
        },
        **{_shorten(path): make_tree_id({"": path}) for path in (*patches, *modules)},
    }


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
        return {f"how {test.id} is compiled": test.content_id}
    return {_shorten(path): make_tree_id({"": path}) for _, path in list_files(test.path, test.libs)}


def take_as_changed(files: Files, names: Sequence[str]) -> Files:
    """The files, with an identity of their own for those that ``--what-if`` names."""
    return {name: _AS_CHANGED if name in names else identity for name, identity in files.items()}


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
        if identity == _AS_CHANGED
        else f"{name} {'changed' if name in before else 'is new'}"
        for name, identity in now.items()
        if before.get(name) != identity
    ]
    return ", ".join([*told, *(f"{name} is gone" for name in before if name not in now)])


def _shorten(path: Path) -> str:
    tops = [i for i, part in enumerate(path.parts) if part in _TOPS]
    return "/".join(path.parts[tops[-1] :]) if tops else str(path)
