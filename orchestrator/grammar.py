# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the command line: targets, variables, options, in, what was asked for out."""

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.document import size_mib, suggest
from orchestrator.errors import UsageError, raise_all

TARGETS: Mapping[str, str] = {
    "source": "fetch the trees and apply the series",
    "config": "what becomes of every config symbol that is asked for, and why",
    "build": "source, then configure and build the kernels",
    "test": "build, then boot, run the cases and report (the default)",
    "shell": "build, then boot one kernel and open a shell in its guest, or run the commands on stdin",
    "report": "show a run again: RUN=ID, or the last one",
    "gc": "remove what was not used for longest, until the store has at most SIZE",
    "list": "what there is: rows, kernels, series, fragments, cases; or --changelog",
    "explain": "all about the cases that are named after it",
    "proof": "which kernels every case was seen to fail on, and to pass on",
    "series": "the patches of the series; with KERNEL= (and -n to keep nothing) whether they apply",
    "worktree": "open SERIES= on KERNEL= as commits to edit, and print where (DIR= chooses)",
    "refresh": "write the commits of that worktree back into patches/SERIES",
}


# these do not go together with others
ALONE = ("shell", "gc", "list", "explain", "proof", "series", "worktree", "refresh")


@dataclass(frozen=True, slots=True)
class Variable:
    """``is_inherited``: it may come from the environment, where a CC or SIZE means something else."""

    about: str
    default: str = ""
    is_inherited: bool = True


VARIABLES: Mapping[str, Variable] = {
    "ROW": Variable("rows of ci/matrix.yaml, by name; all of them when empty"),
    "KERNEL": Variable("a tree of patches/trees.yaml or a /path/to/one, with :REF if wanted"),
    "SERIES": Variable(
        "series to compare the plain kernel with: names of patches/, folders, mboxes, patches, "
        "TREE:BASE..TIP; none for none"
    ),
    "DIRTY": Variable("1 takes KERNEL=/path/to/checkout with its changes that are not committed"),
    "ARCH": Variable("x86_64, aarch64 or riscv64, instead of the row's"),
    "CONFIG": Variable("fragments of kconfigs/, instead of the row's"),
    "CC": Variable("the compiler of the kernels, instead of the architecture's gcc", is_inherited=False),
    "LLVM": Variable("1 builds kernels with clang and LLVM's tools"),
    "TESTS": Variable("case ids or globs, instead of the row's"),
    "ACCEL": Variable("auto, kvm or tcg", "auto"),
    "BOOT": Variable(
        "who boots the guests: qemu, or vng for virtme-ng, which takes the fragment virtme", "qemu"
    ),
    "VMCORE": Variable("1 keeps the memory of a guest that crashes or hangs, for crash(8)"),
    "RUN": Variable("a run's id, for report"),
    "DIR": Variable("where the worktree is, instead of the store", is_inherited=False),
    "SIZE": Variable("how much the store may hold, for gc", "20G", is_inherited=False),
}


CHOICES = {"ACCEL": ("auto", "kvm", "tcg"), "BOOT": ("qemu", "vng")}


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable's value and where it came from."""

    value: str
    origin: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.value.replace(",", " ").split())


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cowbell",
        usage="cowbell [OPTIONS] [TARGET...] [VAR=value...]",
        description="Does this kernel keep memory coherent when copy-on-write meets a page pin?",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            (
                "targets:",
                *(f"  {name:<8} {about}" for name, about in TARGETS.items()),
                "\nvariables (command line, then environment but for those marked *, then the row):",
                *(
                    f"  {name:<8} {variable.about}{'' if variable.is_inherited else ' *'}"
                    for name, variable in VARIABLES.items()
                ),
                "\nexit status: 0 as expected, 1 not as expected, 2 your mistake, 3 the host's trouble",
            )
        ),
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would be done, and why")
    parser.add_argument(
        "-k",
        "--keep-going",
        action="store_true",
        help="after a patch that does not apply, try the later ones",
    )
    parser.add_argument(
        "-B", "--always-make", action="store_true", help="do the targets again, though up to date"
    )
    parser.add_argument(
        "-C", "--directory", type=Path, default=None, metavar="DIR", help="the project's folder"
    )
    parser.add_argument(
        "-j",
        "--jobs",
        type=int,
        nargs="?",
        const=0,
        default=None,
        metavar="N",
        help="keep N cores busy with builds and guests at a time; all of them without N",
    )
    parser.add_argument(
        "-l", "--load-average", type=float, metavar="LOAD", help="with -j: start nothing above this load"
    )
    parser.add_argument(
        "-W",
        "--what-if",
        action="append",
        default=[],
        metavar="FILE",
        help="take FILE as changed; with -n, see what that would do",
    )
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="a line for each case and command on stderr"
    )
    parser.add_argument("-s", "--silent", action="store_true", help="no progress on stderr")
    parser.add_argument("-p", "--print-variables", action="store_true", help="variables, values and origins")
    parser.add_argument(
        "--changelog", action="store_true", help="list: every entry, its cases, what they came to"
    )
    parser.add_argument("--json", action="store_true", help="the product as JSON")
    return parser


def settle_jobs(words: Sequence[str]) -> list[str]:
    """The words with ``-j`` for all cores as ``-j0`` where no number follows it, as make has it."""
    following = [*words[1:], ""]
    return [
        "-j0" if word in ("-j", "--jobs") and not following[i].isdigit() else word
        for i, word in enumerate(words)
    ]


def read_words(words: Sequence[str]) -> tuple[list[str], dict[str, Setting]]:
    """Split targets from ``VAR=value``; every unknown word is told at once."""
    settings = {name: Setting(variable.default, "default") for name, variable in VARIABLES.items()}
    settings |= {
        name: Setting(os.environ[name], "environment")
        for name, variable in VARIABLES.items()
        if variable.is_inherited and os.environ.get(name)
    }
    targets: list[str] = []
    errors: list[UsageError] = []
    subjects: list[str] = []
    for word in words:
        name, is_setting, value = word.partition("=")
        if is_setting and name in VARIABLES:
            settings[name] = Setting(value, "command line")
        elif is_setting:
            errors.append(UsageError(f"there is no variable {name}{suggest(name, VARIABLES)}", where=word))
        elif targets == ["explain"]:
            subjects.append(word)
        elif word in TARGETS:
            targets.append(word)
        else:
            errors.append(
                UsageError(
                    f"there is no target {word}{suggest(word, TARGETS)}", hint="cowbell --help lists them"
                )
            )
    if subjects:
        settings["TESTS"] = Setting(" ".join(subjects), "command line")
    for name, known in CHOICES.items():
        if (value := settings[name].value) not in known:
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            errors.append(UsageError(f"expected {expected}, got {value}{suggest(value, known)}", where=name))
    if settings["LLVM"].value not in ("", "0", "1"):
        errors.append(UsageError(f"expected 1 or 0, got {settings['LLVM'].value}", where="LLVM"))
    try:
        size_mib(settings["SIZE"].value)
    except ValueError as error:
        errors.append(UsageError(str(error), where="SIZE"))
    errors += [UsageError("is done alone", where=name) for name in ALONE if name in targets and targets[1:]]
    raise_all(errors)
    return targets or ["test"], settings
