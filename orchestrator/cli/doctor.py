# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks the host for the programs that rows need, and prints the command that installs them.

Nothing is built or booted: whether an accelerator works is known only after a first run.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, MissingToolError
from orchestrator.guest import accel
from orchestrator.plan.plan import Job
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.process.packages import make_install_command
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.matrix import Row
from orchestrator.source import debian
from orchestrator.source.tree import VERSIONED, DebianImageTree, DebianTree, GitTree
from orchestrator.store.store import Store

# programs of every kernel build and every guest, with their packages in Debian 12
_ALWAYS = {
    "git": "git", "make": "make", "bc": "bc", "bison": "bison", "flex": "flex", "xz": "xz-utils",
    "ld": "binutils", "depmod": "kmod", "mmdebstrap": "mmdebstrap", "genext2fs": "genext2fs",
    "resize2fs": "e2fsprogs", "qemu-img": "qemu-utils", "setpriv": "util-linux", "zstd": "zstd",
}  # fmt: skip
_HEADERS = {"libelf.h": "libelf-dev"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_INCLUDES = Path("/usr/include")
_NEEDED_MIB = 3072


@dataclass(frozen=True, slots=True)
class HostFinding:
    """One dependency of some rows, whether it is met, and the package in Debian 12 or advice if not.

    ``is_needed`` is false for a dependency that only makes things faster.
    """

    need: str
    rows: tuple[str, ...]
    is_met: bool
    package: str = ""
    help: str = ""
    is_needed: bool = True


def examine(jobs: Sequence[Job], place: Workspace) -> list[HostFinding]:
    """The dependencies of the rows of the jobs, the common ones first."""
    rows = tuple(dict.fromkeys(job.row.name for job in jobs))
    findings = [*_examine_tools(rows), *_examine_host(rows, place.store)]
    by_arch: dict[str, list[Row]] = {}
    for job in jobs:
        by_arch.setdefault(job.row.arch, []).append(job.row)
    for name, used in by_arch.items():
        names = tuple(dict.fromkeys(row.name for row in used))
        findings += _examine_arch(ARCHES[name], names, place)
    findings += _examine_trees(jobs)
    return findings


def _examine_tools(rows: tuple[str, ...]) -> Iterator[HostFinding]:
    for tool, package in _ALWAYS.items():
        yield HostFinding(tool, rows, command.is_installed(tool), package)
    for header, package in _HEADERS.items():
        yield HostFinding(header, rows, (_INCLUDES / header).exists(), package)
    yield HostFinding("Debian's keyring", rows, _KEYRING.exists(), "debian-archive-keyring")
    faster = "without it, nothing of earlier builds is reused"
    yield HostFinding("ccache", rows, command.is_installed("ccache"), "ccache", faster, is_needed=False)


def _examine_host(rows: tuple[str, ...], store: Store) -> Iterator[HostFinding]:
    there = next(path for path in (store.root, *store.root.parents) if path.exists())
    free_mib = shutil.disk_usage(there).free >> 20
    space = f"{_NEEDED_MIB} MiB in {store.root} ({free_mib} MiB are free)"
    yield HostFinding(space, rows, free_mib >= _NEEDED_MIB, help=command.MORE_SPACE)
    yield HostFinding(
        f"{store.root} can be written", rows, os.access(there, os.W_OK), help=command.MORE_SPACE
    )


def _examine_arch(arch: Arch, rows: tuple[str, ...], place: Workspace) -> Iterator[HostFinding]:
    yield HostFinding(arch.qemu, rows, command.is_installed(arch.qemu), arch.qemu_package)
    try:
        place.find_toolchain(arch)
    except MissingToolError as error:
        package = " ".join(error.packages)
        yield HostFinding(f"a compiler for {arch.name}: {error.what}", rows, False, package)
    except InfraError as error:
        yield HostFinding(f"a compiler for {arch.name}: {error.what}", rows, False, help=error.hint)
    else:
        yield HostFinding(f"a compiler for {arch.name}", rows, True)
    if command.is_installed(arch.qemu):
        chosen, _, reason = accel.find_accel("auto", arch, place.store).partition(" ")
        told = f"{chosen} ({reason})" if chosen else "known after the first guest's boot"
        slower = "" if chosen == "kvm" else "tcg works everywhere, some ten times slower than KVM"
        yield HostFinding(f"accelerator for {arch.name}: {told}", rows, True, help=slower, is_needed=False)


def _examine_trees(jobs: Sequence[Job]) -> Iterator[HostFinding]:
    """The sources of the trees; whether the network answers is not checked."""
    for name, tree in {job.tree.name: job.tree for job in jobs}.items():
        rows = tuple(dict.fromkeys(job.row.name for job in jobs if job.tree.name == name))
        if isinstance(tree, VERSIONED):
            yield from _examine_suites(tree, rows)
        elif isinstance(tree, GitTree):
            yield HostFinding(f"the network, or a checkout, for {name}", rows, True, is_needed=False)


def _examine_suites(tree: DebianTree | DebianImageTree, rows: tuple[str, ...]) -> Iterator[HostFinding]:
    """A mirror for each suite; one suite is enough to have a kernel."""
    errors: dict[str, InfraError] = {}
    for suite in tree.suites:
        try:
            debian.make_source_line(suite.partition("@")[0])
        except InfraError as error:
            errors[suite] = error
        else:
            yield HostFinding(f"a mirror for {suite}", rows, True)
    is_needed = len(errors) == len(tree.suites)
    for suite, missing in errors.items():
        what = f"a mirror for {suite}: {missing.what}"
        yield HostFinding(what, rows, False, help=missing.hint, is_needed=is_needed)


def render(findings: Sequence[HostFinding]) -> str:
    """Every dependency with its state, the command that installs the missing ones, and a summary."""
    every = {row for finding in findings for row in finding.rows}
    lines = []
    for finding in findings:
        state = "ok" if finding.is_met else ("MISSING" if finding.is_needed else "better")
        rows = "" if set(finding.rows) == every else f"  ({', '.join(finding.rows)})"
        lines.append(f"{state:<8} {finding.need}{rows}")
        if finding.help and (not finding.is_met or not finding.is_needed):
            lines.append(f"         {finding.help}")
    if install := find_install_command(findings):
        lines += ["", install]
    stopped = sorted({row for finding in find_missing(findings) for row in finding.rows})
    lines += ["", f"cannot run: {', '.join(stopped)}" if stopped else "every row can run"]
    return "\n".join(lines) + "\n"


def find_missing(findings: Sequence[HostFinding]) -> list[HostFinding]:
    return [finding for finding in findings if finding.is_needed and not finding.is_met]


def find_packages(findings: Sequence[HostFinding]) -> list[str]:
    """The packages in Debian 12 of all missing dependencies, including optional ones."""
    words = [word for finding in findings if not finding.is_met for word in finding.package.split()]
    return sorted(set(words))


def find_install_command(findings: Sequence[HostFinding]) -> str:
    """The command that installs all missing dependencies on this host, empty if there is none."""
    packages = find_packages(findings)
    return make_install_command(packages) if packages else ""
