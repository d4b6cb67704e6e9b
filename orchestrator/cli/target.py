# SPDX-License-Identifier: GPL-2.0-or-later
"""The declaration of a target: its help, the variables and options that it uses, and its run function."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from orchestrator.cli.call import Call
from orchestrator.cli.options import OPTIONS, Option

# the variables that choose jobs, those of building their kernels, and those of running their tests
JOBS = ("ROW", "KERNEL", "MODULES", "SERIES", "DIRTY")
KERNELS = ("ARCH", "CONFIG", "CONFIG+", "CC", "LLVM", "BOOT", "DEBUG")
# additions to the guest of a row
GUESTS = ("APPEND+", "QEMU+")
TRIALS = ("TESTS", "ACCEL", "VMCORE")
# the time limits of programs
LIMITS = ("TIMEOUT", "FOREVER")
FIRST_ROW = "the first row"
PARALLEL = ("--jobs", "--load-average")


@dataclass(frozen=True, slots=True)
class Target:
    """``about`` is one sentence, ``more`` what it leaves out; an example is a command and what it does.

    ``takes`` says which words may follow it: those of ``words``, or names of the ``kinds`` of ``cowbell
    list``. ``products`` are the schemas of its ``--json``. ``is_joined``: it runs together with others.
    ``default_row`` says which rows it takes without ROW=.
    """

    name: str
    group: str
    about: str
    run: Callable[[Call], int]
    examples: tuple[tuple[str, str], tuple[str, str]]
    variables: tuple[str, ...] = ()
    extra_options: tuple[str, ...] = ()
    products: tuple[str, ...] = ()
    takes: str = ""
    words: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    more: str = ""
    is_joined: bool = False
    default_row: str = "every row"

    @property
    def own_options(self) -> tuple[Option, ...]:
        """The options that not every target takes."""
        named = (*self.extra_options, *(("--json",) if self.products else ()))
        return tuple(option for name, option in OPTIONS.items() if name in named)

    @property
    def options(self) -> tuple[Option, ...]:
        return tuple(o for o in OPTIONS.values() if o.is_common or o in self.own_options)

    @property
    def usage(self) -> str:
        words = ["cowbell", "[OPTIONS]", self.name, self.takes, "[VAR=value...]" if self.variables else ""]
        return " ".join(filter(None, words))


# all targets in the order of the help; filled by registry.py
TARGETS: dict[str, Target] = {}


def list_groups() -> Mapping[str, list[Target]]:
    """The targets by the task that they are for."""
    groups: dict[str, list[Target]] = {}
    for target in TARGETS.values():
        groups.setdefault(target.group, []).append(target)
    return groups


def list_products() -> tuple[str, ...]:
    """The names of the schemas of ``--json``."""
    listed = [name for target in TARGETS.values() for name in target.products]
    return tuple(dict.fromkeys([*listed, "variables"]))
