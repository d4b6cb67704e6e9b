# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes programs that are folders: a copy, with what its Makefile makes and a script that starts it.

Their modules are compiled with each kernel.
"""

import os
import re
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.errors import CowbellError, UsageError
from orchestrator.process import command
from orchestrator.project.elffile import list_libraries, read_arch
from orchestrator.project.guesttest import GuestTest, make_compiler_words
from orchestrator.project.program import read_folder

# the script in the folder of a program
START = ".cowbell-start"
_MAKE_S = 600.0
_COMPILE_ERROR = re.compile(r"(.{1,999}?:\d+):\d+: (?:fatal )?error: (.*)")
_LINK_ERROR = re.compile(r"undefined reference to [`'](\w+)'")
_COMPILED = (b"\x7fELF", b"!<arch>")
_INTERPRETERS = {".sh": "sh ", ".py": "python3 -B "}
_LOAD = """set -- ./*.ko
for module; do busybox insmod "$module" || exit 1; done
for module; do busybox rmmod "$module" || exit 1; done
"""


def make_folder(test: GuestTest, compiler: str, headers: Sequence[Path], target: Path) -> None:
    """Make a program in a new folder; raises ``UsageError`` with the first error of its Makefile or source.

    Compiled files beside a Makefile are not copied: they may be for another machine.
    """
    folder = read_folder(test.path, test.parts)
    for name in test.parts:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if not folder.makefile or not (test.path / name).read_bytes().startswith(_COMPILED):
            shutil.copy(test.path / name, copy)
    words = make_compiler_words(compiler, headers)
    start = Path(folder.start)
    if folder.makefile:
        _call(test, [command.find_tool("make", "make"), f"CC={shlex.join(words)}"], target)
    if start.suffix == ".c":
        _call(test, [*words, "-O2", "-g", "-o", start.stem, start.name], target)
        start = Path(start.stem)
    if not folder.start:
        start = _choose_made(test, target)
    if start.name:
        _check_binary(test, target / start, compiler)
        line = f'exec {_INTERPRETERS.get(start.suffix, "")}./{start} "$@"\n'
    else:
        line = _LOAD
    (target / START).write_text(line)


def _call(test: GuestTest, words: list[str], target: Path) -> None:
    done = command.run(words, cwd=target, deadline=command.Deadline.after(_MAKE_S), check=False)
    if done.returncode:
        raise explain_compiler(test, done)


def _choose_made(test: GuestTest, target: Path) -> Path:
    """The only program that a Makefile has made; an empty path where a module is enough."""
    made = [path for path in sorted(target.iterdir()) if path.is_file() and os.access(path, os.X_OK)]
    made = [path for path in made if path.read_bytes().startswith(_COMPILED) and ".so" not in path.suffixes]
    if test.has_module and not made:
        return Path()
    if len(made) != 1:
        told = f"{len(made)} programs: {', '.join(path.name for path in made)}" if made else "no program"
        hint = "add run.sh, which the guest runs in a copy of the folder"
        raise UsageError(f"its Makefile makes {told}", where=str(test.path), hint=hint)
    return Path(made[0].name)


def _check_binary(test: GuestTest, path: Path, compiler: str) -> None:
    """Raise ``UsageError`` for a program that is dynamic, or not for the guest."""
    data = path.read_bytes()
    if arch := read_arch(path, data):
        wanted = command.run([compiler, "-dumpmachine"]).output.split("-")[0]
        hint = "link it with -static; a Makefile is given a CC that does"
        where = str(test.path / path.name)
        if arch != wanted:
            raise UsageError(f"is a program for {arch}, and the guest is {wanted}", where=where, hint=hint)
        if list_libraries(path, data):
            raise UsageError("is linked dynamically", where=where, hint=hint)


def explain_compiler(test: GuestTest, done: command.Completed) -> CowbellError:
    """The error of a program that does not compile, or of the host."""
    lines = done.output.splitlines()
    for line in lines:
        if match := _COMPILE_ERROR.match(line):
            where = str(test.path / match[1]) if test.parts else match[1]
            output = "\n  ".join(lines[:12])
            return UsageError(f"{test.id} does not compile: {match[2]}", where=where, hint=output)
        if match := _LINK_ERROR.search(line):
            what = "has no main()" if match[1] == "main" else f"needs a library for {match[1]}()"
            hint = "it is linked with -static -pthread only"
            return UsageError(f"{test.id} {what}", where=str(test.path), hint=hint)
    if test.parts and not command.find_host_error(done, lines):
        told = lines[-1] if lines else f"status {done.returncode}"
        return UsageError(
            f"{test.id} cannot be made: {told}", where=str(test.path), hint="\n  ".join(lines[-12:])
        )
    return command.make_failure(done)
