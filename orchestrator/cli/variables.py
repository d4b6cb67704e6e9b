# SPDX-License-Identifier: GPL-2.0-or-later
"""The variables of the command line: meaning, default, accepted values, and where a value came from."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.project.guest import read_append
from orchestrator.project.trace import parse_trace
from orchestrator.project.yamlfile import count, limit_s, size_mib, suggest, time_s

_MOST_REPEATS = 10_000
# words and separators of one path
_MOST_PARTS = 63


def read_repeat(text: str) -> int:
    """The number of trials of each test, 0 for ``auto``; raises ``ValueError``."""
    if text == "auto":
        return 0
    if not text.isdecimal() or not 0 < int(text) <= _MOST_REPEATS:
        raise ValueError(f"expected auto, or a number from 1 to {_MOST_REPEATS}, got {text}")
    return int(text)


def read_limit(text: str) -> int:
    """A time limit in native seconds: ``90``, ``90s``, ``2m``; 0 if it is empty. Raises ``ValueError``."""
    return limit_s(text) if text else 0


def read_confidence(text: str) -> float:
    """A confidence below 1; raises ``ValueError``."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.5 <= share <= 0.9999:
        raise ValueError(f"expected a number from 0.5 to 0.9999, got {text}")
    return share


def read_folder(text: str) -> None:
    """Raise ``ValueError`` for what is there and no folder."""
    try:
        path = Path(text).expanduser()
        if text and (path.exists() or path.is_symlink()) and not path.is_dir():
            raise ValueError(f"expected a folder, got {text}")
    except (OSError, RuntimeError) as error:
        # no such user, or a path that cannot be looked at
        raise ValueError(f"expected a folder, got {text}: {error}") from None


def read_origin(text: str) -> str:
    """A name as KCIDB has them; raises ``ValueError`` for others."""
    if not re.fullmatch(r"[a-z0-9_]{1,64}", text):
        raise ValueError(f"expected a name of a-z, 0-9 and _, got {text}")
    return text


def check_llvm(text: str) -> None:
    """Raises ``ValueError`` for what the kernel does not document."""
    if not re.fullmatch(r"|0|1|-\S+|\S+/", text):
        raise ValueError(f"expected 1, a suffix such as -15, or a folder such as /opt/llvm/bin/, got {text}")


def find_llvm(text: str) -> str:
    """``LLVM=`` for builds, which run in other folders; empty for gcc."""
    return f"{Path(text).expanduser().absolute()}/" if text.endswith("/") else "" if text == "0" else text


@dataclass(frozen=True, slots=True)
class Variable:
    """``about`` is one line, ``more`` what a target's help and ``explain`` add.

    ``is_inherited``: the environment may set it; CC or SIZE mean something else there. ``kind`` of ``cowbell
    list`` has its values, ``choices`` are the only ones, ``read`` raises ``ValueError`` for a wrong one.
    """

    about: str
    default: str = ""
    is_inherited: bool = True
    more: str = ""
    kind: str = ""
    choices: tuple[str, ...] = ()
    read: Callable[[str], object] | None = None


VARIABLES: Mapping[str, Variable] = {
    "ROW": Variable(
        "rows of ci/matrix.yaml: names, globs, or all",
        kind="rows",
        more="all: the rows of the user overlay, or the built-in ones if it has none.",
    ),
    "KERNEL": Variable(
        "a tree of patches/trees.yaml or a path to one",
        kind="trees",
        more="A path is a checkout, a bare repository, a folder or a tarball; or a kernel that is already "
        "built: an image, a build folder or a .deb. NAME:REF or PATH:REF selects a branch, tag or commit, "
        "NAME:VERSION a version of a Debian tree or image.",
    ),
    "MODULES": Variable(
        "folder or package with the modules of KERNEL=IMAGE",
        is_inherited=False,
        more="It is a lib/modules/RELEASE, a folder that contains one, or a .deb. Without it, modules are "
        "where the image's kind has them: /lib/modules for /boot/vmlinuz-RELEASE.",
    ),
    "SERIES": Variable(
        "patch series to compare with the plain kernel",
        kind="series",
        more="Names of patches/, folders, mboxes, patches, TREE:BASE..TIP, or the message-id or URL of a "
        "mail on lore, also with :v2 or :newest. -: an mbox or such a mail on stdin. none: only the plain "
        "kernel.",
    ),
    "DIRTY": Variable("1: include the uncommitted changes of KERNEL=PATH"),
    "ARCH": Variable(
        "x86_64, aarch64 or riscv64, instead of the row's",
        more="The kernel's names x86, arm64 and riscv mean the same.",
    ),
    "CONFIG": Variable("config fragments of kconfigs/, instead of the row's", kind="fragments"),
    "CONFIG+": Variable(
        "config fragments, symbols or files, added to the row's",
        is_inherited=False,
        kind="fragments",
        more="It may be repeated. CONFIG+=KSM=y also replaces the value that a fragment sets. "
        "CONFIG+=~/x.config takes a fragment, or a whole .config: the row's fragments replace its values, "
        "and symbols that the kernel lacks are dropped.",
    ),
    "APPEND+": Variable(
        "kernel parameters, added to the row's",
        is_inherited=False,
        more="It may be repeated, as in APPEND+=slab_nomerge APPEND+='memtest=1 nokaslr'.",
        read=read_append,
    ),
    "QEMU+": Variable(
        "arguments of QEMU, added to the row's",
        is_inherited=False,
        more="They are quoted as for a shell, as in QEMU+='-device nvme,serial=1,drive=d0 -drive ...', and "
        "may be repeated. QEMU starts no programs.",
        read=shlex.split,
    ),
    "CC": Variable("compiler of the kernels, instead of the architecture's gcc", is_inherited=False),
    "LLVM": Variable(
        "1: build the kernels with clang and LLVM's tools",
        more="As in the kernel, -15 selects the tools with this suffix, and /path/ those of a folder.",
        read=check_llvm,
    ),
    "TESTS": Variable(
        "tests: names, globs or programs, instead of the row's",
        kind="tests",
        more="A program is named by its path: C with a main(), a script for sh or python3, or a static "
        "binary. Exit status 0 is PASS, 4 or 77 SKIP, any other FAIL. bisect and bisect-step take exactly "
        "one test or subtest.",
    ),
    "TIMEOUT": Variable(
        "time limit of programs, such as 90s or 5m; default: 60s",
        is_inherited=False,
        more="It is five times as long under emulation. The test is TIMEOUT if the program still runs then.",
        read=read_limit,
    ),
    "FOREVER": Variable(
        "programs that still run after this time pass, such as 30s",
        is_inherited=False,
        more="For a program that loops until the kernel crashes. It is five times as long under emulation.",
        read=read_limit,
    ),
    "REPEAT": Variable(
        "trials of each test: a number or auto",
        "1",
        more="auto repeats a race until the result is statistically significant.",
        read=read_repeat,
    ),
    "FAILED": Variable(
        "1: repeat what was not as expected in the last run",
        is_inherited=False,
        choices=("0", "1"),
        more="The rows, the kernels and the other variables are those of that run, unless they are given. "
        "ROW= and TESTS= select among its unexpected results.",
    ),
    "GOOD": Variable("commit or Debian version on which the test passes", is_inherited=False),
    "BAD": Variable("commit or Debian version on which the test fails", is_inherited=False),
    "FIND": Variable(
        "break or fix: which commit to find",
        is_inherited=False,
        choices=("break", "fix"),
        more="With fix, BAD= is the older end. Debian versions do not need it: their order decides.",
    ),
    "PATHS": Variable("only commits that touch these files or folders", is_inherited=False),
    "CONFIG_GOOD": Variable(
        "config fragments with which the test passes", is_inherited=False, kind="fragments"
    ),
    "CONFIG_BAD": Variable(
        "config fragments with which the test fails", is_inherited=False, kind="fragments"
    ),
    "CONFIDENCE": Variable(
        "required confidence when a race is bisected", "0.95", is_inherited=False, read=read_confidence
    ),
    "FINGERPRINT": Variable("only crashes with this fingerprint (or glob) are bad", is_inherited=False),
    "RESUME": Variable("1: continue the last interrupted bisection", is_inherited=False),
    "ACCEL": Variable("accelerator: auto, kvm or tcg", "auto", choices=("auto", "kvm", "tcg")),
    "BOOT": Variable(
        "how guests boot: qemu, or vng for virtme-ng",
        "qemu",
        choices=("qemu", "vng"),
        more="vng adds the fragment virtme. shell uses vng by default where the config has virtme.",
    ),
    "DEBUG": Variable(
        "1: build with debug info, and show file:line in stack traces",
        is_inherited=False,
        choices=("0", "1"),
        more="It adds the fragment debug. VMCORE=1 and GDB=1 imply it.",
    ),
    "VMCORE": Variable(
        "1: keep the memory of a crashed or hung guest, for crash(8) and drgn", choices=("0", "1")
    ),
    "TRACE": Variable(
        "what ftrace records around each test: functions, events, kprobes",
        is_inherited=False,
        more="As in function_graph:do_wp_page, function:NAME,NAME, kmem:mm_page_alloc or "
        "'p:NAME do_wp_page vmf=%di', separated by commas. It adds the fragment trace.",
        read=parse_trace,
    ),
    "GDB": Variable("1: let gdb attach to the guest", is_inherited=False, choices=("0", "1")),
    "MUTANTS": Variable("mutants: names or globs, instead of a sample", is_inherited=False),
    "SAMPLE": Variable("number of mutants to draw at random", "150", is_inherited=False, read=count),
    "SEED": Variable("the number that decides what is drawn", "1", is_inherited=False, read=count),
    "RUN": Variable("ids of runs, joined into one report; default: the last run"),
    "FORMAT": Variable(
        "print the report as text, mail, ktap, junit, json, html or kcidb",
        "text",
        is_inherited=False,
        choices=("text", "mail", "ktap", "junit", "json", "html", "kcidb"),
        more="mail is a plain-text report for a kernel list, also for RUN= with the id of a bisection. kcidb "
        "is for KernelCI's database and needs kcidb-io.",
    ),
    "ORIGIN": Variable(
        "name of your CI system in KernelCI's database, for FORMAT=kcidb",
        "cowbell",
        is_inherited=False,
        read=read_origin,
    ),
    "DIR": Variable(
        "output folder; for worktree and refresh, the worktree", is_inherited=False, read=read_folder
    ),
    "BUILT": Variable("folders of prebuilt images, made by cowbell build DIR=", is_inherited=False),
    "SINCE": Variable("only rows whose declarations changed since this commit", is_inherited=False),
    "IMAGE": Variable("container image of the CI jobs", is_inherited=False),
    "SETUP": Variable("command that makes cowbell available in each CI job", is_inherited=False),
    "TAGS": Variable("runner tags of the CI jobs; rows add their own", is_inherited=False),
    "SHARD": Variable("split a row that takes longer among CI jobs", "15m", is_inherited=False, read=time_s),
    "SIZE": Variable("maximum size of the store", "20G", is_inherited=False, read=size_mib),
}


def _is_place(word: str) -> bool:
    """Whether a word with blanks or commas is a path, or a range of commits of one."""
    from orchestrator.source.series import parse_range
    from orchestrator.source.tree import exists

    named = parse_range(word)
    is_range = named and exists(named[0]) and not re.search(r"[\s,]", named[1] + named[2])
    return "/" in word and (exists(word) or bool(is_range))


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable's value, and where it came from: command line, environment, FILE:LINE or default."""

    value: str
    origin: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.value.replace(",", " ").split())

    @property
    def paths(self) -> tuple[str, ...]:
        """As ``words``, but a path that exists may have blanks and commas."""
        parts = re.split(r"([,\s]+)", self.value.strip(", \t\r\n"))
        words: list[str] = []
        while parts:
            longer = range(min(len(parts), _MOST_PARTS), 1, -2)
            end = next((end for end in longer if _is_place("".join(parts[:end]))), 1)
            words.append("".join(parts[:end]))
            parts = parts[end + 1 :]
        return tuple(word for word in words if word)

    @property
    def is_inherited(self) -> bool:
        """Whether the environment or the preferences have set it."""
        return self.origin not in ("command line", "default")

    @property
    def is_typed(self) -> bool:
        return self.origin == "command line"


def check_settings(settings: Mapping[str, Setting]) -> Iterator[UsageError]:
    """An error for each value that its variable does not take."""
    for name, variable in VARIABLES.items():
        setting = settings[name]
        where = name if setting.is_typed else f"{name} ({setting.origin})"
        known = variable.choices
        # a variable without a default may be empty
        if known and setting.value not in known and (setting.value or variable.default):
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            what = f"expected {expected}, got {setting.value}{suggest(setting.value, known)}"
            yield UsageError(what, where=where)
        try:
            if variable.read:
                variable.read(setting.value)
        except ValueError as error:
            yield UsageError(str(error), where=where)
