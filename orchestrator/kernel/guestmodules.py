# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds modules for kernels: those of programs, and for kernels from elsewhere those of our tests.

Without headers of such a kernel there are no modules; the tests that need them say why they are skipped.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.kernel import toolbox
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch
from orchestrator.project.guesttest import GuestTest, is_left_by_kbuild
from orchestrator.source import debian
from orchestrator.source.image import ImageFacts
from orchestrator.store.store import Store

# in the folder of the modules: why there are none
REASON = "reason"
# in the folder of a kernel: a folder with the modules of each program, by the id of its test
PROGRAMS = "program-modules"
# the same in the folder of a program
NO_MODULE = ".cowbell-no-module"
_ERROR = re.compile(r"error|\*\*\*|undefined!", re.IGNORECASE)
_BUILD_S = 600.0


def make_program_modules(
    programs: Sequence[GuestTest],
    make: Callable[[Path, Path], command.Completed],
    scratch: Path,
    target: Path,
) -> None:
    """Build the modules of programs into a folder each; one that does not compile has the reason instead.

    The reason names files from the program's folder: the same program may be tried from another place.
    ``make`` calls the kernel's make for the modules of a folder, and writes a log.
    """
    for program in programs:
        folder, own = scratch / program.id, target / program.id
        shutil.rmtree(folder, ignore_errors=True)
        own.mkdir(parents=True)
        for name in program.parts:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            if not is_left_by_kbuild(name):
                shutil.copyfile(program.path / name, folder / name)
        log = scratch / f"{program.id}.log"
        done = make(folder, log)
        if done.returncode:
            lines = log.read_text(errors="replace").splitlines()
            if error := command.find_host_error(done, lines):
                raise error
            told = _find_first(lines).strip().replace(f"{folder}/", "")
            (own / NO_MODULE).write_text(f"its module does not compile for this kernel: {told[:300]}\n")
        modules = list(folder.rglob("*.ko"))
        if not modules and not done.returncode:
            (own / NO_MODULE).write_text("its Kbuild makes no module for this kernel\n")
        for module in modules:
            shutil.copyfile(module, own / module.name)


def _find_first(lines: Sequence[str]) -> str:
    return next((line for line in lines if _ERROR.search(line)), lines[-1] if lines else "no message")


def make_guest_modules(
    sources: tuple[Path, ...],
    programs: Sequence[GuestTest],
    facts: ImageFacts,
    arch: Arch,
    store: Store,
    progress: Progress,
    draft: Path,
) -> None:
    """Build the modules into folders of a kernel; ``facts`` are those of the image.

    If that is not possible, the folders have the reason instead.
    """
    target = draft / "guest-modules"
    target.mkdir()
    with store.own_scratch("guest-modules") as scratch:
        try:
            words = list(_choose_make(facts, arch, store, progress, scratch))
            folder = scratch / "modules"
            folder.mkdir()
            for path in sources:
                shutil.copyfile(path, folder / path.name)
            # a toolbox has the assembler and the linker, too
            env = {"PATH": f"{Path(words[0]).parent}:{command.find_path()}"}

            def make(folder: Path, log: Path) -> command.Completed:
                own = [*words, f"M={folder}", "modules"]
                return command.run(
                    own, env=env, log=log, deadline=command.Deadline.after(_BUILD_S), check=False
                )

            make_program_modules(programs, make, scratch, draft / PROGRAMS)
            log = scratch / "build.log"
            if make(folder, log).returncode:
                first = _find_first(log.read_text(errors="replace").splitlines())
                raise InfraError(f"they do not compile: {first.strip()[:200]}")
        except InfraError as error:
            reason = f"no test modules for {facts.release}: {error.what}"
            progress.note(reason)
            (target / REASON).write_text(f"{reason}\n")
            for program in programs:
                own = draft / PROGRAMS / program.id
                own.mkdir(parents=True, exist_ok=True)
                if not list(own.iterdir()):
                    (own / NO_MODULE).write_text(f"no module for {facts.release}: {error.what}\n")
            return
        for module in folder.glob("*.ko"):
            shutil.copyfile(module, target / module.name)


def _choose_make(
    facts: ImageFacts, arch: Arch, store: Store, progress: Progress, scratch: Path
) -> Iterator[str]:
    """The make command for the kernel's headers, with a compiler of the release that it was built on."""
    variables = [f"ARCH={arch.kernel_arch}"]
    if facts.package:
        box = _find_toolbox(facts.suites[0], arch, store, progress)
        headers = _fetch_headers(facts, store, box, scratch)
        make, cc = box / "usr" / "bin" / "make", toolbox.find_compiler(box, arch)
        variables.append(f"CROSS_COMPILE={arch.cross_prefix}")
    else:
        headers = Path(facts.headers)
        if not facts.headers or not (headers / "Makefile").is_file():
            raise InfraError(f"there are no headers, as in /lib/modules/{facts.release}/build")
        make = Path(command.find_tool("make", "make"))
        prefix = "" if arch.is_native else arch.cross_prefix
        cc = Path(command.find_tool(f"{prefix}gcc", "gcc" if arch.is_native else arch.cross_packages))
        variables += [f"CROSS_COMPILE={prefix}"] if prefix else []
    # a make that a loader starts does not know how it is called
    yield from (str(make), "-C", str(headers), f"MAKE={make}", *variables, f"CC={cc}")


def _find_toolbox(suite: str, arch: Arch, store: Store, progress: Progress) -> Path:
    """The compiler of a release; older ones may be gone from the mirror, and newer ones do as well."""
    release = re.sub(r"-.*|@.*", "", suite).replace("experimental", "sid")
    try:
        return toolbox.make_toolbox(release, arch, store, progress)
    except InfraError:
        return toolbox.make_toolbox(arch.debian_suite, arch, store, progress)


def _fetch_headers(facts: ImageFacts, store: Store, box: Path, scratch: Path) -> Path:
    """The unpacked headers of a Debian kernel; their programs run by a toolbox."""
    _, _, version = facts.package
    release, suites = facts.release, facts.suites
    native = tuple(suite.partition("@")[0] for suite in suites)
    root = scratch / "headers"
    first = debian.download_package(store, f"linux-headers-{release}", debian.Offer(version, suites), scratch)
    tool = command.find_tool("dpkg-deb", "dpkg")
    depends = command.run([tool, "-f", str(first), "Depends"]).output
    # the programs of Kbuild are those of the host
    debian.update_lists(store, native[:1])
    packages = [first]
    for name in dict.fromkeys(re.findall(r"linux-(?:headers-[\w.+-]+-common|kbuild-[\w.+-]+)", depends)):
        packages.append(debian.download_package(store, name, debian.Offer(version, native), scratch))
    for package in packages:
        command.run([tool, "-x", str(package), str(root)])
    headers = root / "usr" / "src" / f"linux-headers-{release}"
    makefile = headers / "Makefile"
    makefile.write_text(makefile.read_text().replace("/usr/src/", f"{root}/usr/src/"))
    # only there for the type information of modules, which needs one more program
    (headers / "vmlinux").unlink(missing_ok=True)
    # these programs find others by their own names; those of older releases run on the host as they are
    for folder in root.glob("usr/lib/linux-kbuild-*") if toolbox.keeps_names(box) else ():
        for program in list(toolbox.list_elf(folder)):
            toolbox.wrap(program, box)
    return headers
