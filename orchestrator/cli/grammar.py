# SPDX-License-Identifier: GPL-2.0-or-later
"""Defines and parses the command line: targets, variables and options."""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.cli.glossary import EXITS
from orchestrator.errors import UsageError, raise_all
from orchestrator.project.yamlfile import size_mib, suggest, time_s

KINDS = ("rows", "trees", "series", "fragments", "tests", "targets", "variables", "schemas")
# of --json; what they look like is in schemas
PRODUCTS = (
    "list", "names", "variables", "steps", "config", "report", "series", "patches", "proof", "test",
    "changelog", "gc", "doctor", "history", "diff", "merge", "bisect", "series-matrix", "trees",
)  # fmt: skip
SHELLS = ("bash", "zsh", "fish")
_MOST_REPEATS = 10_000


@dataclass(frozen=True, slots=True)
class Target:
    """``is_alone``: it does not go together with others. ``takes`` says what may be named after it."""

    about: str
    is_alone: bool = True
    takes: str = ""


TARGETS: Mapping[str, Target] = {
    "source": Target("fetch the trees and apply the series", is_alone=False),
    "config": Target("what becomes of every config symbol that is asked for, and why", is_alone=False),
    "build": Target("source, then configure and build the kernels", is_alone=False),
    "test": Target("build, then boot, run the tests and report (the default)", is_alone=False),
    "shell": Target(
        "build, then boot one kernel and open a shell in its guest, or run the commands on stdin"
    ),
    "report": Target("show a run again: RUN=ID, several in one report: RUN=ID,ID, or the last one"),
    "doctor": Target("what the rows need of this machine, and the command that installs what is missing"),
    "list": Target(
        "what there is, of all kinds or one; trees -v: also Debian's versions; or --changelog",
        takes="[KIND]",
    ),
    "explain": Target(
        "all about a test, row, tree, target, variable, verdict or exit status", takes="WORD..."
    ),
    "proof": Target("which kernels every test was seen to fail on, and to pass on"),
    "bisect": Target(
        "which commit or Debian version (GOOD= BAD=), patch (SERIES=) or symbol (CONFIG_GOOD= CONFIG_BAD=) "
        "changed the result of TESTS="
    ),
    "bisect-step": Target("TESTS= on KERNEL= for git bisect run: exit status 0, 1, 125, or 128 and more"),
    "series-matrix": Target("what each patch of SERIES= flips, and what series.yaml claims of it"),
    "history": Target("what tests came to, newest last; ROW= and KERNEL= choose", takes="[TEST...]"),
    "diff": Target(
        "what B breaks, fixes or slows down; each a run, a kernel's version or tree, DATE or DATE..",
        takes="A B",
    ),
    "merge": Target(
        "take in other machines' stores or runs; several runs become one, with ROW= also what is missing",
        takes="DIR...",
    ),
    "ci": Target(
        "the GitLab pipeline that does all this; --check: can it run, or can FILE", takes="[FILE...]"
    ),
    "series": Target("the patches of the series; with KERNEL= (and -n to keep nothing) whether they apply"),
    "worktree": Target("open SERIES= on KERNEL= as commits to edit, and print where (DIR= chooses)"),
    "refresh": Target("write the commits of that worktree back into patches/SERIES"),
    "clean": Target("remove object files, worktrees and compiled tests; kernels and results stay"),
    "gc": Target("remove what was not used for longest, until the store has at most SIZE"),
    "completion": Target("the script that completes this command's words", takes="bash|zsh|fish"),
    "manpage": Target("the manual page, for man -l"),
    "schema": Target("the JSON Schema of what --json prints", takes="NAME"),
}


@dataclass(frozen=True, slots=True)
class Variable:
    """``is_inherited``: it may come from the environment, where a CC or SIZE means something else."""

    about: str
    default: str = ""
    is_inherited: bool = True


VARIABLES: Mapping[str, Variable] = {
    "ROW": Variable("rows of ci/matrix.yaml, by name; all of them when empty"),
    "KERNEL": Variable(
        "a tree of patches/trees.yaml or a /path/to/one, with :REF if wanted; a Debian tree with :VERSION"
    ),
    "SERIES": Variable(
        "series to compare the plain kernel with: names of patches/, folders, mboxes, patches, "
        "TREE:BASE..TIP; none for none"
    ),
    "DIRTY": Variable("1 takes KERNEL=/path/to/checkout with its changes that are not committed"),
    "ARCH": Variable("x86_64, aarch64 or riscv64, instead of the row's"),
    "CONFIG": Variable("fragments of kconfigs/, instead of the row's"),
    "CC": Variable("the compiler of the kernels, instead of the architecture's gcc", is_inherited=False),
    "LLVM": Variable("1 builds kernels with clang and LLVM's tools"),
    "TESTS": Variable(
        "tests by name or glob, instead of the row's; for bisect and bisect-step one test or subtest"
    ),
    "REPEAT": Variable(
        "how often each test is run, or auto: a race until it is known how sure a pass is", "1"
    ),
    "GOOD": Variable("a rev or Debian version of KERNEL= on which it passes", is_inherited=False),
    "BAD": Variable("a rev or Debian version of KERNEL= on which it fails", is_inherited=False),
    "FIND": Variable(
        "break, or fix: then BAD is the older end; not needed for Debian versions", is_inherited=False
    ),
    "PATHS": Variable("only commits that touch these files or folders of the tree", is_inherited=False),
    "CONFIG_GOOD": Variable("fragments with which it passes", is_inherited=False),
    "CONFIG_BAD": Variable("fragments with which it fails", is_inherited=False),
    "CONFIDENCE": Variable("how sure the commit must be, of a race", "0.95", is_inherited=False),
    "FINGERPRINT": Variable("bisect-step: the one crash that is meant, or a glob", is_inherited=False),
    "RESUME": Variable("1 goes on with the last bisection that was not ended", is_inherited=False),
    "ACCEL": Variable("auto, kvm or tcg", "auto"),
    "BOOT": Variable(
        "who boots the guests: qemu, or vng for virtme-ng, which takes the fragment virtme", "qemu"
    ),
    "VMCORE": Variable("1 keeps the memory of a guest that crashes or hangs, for crash(8)"),
    "RUN": Variable("ids of runs, for report"),
    "DIR": Variable(
        "where worktree opens, and build, test, report and bisect put a copy of what they made",
        is_inherited=False,
    ),
    "BUILT": Variable("folders with kernels that build DIR= made, here or elsewhere", is_inherited=False),
    "SINCE": Variable("ci: only rows that were declared otherwise in this commit", is_inherited=False),
    "IMAGE": Variable("ci: the container image of the jobs", is_inherited=False),
    "SETUP": Variable("ci: what each job does first, to have cowbell", is_inherited=False),
    "TAGS": Variable("ci: tags of the jobs' runners; rows add their own", is_inherited=False),
    "SHARE": Variable("ci: a row that takes longer is tested by several jobs", "15m", is_inherited=False),
    "SIZE": Variable("how much the store may hold, for gc", "20G", is_inherited=False),
}


CHOICES = {"ACCEL": ("auto", "kvm", "tcg"), "BOOT": ("qemu", "vng"), "FIND": ("break", "fix")}


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable's value and where it came from."""

    value: str
    origin: str

    @property
    def words(self) -> tuple[str, ...]:
        return tuple(self.value.replace(",", " ").split())


def make_parser() -> argparse.ArgumentParser:
    def tell(name: str, target: Target) -> str:
        return f"  {f'{name} {target.takes}':<24} {target.about}"

    parser = argparse.ArgumentParser(
        prog="cowbell",
        usage="cowbell [OPTIONS] [TARGET...] [VAR=value...]",
        description="Cowbell tests that pinned pages stay coherent under copy-on-write.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(
            (
                "targets:",
                *(tell(name, target) for name, target in TARGETS.items()),
                "\nvariables (command line, then environment but for those marked *, then",
                "~/.config/cowbell.yaml, then the row):",
                *(
                    f"  {name:<11} {variable.about}{'' if variable.is_inherited else ' *'}"
                    for name, variable in VARIABLES.items()
                ),
                "\nexit status:",
                *(f"  {status:<11} {meaning}" for status, meaning in EXITS.items()),
            )
        ),
    )
    parser.add_argument("words", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would be done, and why")
    parser.add_argument(
        "-k",
        "--keep-going",
        action="store_true",
        help="when a job or a patch fails, go on with the others",
    )
    parser.add_argument(
        "-B", "--always-make", action="store_true", help="do the targets again, though up to date"
    )
    parser.add_argument(
        "-C",
        "--directory",
        type=lambda word: Path(word) if word else None,
        default=None,
        metavar="DIR",
        help="the project's folder",
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
        "-v", "--verbose", action="store_true", help="a line for each test and command on stderr"
    )
    parser.add_argument("-s", "--silent", action="store_true", help="no progress on stderr")
    parser.add_argument("-p", "--print-variables", action="store_true", help="variables, values and origins")
    parser.add_argument(
        "--changelog", action="store_true", help="list: every entry, its tests, what they came to"
    )
    parser.add_argument("--check", action="store_true", help="ci: tell what GitLab would refuse")
    parser.add_argument("--json", action="store_true", help="the product as JSON")
    return parser


def settle_jobs(words: Sequence[str]) -> list[str]:
    """The words with ``-j`` for all cores as ``-j0`` where no number follows it, as make has it."""
    following = [*words[1:], ""]
    return [
        "-j0" if word in ("-j", "--jobs") and not following[i].isdigit() else word
        for i, word in enumerate(words)
    ]


@dataclass(frozen=True, slots=True)
class Words:
    """Targets in their order, what is named after one of them, and the value of every variable."""

    targets: tuple[str, ...]
    subjects: tuple[str, ...]
    settings: Mapping[str, Setting]


def read_words(words: Sequence[str], preferences: Mapping[str, Setting] | None = None) -> Words:
    """Split targets from ``VAR=value``; raises ``UsageError`` for every wrong word at once."""
    settings = {name: Setting(variable.default, "default") for name, variable in VARIABLES.items()}
    settings |= preferences or {}
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
        if targets == ["completion"]:
            subjects.append(word)
        elif is_setting and name in VARIABLES:
            settings[name] = Setting(value, "command line")
        elif is_setting and not (targets and TARGETS[targets[0]].takes):
            errors.append(UsageError(f"there is no variable {name}{suggest(name, VARIABLES)}", where=word))
        elif targets and TARGETS[targets[0]].takes:
            subjects.append(word)
        elif word in TARGETS:
            targets.append(word)
        else:
            errors.append(
                UsageError(
                    f"there is no target {word}{suggest(word, TARGETS)}", hint="cowbell --help lists them"
                )
            )
    errors += _check_settings(settings)
    errors += [
        UsageError("is done alone", where=name) for name in targets if TARGETS[name].is_alone and targets[1:]
    ]
    raise_all(errors)
    return Words(tuple(targets) or ("test",), tuple(subjects), settings)


def _check_settings(settings: Mapping[str, Setting]) -> Iterator[UsageError]:
    for name, known in CHOICES.items():
        # what has no default may be empty
        if (value := settings[name].value) not in known and (value or VARIABLES[name].default):
            expected = f"{', '.join(known[:-1])} or {known[-1]}"
            yield _refuse(name, settings, f"expected {expected}, got {value}{suggest(value, known)}")
    if settings["LLVM"].value not in ("", "0", "1"):
        yield _refuse("LLVM", settings, f"expected 1 or 0, got {settings['LLVM'].value}")
    for name, read in (
        ("SIZE", size_mib),
        ("SHARE", time_s),
        ("REPEAT", read_repeat),
        ("CONFIDENCE", read_confidence),
    ):
        try:
            read(settings[name].value)
        except ValueError as error:
            yield _refuse(name, settings, str(error))


def read_repeat(text: str) -> int:
    """How often each test is run, 0 for ``auto``; raises ``ValueError``."""
    if text == "auto":
        return 0
    if not text.isdecimal() or not 0 < int(text) <= _MOST_REPEATS:
        raise ValueError(f"expected auto, or a number from 1 to {_MOST_REPEATS}, got {text}")
    return int(text)


def read_confidence(text: str) -> float:
    """A share between 0 and 1; raises ``ValueError``."""
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0.5 <= share <= 0.9999:
        raise ValueError(f"expected a number from 0.5 to 0.9999, got {text}")
    return share


def _refuse(name: str, settings: Mapping[str, Setting], what: str) -> UsageError:
    origin = settings[name].origin
    return UsageError(what, where=name if origin == "command line" else f"{name} ({origin})")


def choose_subject(target: str, subjects: Sequence[str], known: Sequence[str]) -> str:
    """The one thing named after a target, empty when there is none; raises ``UsageError`` for others."""
    errors = [
        UsageError(
            f"there is no {word}{suggest(word, known)}", where=target, hint=f"there are: {', '.join(known)}"
        )
        for word in subjects
        if word not in known
    ]
    errors += [UsageError("takes one word", where=target)] if len(subjects) > 1 else []
    raise_all(errors)
    return subjects[0] if subjects else ""
