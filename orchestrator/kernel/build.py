# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds kernels, each of them only once.

A kernel is identified by the hash of its inputs. It is built out of tree, in a folder that is reused for all
commits of one tree, so a series rebuilds only what it touches. A folder in which a build was killed is
emptied; ccache restores the objects that were compiled.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError, StageFailure
from orchestrator.kernel import toolbox
from orchestrator.kernel.configcheck import find_dotconfig, make_dotconfig
from orchestrator.kernel.guestmodules import PROGRAMS, make_guest_modules, make_program_modules
from orchestrator.kernel.hostneeds import check_host_needs
from orchestrator.kernel.kconfig import Config, parse_config
from orchestrator.kernel.newwarnings import find_new_warnings
from orchestrator.process import command
from orchestrator.process.budget import WHOLE_HOST, Budget, MakeShare
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch, Image
from orchestrator.project.guesttest import GuestTest
from orchestrator.source.image import KIND, read_facts
from orchestrator.source.repository import Source, checkout
from orchestrator.store.store import TREES, Store, make_id, make_tree_id, write_atomic, write_json

_COMPILED = re.compile(r"\s+(?:CC|AS)\s+(?!\[M\])")
_ERROR = re.compile(
    r"(?:^|\s)(?:fatal )?error:|undefined reference|\*\*\* .*(?:Error|No rule|Stop|not clean)"
)
# identical input gives identical bytes, independent of user, host and time
_REPRODUCIBLE = (
    "KBUILD_BUILD_TIMESTAMP=2000-01-01",
    "KBUILD_BUILD_USER=cowbell",
    "KBUILD_BUILD_HOST=cowbell",
    # the default counts the links in a build folder
    "KBUILD_BUILD_VERSION=1",
    "LOCALVERSION=",
)
_NEEDED_MIB = 2048
_C_NUMBER = re.compile(r"\b(0x[0-9A-Fa-f]+|\d+)[UL]+\b")
_NO_SCRIPTS = shutil.ignore_patterns("*.cmd", "Makefile", "*.in", "__pycache__")
_STATISTICS = "ccache.log"
# format of a folder in kernels/; part of the id, so kernels of older versions are ignored
_FORMAT = 4


# the tools of LLVM=1, by the variables of make
_LLVM = {
    "LD": "ld.lld",
    **{name: f"llvm-{name.lower()}" for name in ("AR", "NM", "OBJCOPY", "OBJDUMP", "READELF", "STRIP")},
    "HOSTCC": "clang",
    "HOSTCXX": "clang++",
    "HOSTLD": "ld.lld",
    "HOSTAR": "llvm-ar",
}


@dataclass(frozen=True, slots=True)
class Toolchain:
    """The compiler of the guest tests, the make variables, and the tool versions that are part of an id.

    With a ``suite``, the compiler is that of a Debian release, which is fetched when it is first needed.
    """

    compiler: str
    make_words: tuple[str, ...]
    identity: str
    suite: str = ""


def make_absent_toolchain(identity: str) -> Toolchain:
    """The toolchain of a kernel that was built elsewhere, which cannot compile anything here."""
    return Toolchain("", (), identity)


def find_toolchain(arch: Arch, cc: str = "", llvm: str = "") -> Toolchain:
    """The compiler for an architecture; raises ``InfraError`` with the package name if it is missing.

    ``cc`` selects another kernel compiler than the default gcc, ``llvm`` clang and the LLVM tools: ``1``, a
    suffix with a dash, or a folder with a slash at its end. Guest tests are always compiled with gcc, whose
    packages include the C library of every architecture.
    """
    prefix = "" if arch.is_native else arch.cross_prefix
    package = "gcc" if arch.is_native else arch.cross_packages
    compiler = command.find_tool(f"{prefix}gcc", package)
    words = [f"ARCH={arch.kernel_arch}", *(["LLVM=1"] if llvm else [])]
    version_words = words[1:]
    if llvm:
        before, after = (llvm, "") if llvm.endswith("/") else ("", llvm.removeprefix("1"))
        cc = cc or f"{before}clang{after}"
        linker = command.find_tool(f"{before}ld.lld{after}", f"lld{after} llvm{after}")
        command.find_tool(f"{before}llvm-ar{after}", f"llvm{after}")
        if before or after:
            # kernels before 5.18 take any value for 1
            words += [f"{variable}={before}{tool}{after}" for variable, tool in _LLVM.items()]
    else:
        cc, linker = cc or f"{prefix}gcc", command.find_tool(f"{prefix}ld", "binutils")
    tools = (command.find_tool(cc, package if cc == f"{prefix}gcc" else cc), linker)
    identity = " ".join(
        [*version_words, *(command.run([tool, "--version"]).output.splitlines()[0] for tool in tools)]
    )
    words.append(f"CC=ccache {cc}" if command.is_installed("ccache") else f"CC={cc}")
    if prefix:
        words.append(f"CROSS_COMPILE={prefix}")
    return Toolchain(compiler, tuple(words), identity)


def find_gcc(arch: Arch, store: Store) -> Toolchain:
    """The compiler of the guest tests for kernels that are not built here: the host's, or else Debian's."""
    try:
        return find_toolchain(arch)
    except InfraError:
        compiler = toolbox.find_compiler(toolbox.find_place(arch.debian_suite, arch, store), arch)
        return Toolchain(str(compiler), (), f"gcc of Debian {arch.debian_suite}", arch.debian_suite)


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """All inputs of a kernel build.

    ``guest_modules`` are the sources of test modules, built if the config has modules, ``programs`` the tests
    that are folders with modules of their own.
    """

    source: Source
    config: Config
    arch: Arch
    toolchain: Toolchain
    guest_modules: tuple[Path, ...] = ()
    programs: tuple[GuestTest, ...] = ()

    @property
    def build_id(self) -> str:
        return make_id(
            make_tree_id({path.name: path for path in self.guest_modules}) if self.has_modules else "",
            [(test.id, test.sha256) for test in self.programs],
            self.source.source_id,
            self.config.config_id,
            self.toolchain.identity,
            (*_REPRODUCIBLE, *self.source.make_words),
            _FORMAT,
        )

    @property
    def has_modules(self) -> bool:
        if self.source.image:
            return bool(self.guest_modules)
        return self._is_requested("MODULES")

    @property
    def has_debug_info(self) -> bool:
        return self._is_requested("DEBUG_INFO")

    def _is_requested(self, symbol: str) -> bool:
        return any((request.symbol, request.value) == (symbol, "y") for request in self.config.requests)

    @property
    def folder_id(self) -> str:
        """The id of the build folder of a tree, which is shared by its commits and the configs of a family.

        Kbuild rebuilds only what changed.
        """
        config = self.config.family or self.config.config_id
        return make_id(config, self.toolchain.identity)

    @property
    def subject(self) -> str:
        src = self.source
        return f"{src.tree} {src.version}" + (f" + {src.series}" if src.series else "")


@dataclass(frozen=True, slots=True)
class Kernel:
    """A built kernel: its request, its folder in the store, and its boot image.

    The guest reports ``gnu_build_id``, which proves that it runs this kernel. ``folder`` also has ``vmlinux``
    and, with CONFIG_MODULES, ``modules`` for the guest's root, ``guest-modules`` with the test modules, and
    those of programs.
    A kernel that was built elsewhere is proven by its ``banner``; its ``release`` names its modules.
    With debug info, it has the tree's scripts for gdb, which ``vmlinux-gdb.py`` loads.
    """

    request: BuildRequest
    folder: Path
    image: Path
    gnu_build_id: str
    release: str = ""
    banner: str = ""

    @property
    def build_s(self) -> float:
        """The duration of the build in seconds."""
        return float(json.loads((self.folder / "build.json").read_text())["wall_s"])

    @property
    def source_dir(self) -> str:
        """The folder of the sources in the debug info, on the machine that built the kernel."""
        return str(json.loads((self.folder / "build.json").read_text())["source_dir"])


def find_kernel(request: BuildRequest, store: Store) -> Kernel | None:
    """The kernel, if it is already built."""
    folder = store.use("kernels", request.build_id)
    if not folder.is_dir():
        return None
    path = folder / "build.json"
    try:
        build = json.loads(path.read_bytes())
        own = (build.get("release", ""), build.get("banner", ""))
        return Kernel(request, folder, folder / build["image"], build["gnu_build_id"], *own)
    except (OSError, ValueError, KeyError, TypeError) as error:
        hint = f"remove {folder}; the kernel is then built again"
        raise InfraError(f"is damaged: {error!r}", where=str(path), hint=hint) from None


def build_kernel(
    request: BuildRequest,
    store: Store,
    progress: Progress,
    budget: Budget = WHOLE_HOST,
    *,
    limit_s: float,
    redo: bool = False,
) -> Kernel:
    """Build a kernel unless it exists. Raises ``StageFailure`` with the first error of a failed build."""
    known = find_kernel(request, store)
    if known and not redo:
        return known
    if known:
        shutil.rmtree(known.folder)

    def fill(draft: Path) -> None:
        if request.source.image:
            _take_image(request, store, progress, draft)
            return
        text = _make_config(request, store, progress, budget)
        # no core is used while waiting for the worktree or a concurrent build
        with checkout(request.source, store) as worktree, budget.build() as share:
            _build(request, text, worktree, store, progress, share, limit_s, draft)

    store.publish("kernels", request.build_id, fill)
    made = find_kernel(request, store)
    assert made
    return made


def _take_image(request: BuildRequest, store: Store, progress: Progress, draft: Path) -> None:
    """The files of an image that was built elsewhere, as those of a kernel that was built here."""
    place, facts = store.use(KIND, request.source.image), read_facts(store, request.source.image)
    progress.stage("build", f"{request.subject}: take the image, build the test modules")
    shutil.copytree(place, draft, dirs_exist_ok=True, copy_function=os.link)
    if request.has_modules:
        make_guest_modules(
            request.guest_modules, request.programs, facts, request.arch, store, progress, draft
        )
    write_json(
        draft / "build.json",
        {
            "image": "image",
            "gnu_build_id": "",
            "release": facts.release,
            "banner": facts.banner,
            "vmlinux_sha256": hashlib.sha256((draft / "image").read_bytes()).hexdigest(),
            "wall_s": 0.0,
            "cpu_s": 0.0,
            "make": "",
            "warnings": [],
            "new_warnings": [],
        },
    )


def _build(
    request: BuildRequest,
    text: str,
    worktree: Path,
    store: Store,
    progress: Progress,
    share: MakeShare,
    limit_s: float,
    draft: Path,
) -> None:
    store.check_space(_NEEDED_MIB, "a build")
    build_dir = store.use(f"{TREES}/{request.source.folder}", request.folder_id)
    unclean = build_dir / ".building"
    if unclean.exists():
        progress.note("an earlier build was killed; its objects are discarded")
        shutil.rmtree(build_dir)
    make = _prepare_make(request, worktree, store, share, build_dir)
    (build_dir / _STATISTICS).unlink(missing_ok=True)
    final = build_dir / ".config"
    # an untouched .config costs no rebuild
    if not final.exists() or final.read_text() != text:
        write_atomic(final, text)
    progress.stage("build", request.subject)
    unclean.touch()
    counted = store.path("objects", request.config.config_id)
    image = _choose_image(request.arch, text)
    targets = [image.target, *(["modules"] if request.has_modules else [])]
    targets += ["scripts_gdb"] if request.has_debug_info else []
    done = _compile(make, targets, build_dir, counted, progress, limit_s)
    unclean.unlink()
    if done.returncode:
        raise _explain_failure(done, worktree, store)
    shutil.copyfile(build_dir / "vmlinux", draft / "vmlinux")
    shutil.copyfile(build_dir / image.file, draft / Path(image.file).name)
    if "modules" in targets:
        _install_modules(make, build_dir / "build.log", draft / "modules")
        _build_guest_modules(request, make, build_dir, draft)
    if "\nCONFIG_GCOV_KERNEL=y\n" in text:
        # what the counters of gcov belong to
        _copy_notes(build_dir, draft / "gcno")
    if request.has_debug_info:
        _copy_gdb_scripts(build_dir, draft)
    (draft / "config").write_text(text)
    new_warnings = _find_new_warnings(request, worktree, build_dir)
    _describe(draft, Path(image.file).name, build_dir, worktree, done, new_warnings)


def _copy_gdb_scripts(build_dir: Path, folder: Path) -> None:
    """Copy the scripts from where gdb would find them beside vmlinux; there they are links to the sources."""
    shutil.copytree(build_dir / "scripts/gdb", folder / "scripts/gdb", ignore=_NO_SCRIPTS)
    shutil.copyfile(build_dir / "vmlinux-gdb.py", folder / "vmlinux-gdb.py")
    constants = folder / "scripts/gdb/linux/constants.py"
    # before v6.4 it has the number 1UL of C
    write_atomic(constants, _C_NUMBER.sub(r"\1", constants.read_text()))


def _copy_notes(build_dir: Path, folder: Path) -> None:
    for path in build_dir.rglob("*.gcno"):
        target = folder / path.relative_to(build_dir)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)


def check_config(
    request: BuildRequest, store: Store, progress: Progress, budget: Budget = WHOLE_HOST
) -> None:
    """Check by Kconfig, before anything is compiled, that each requested symbol gets its value.

    Raises ``StageFailure`` as ``configure`` does. Kernels that are already built are not checked again.
    """
    if not find_kernel(request, store):
        _make_config(request, store, progress, budget)


def find_config(request: BuildRequest, store: Store) -> Path:
    """The folder that is there once ``check_config`` has checked this config on these Kconfig files."""
    words, identity = _list_make_words(request), request.toolchain.identity
    return find_dotconfig(request.config, request.source, words, identity, store)


def _make_config(request: BuildRequest, store: Store, progress: Progress, budget: Budget) -> str:
    """The ``.config``; Kconfig runs once for all sources that have the same Kconfig files."""

    def run_kconfig(call: Callable[[], str]) -> str:
        progress.stage("kconfig", request.subject)
        with budget.build():
            return call()

    words, env = _list_make_words(request), _make_ccache_env(request, store)
    identity = request.toolchain.identity
    # Kconfig drops some symbols if the host lacks what they need, which is not the kernel's fault
    requested = [r.symbol for r in request.config.requests if r.value == "y" and not r.is_optional]
    check_host_needs(requested, request.subject)
    text = make_dotconfig(request.config, request.source, words, identity, store, env, run_kconfig)
    check_host_needs([name for name, value in parse_config(text).items() if value == "y"], request.subject)
    return text


def _list_make_words(request: BuildRequest) -> tuple[str, ...]:
    make = command.find_tool("make", "make")
    return (make, *request.toolchain.make_words, *_REPRODUCIBLE, *request.source.make_words)


def _make_ccache_env(request: BuildRequest, store: Store) -> dict[str, str]:
    return {
        "CCACHE_DIR": os.environ.get("CCACHE_DIR", str(store.path("ccache"))),
        # an object is the same wherever the folder of its tree is, and whatever it is called
        "CCACHE_BASEDIR": str(store.path(TREES, request.source.folder).resolve()),
        # configs differ in headers that almost all files include: to look at preprocessed text costs a tenth
        "CCACHE_DEPEND": "1",
    }


def _prepare_make(
    request: BuildRequest, worktree: Path, store: Store, share: MakeShare, build_dir: Path
) -> "_Make":
    """Create a build folder and return how make is called for it."""
    build_dir.mkdir(parents=True, exist_ok=True)
    env = {**_make_ccache_env(request, store), "CCACHE_STATSLOG": str(build_dir / _STATISTICS)}
    return _Make((*_list_make_words(request), f"O={build_dir}"), worktree, env, share)


@dataclass(frozen=True, slots=True)
class _Make:
    """The make command for one kernel: common arguments, worktree, environment, and share of cores."""

    argv: tuple[str, ...]
    worktree: Path
    env: Mapping[str, str]
    share: MakeShare

    def run(
        self,
        words: Sequence[str],
        log: Path,
        *,
        deadline: command.Deadline | None = None,
        on_line: Callable[[str], None] | None = None,
        check: bool = True,
    ) -> command.Completed:
        share = self.share
        return command.run(
            [*self.argv, *share.words, *words],
            cwd=self.worktree,
            env={**self.env, **share.env},
            deadline=deadline,
            log=log,
            on_line=on_line,
            check=check,
            pass_fds=share.fds,
        )


def _install_modules(make: _Make, log: Path, root: Path) -> None:
    """Install the modules below a folder, without symbolic links to folders of this machine."""
    words = [f"INSTALL_MOD_PATH={root}", "INSTALL_MOD_STRIP=1", "modules_install"]
    make.run(words, log)
    for link in root.glob("lib/modules/*/*"):
        if link.is_symlink():
            link.unlink()


def _build_guest_modules(request: BuildRequest, make: _Make, build_dir: Path, draft: Path) -> None:
    """Build the modules of the guest tests and of programs for this kernel."""
    target = draft / "guest-modules"
    target.mkdir()
    folder = build_dir / "guest-modules"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def build(folder: Path, log: Path) -> command.Completed:
        return make.run([f"M={folder}", "modules"], log, check=False)

    make_program_modules(request.programs, build, build_dir / PROGRAMS, draft / PROGRAMS)
    if not request.guest_modules:
        return
    for path in request.guest_modules:
        shutil.copyfile(path, folder / path.name)
    log = folder / "build.log"
    done = build(folder, log)
    if done.returncode:
        words = log.read_text(errors="replace").splitlines()
        raise command.find_host_error(done, words) or InfraError(
            "the modules of the guest tests do not compile for this kernel",
            where=request.subject,
            hint="\n".join([line for line in words if _ERROR.search(line)][:6]),
        )
    for module in folder.glob("*.ko"):
        shutil.copyfile(module, target / module.name)


def _find_new_warnings(request: BuildRequest, worktree: Path, build_dir: Path) -> list[str]:
    src = request.source
    # nobody mends the warnings of generated code
    if not src.series or src.is_generated:
        return []
    return find_new_warnings(worktree, src.base, src.commit, build_dir, request.toolchain.make_words)


def _choose_image(arch: Arch, config_text: str) -> Image:
    """The first image of the architecture that this config supports."""
    return next(i for i in arch.images if not i.needs or f"\nCONFIG_{i.needs}=y\n" in config_text)


def _describe(
    draft: Path,
    image: str,
    build_dir: Path,
    worktree: Path,
    done: command.Completed,
    new_warnings: list[str],
) -> None:
    """Write ``build.json`` and the log of a build beside its image."""
    log = build_dir / "build.log"
    shutil.copyfile(log, draft / "build.log")
    lines = log.read_text(errors="replace").splitlines()
    vmlinux = draft / "vmlinux"
    write_json(
        draft / "build.json",
        {
            "image": image,
            "source_dir": str(worktree),
            "gnu_build_id": read_gnu_build_id(vmlinux),
            "vmlinux_sha256": hashlib.sha256(vmlinux.read_bytes()).hexdigest(),
            "wall_s": round(done.wall_s, 1),
            "cpu_s": round(done.cpu_s, 1),
            "ccache": _count_ccache(build_dir / _STATISTICS),
            "make": done.line,
            "warnings": [line for line in lines if "warning:" in line],
            # with W=1, in the files that the series touches
            "new_warnings": new_warnings,
        },
    )


def _count_ccache(statistics: Path) -> dict[str, int]:
    """The cache hits and misses of a build."""
    lines = statistics.read_text().splitlines() if statistics.exists() else []
    return {
        "hits": sum(lines.count(f"{mode}_cache_hit") for mode in ("direct", "preprocessed")),
        "misses": lines.count("cache_miss"),
    }


def _compile(
    make: _Make, targets: Sequence[str], build_dir: Path, counted: Path, progress: Progress, limit_s: float
) -> command.Completed:
    log = build_dir / "build.log"
    log.unlink(missing_ok=True)
    about = int(counted.read_text()) if counted.exists() else None
    compiled = 0

    def follow(line: str) -> None:
        nonlocal compiled
        if _COMPILED.match(line):
            compiled += 1
            progress.count(compiled, about if about and compiled <= about else None, "files compiled")

    deadline = command.Deadline.after(limit_s)
    done = make.run(targets, log, deadline=deadline, on_line=follow, check=False)
    if not done.returncode and compiled > (about or 0):
        write_atomic(counted, str(compiled))
    return done


def _explain_failure(done: command.Completed, worktree: Path, store: Store) -> StageFailure | InfraError:
    """The first error of the log with its source lines; an ``InfraError`` if the host failed."""
    assert done.log
    kept = store.path("logs", f"build-{make_id(done.line, done.wall_s)}.log")
    shutil.copyfile(done.log, kept)
    lines = kept.read_text(errors="replace").splitlines()
    if error := command.find_host_error(done, lines):
        return error
    first = next((i for i, line in enumerate(lines) if _ERROR.search(line)), max(0, len(lines) - 6))
    excerpt = lines[first : first + 6] + _quote_source(lines[first], worktree)
    return StageFailure("build", "the kernel does not build", hint="\n".join(excerpt), log=kept)


def _quote_source(line: str, worktree: Path) -> list[str]:
    """The source lines around the location in a compiler message, as ``number: text``."""
    place = re.match(r"(\S+?):(\d+):", line)
    file = worktree / place[1] if place else None
    if not place or not file or not file.is_file():
        return []
    number = int(place[2])
    listed = list(enumerate(file.read_text(errors="replace").splitlines(), 1))
    around = listed[max(0, number - 4) : number + 3]
    return [f"{place[1]}:", *(f"{'>' if n == number else ' '}{n:6}: {text}" for n, text in around)]


def read_gnu_build_id(vmlinux: Path) -> str:
    """The GNU build id in hex; in the guest it is in ``/sys/kernel/notes``."""
    notes = command.run([command.find_tool("readelf", "binutils"), "-n", str(vmlinux)]).output
    match = re.search(r"Build ID: ([0-9a-f]+)", notes)
    if not match:
        raise InfraError("has no GNU build id", where=str(vmlinux))
    return match[1]
