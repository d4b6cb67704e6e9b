# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists and builds the kernel's selftests of the tree under test, by the selftests' own Makefiles.

A directory is built and installed as a whole. Programs are linked statically, so that they need nothing of
the guest; those that cannot be are linked as their Makefile says, and use the libraries of the guest. A
program that does not compile is replaced by one that reports the first error of the compiler, and the others
are built all the same.
"""

import json
import re
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.kernel.build import Toolchain
from orchestrator.kernel.fragment import Fragment, parse_requests
from orchestrator.process import command
from orchestrator.process.packages import make_install_command
from orchestrator.process.progress import Progress
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.selftest import (
    FAMILY,
    FOLDER,
    FORMAT,
    OLD_NAMES,
    list_directories,
    parse_list,
    parse_run_script,
    parse_settings,
    split_id,
)
from orchestrator.run.compile import Program, make_program_id
from orchestrator.source.repository import Source, checkout, git, open_repository
from orchestrator.store.store import Store, make_id

_KIND = "programs"
_BUILD_S, _LIST_S = 3600, 600
# builds until every file that does not compile is known: a failed object may hide a program that needs it
_PASSES = 4
_FAILED = re.compile(r"^make(?:\[\d+\])?: \*\*\* \[(?:[^\]\s]+:\d+: )?([^\]]+)\] Error \d+")
_ERROR = re.compile(r"(?:fatal )?error: |undefined reference|cannot find -l|No such file or directory")
_STOP = re.compile(r"\*\*\* .*\bStop\.")
# headers and libraries of the host, by Debian package
_PACKAGES = {
    "sys/capability.h": "libcap-dev", "-lcap": "libcap-dev",
    "numa.h": "libnuma-dev", "numaif.h": "libnuma-dev", "-lnuma": "libnuma-dev",
    "cap-ng.h": "libcap-ng-dev", "-lcap-ng": "libcap-ng-dev",
    "liburing.h": "liburing-dev", "-luring": "liburing-dev",
    "libmnl/libmnl.h": "libmnl-dev", "-lmnl": "libmnl-dev",
    "popt.h": "libpopt-dev", "-lpopt": "libpopt-dev",
    "fuse.h": "libfuse-dev", "-lfuse": "libfuse-dev",
    "alsa/asoundlib.h": "libasound2-dev", "-lasound": "libasound2-dev",
    "libelf.h": "libelf-dev", "gelf.h": "libelf-dev", "-lelf": "libelf-dev",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Listing:
    """The programs that a directory of a tree lists, and their time limit.

    ``folder`` is the directory's path in the tree, empty if there is none.
    """

    folder: str
    programs: tuple[str, ...]
    timeout_s: int


def find_folder(directory: str, source: Source, store: Store) -> str:
    """The folder of a selftest directory in a tree, also by its older name; empty if there is none."""
    top, slash, rest = directory.partition("/")
    names = [directory, *([f"{OLD_NAMES[top]}{slash}{rest}"] if top in OLD_NAMES else [])]
    for name in names:
        if _read(f"{FOLDER}/{name}/Makefile", source, store):
            return f"{FOLDER}/{name}"
    return ""


def read_fragments(directories: Sequence[str], source: Source, store: Store) -> dict[str, Fragment]:
    """The fragment ``config`` of each directory that has one, by name; a tree need not have its symbols."""
    found = {}
    for directory in directories:
        place = f"{find_folder(directory, source, store)}/config"
        if text := _read(place, source, store):
            name = f"{FAMILY}/{directory}"
            found[name] = parse_requests(name, text, place)
    return found


def _read(path: str, source: Source, store: Store) -> str:
    done = git(open_repository(store), "cat-file", "blob", f"{source.commit}:{path}", check=False)
    return done.output if done.returncode == 0 else ""


def find_listing(directory: str, source: Source, toolchain: Toolchain, store: Store) -> Listing | None:
    """The programs of a directory, if they are listed already."""
    path = store.use(_KIND, _make_list_id(directory, source, toolchain)) / "list.json"
    if not path.is_file():
        return None
    told = json.loads(path.read_bytes())
    return Listing(told["folder"], tuple(told["programs"]), told["timeout_s"])


def _make_list_id(directory: str, source: Source, toolchain: Toolchain) -> str:
    return make_id("list of selftests", directory, source.source_id, toolchain.identity, FORMAT)


def list_programs(
    directory: str, source: Source, toolchain: Toolchain, store: Store, progress: Progress
) -> Listing:
    """The programs that the Makefile and the run script of a directory list; nothing is compiled."""

    def fill(draft: Path) -> None:
        progress.stage("source", f"list the {directory} selftests of {source.tree} {source.version}")
        folder = find_folder(directory, source, store)
        programs: list[str] = []
        timeout_s = parse_settings(_read(f"{folder}/settings", source, store) if folder else "")
        if folder:
            with checkout(source, store) as worktree, store.scratch(f"selftests-{list_id}") as scratch:
                programs = _list_programs(directory, worktree, folder, toolchain, source, scratch)
        write = {"folder": folder, "programs": programs, "timeout_s": timeout_s}
        (draft / "list.json").write_text(json.dumps(write))

    list_id = _make_list_id(directory, source, toolchain)
    store.publish(_KIND, list_id, fill)
    listing = find_listing(directory, source, toolchain, store)
    assert listing
    return listing


def _list_programs(
    directory: str, worktree: Path, folder: str, toolchain: Toolchain, source: Source, scratch: Path
) -> list[str]:
    place = worktree / folder
    make = [*_make_words(toolchain, source, scratch), f"OUTPUT={scratch}/out", f"COLLECTION={directory}"]
    (scratch / "out").mkdir()
    done = command.run(
        [*make, "-s", "--no-print-directory", "-C", str(place), "emit_tests"],
        cwd=worktree,
        deadline=command.Deadline.after(_LIST_S),
        check=False,
    )
    if error := command.find_host_error(done, done.output.splitlines()):
        raise error
    listed = parse_list(done.output, directory)
    scripts = _find_run_scripts(place)
    if not scripts:
        return listed
    # a listed script may do no more than call the run script for a category
    callers = re.compile("|".join(rf"(?:^|[\s/]){re.escape(name)}\b" for name in scripts), re.MULTILINE)
    others = [
        name
        for name in listed
        if name not in scripts and not ((place / name).is_file() and callers.search(_read_text(place / name)))
    ]
    return list(dict.fromkeys([*(name for each in scripts.values() for name in each), *others]))


def _find_run_scripts(place: Path) -> dict[str, dict[str, tuple[str, ...]]]:
    """By run script of a folder, the categories of each program."""
    found = {}
    for path in sorted(place.glob("run_*.sh")):
        if script := parse_run_script(path.name, _read_text(path)):
            found[path.name] = dict(script.categories)
    return found


def _read_text(path: Path) -> str:
    return path.read_text(errors="replace")


def _make_words(toolchain: Toolchain, source: Source, objects: Path, cc: str = "") -> list[str]:
    # guest programs are always compiled with gcc
    words = [word for word in toolchain.make_words if word.startswith(("ARCH=", "CROSS_COMPILE="))]
    cc = cc or toolchain.compiler
    return [command.find_tool("make", "make"), *words, *source.make_words, f"CC={cc}", f"O={objects}"]


def compile_selftests(
    tests: Sequence[GuestTest], source: Source, toolchain: Toolchain, store: Store, progress: Progress
) -> list[Program]:
    """The programs of some selftests; each directory of a source is built once.

    Raises ``InfraError`` if the UAPI headers of the kernel cannot be installed.
    """
    folders = {
        directory: _build_directory(directory, source, toolchain, store, progress)
        for directory in list_directories(tests)
    }
    return [_find_program(test, folders[split_id(test.id)[0]], source, toolchain) for test in tests]


def _find_program(test: GuestTest, folder: Path, source: Source, toolchain: Toolchain) -> Program:
    """The installed directory of a selftest, or the stub that reports why there is none."""
    directory, name = split_id(test.id)
    program_id = make_program_id(test, toolchain)
    stub = folder / "stubs" / name
    if not (folder / "install" / directory / name).is_file() and not stub.is_file():
        stub = folder / "stubs" / ".absent"
    return Program(test, program_id, stub if stub.is_file() else folder / "install")


def _build_directory(
    directory: str, source: Source, toolchain: Toolchain, store: Store, progress: Progress
) -> Path:
    def fill(draft: Path) -> None:
        progress.stage("build", f"{directory} selftests of {source.tree} {source.version}")
        (draft / "stubs").mkdir()
        listing = list_programs(directory, source, toolchain, store, progress)
        absent = f"the tree has no {FOLDER}/{directory}"
        if listing.folder:
            absent = f"the tree builds no program of this name in {listing.folder}"
        (draft / "stubs" / ".absent").write_text(render_stub("skip", absent))
        if listing.folder:
            with checkout(source, store) as worktree, store.scratch(f"selftests-{name}") as scratch:
                _install(directory, worktree, listing, toolchain, source, scratch, draft)

    name = make_id("build of selftests", directory, source.source_id, toolchain.identity, FORMAT)
    return store.publish(_KIND, name, fill)


def _install(
    directory: str,
    worktree: Path,
    listing: Listing,
    toolchain: Toolchain,
    source: Source,
    scratch: Path,
    draft: Path,
) -> None:
    """Build and install a directory, with stubs for what does not compile."""
    objects, installed = scratch / "objects", scratch / "install"
    objects.mkdir()
    make = _make_words(toolchain, source, objects)
    command.run([*make, "-s", "headers"], cwd=worktree, deadline=command.Deadline.after(_LIST_S))
    make = _make_words(toolchain, source, objects, str(_write_compiler(toolchain, scratch)))
    target = listing.folder.removeprefix(f"{FOLDER}/")
    command.find_tool("rsync", "rsync")
    broken: dict[Path, str] = {}
    for _ in range(_PASSES):
        done = command.run(
            [*make, "-k", "-C", str(worktree / FOLDER), f"TARGETS={target}", "SKIP_TARGETS=",
             f"KSFT_INSTALL_PATH={installed}", f"INSTALL_PATH={installed}", "install"],
            cwd=worktree,
            deadline=command.Deadline.after(_BUILD_S),
            check=False,
        )  # fmt: skip
        lines = [line.replace(f"{worktree}/", "") for line in done.output.splitlines()]
        if error := command.find_host_error(done, lines):
            raise error
        new = {path: why for path, why in _find_broken(lines, objects).items() if path not in broken}
        if not new:
            break
        broken |= new
        for path, why in new.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(render_stub("broken", why))
            path.chmod(0o755)
    arch = next((word for word in make if word.startswith("ARCH=")), "")
    _keep(directory, installed / target, listing, broken, lines, worktree, draft, arch)


def _keep(
    directory: str,
    installed: Path,
    listing: Listing,
    broken: dict[Path, str],
    lines: Sequence[str],
    worktree: Path,
    draft: Path,
    arch: str,
) -> None:
    """Move what was installed, and write the stubs of the programs that were not."""
    final = draft / "install" / directory
    final.parent.mkdir(parents=True)
    is_installed = installed.is_dir() and any(installed.iterdir())
    if is_installed:
        shutil.move(installed, final)
    else:
        final.mkdir()
    shared = installed.parents[len(Path(listing.folder.removeprefix(f"{FOLDER}/")).parts) - 1]
    for path in shared.glob("*") if shared.is_dir() else ():
        # what the directory's programs include of others, such as lib.sh of net
        if path.is_dir() and path.name != directory.split("/")[0]:
            shutil.move(path, draft / "install" / path.name)
    runs = [
        f"{name} {script} {' '.join(categories)}".rstrip()
        for script, programs in _find_run_scripts(worktree / listing.folder).items()
        for name, categories in programs.items()
    ]
    (final / "cowbell-runs").write_text("".join(f"{line}\n" for line in runs))
    stubs = {path.name: ("broken", why) for path, why in broken.items()}
    missing = [name for name in listing.programs if name not in stubs and not (final / name).is_file()]
    if is_installed:
        # such as a 32-bit program on a host without a 32-bit C library
        told = ("skip", f"the Makefile of {listing.folder} does not build it on this host for {arch}")
    else:
        error = next(
            (line for line in lines if _ERROR.search(line) or _STOP.search(line)), "no error is named"
        )
        told = ("broken", f"{listing.folder} cannot be installed: {error}")
    for name, stub in {**dict.fromkeys(missing, told), **stubs}.items():
        (draft / "stubs" / name).write_text(render_stub(*stub))


def _write_compiler(toolchain: Toolchain, scratch: Path) -> Path:
    """A compiler that links statically what can be linked so.

    As without -static, a program can be loaded anywhere unless its Makefile says -no-pie: tests that map
    fixed addresses depend on where its heap is.
    """
    cc, log = shlex.quote(toolchain.compiler), shlex.quote(str(scratch / "cc"))
    script = scratch / "cc.sh"
    script.write_text(
        "#!/bin/sh\n"
        f'case " $* " in *" -shared "*) exec {cc} "$@" ;; esac\n'
        f"log={log}.$$\n"
        'case " $* " in *" -no-pie "*) kinds=-static ;; *) kinds="-static-pie -static" ;; esac\n'
        "for kind in $kinds; do\n"
        f'\tif {cc} $kind "$@" 2> "$log"; then cat "$log" >&2; rm -f "$log"; exit 0; fi\n'
        "done\n"
        'rm -f "$log"\n'
        f'exec {cc} "$@"\n'
    )
    script.chmod(0o755)
    return script


def _find_broken(lines: Sequence[str], objects: Path) -> dict[Path, str]:
    """The files that make could not build, each with the first error before it."""
    found: dict[Path, str] = {}
    why = ""
    for line in lines:
        if match := _FAILED.match(line):
            path = Path(match[1])
            if path.is_absolute() and path.is_relative_to(objects) and not path.is_dir():
                found.setdefault(path, _name_package(why or "its Makefile gives no error"))
            why = ""
        elif not why and _ERROR.search(line):
            why = line.strip()
    return found


def _name_package(why: str) -> str:
    """The error of a compiler, with the Debian package of a header or library that the host lacks."""
    match = re.search(r"error: ([\w./-]+\.h): No such file|cannot find (-l[\w-]+)", why)
    package = _PACKAGES.get(match[1] or match[2], "") if match else ""
    return f"{why} (the host lacks it: {make_install_command([package])})" if package else why


def render_stub(kind: str, why: str) -> str:
    """A program that reports why there is nothing to run: ``skip`` or ``broken``."""
    return f"#!/bin/sh\nprintf '%s\\n' {shlex.quote(f'# cowbell: {kind} {why}')}\nexit 127\n"
