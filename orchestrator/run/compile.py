# SPDX-License-Identifier: GPL-2.0-or-later
"""Compiles the tests on the host, each once.

A folder becomes a copy, with what its Makefile makes and a script that starts it. Its module is compiled with
each kernel.
"""

import os
import re
import shlex
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import CowbellError, UsageError
from orchestrator.kernel.build import Toolchain
from orchestrator.process import command
from orchestrator.project.elffile import list_libraries, read_arch
from orchestrator.project.guesttest import GuestTest, compile_command, is_left_by_kbuild, make_compiler_words
from orchestrator.project.program import read_folder
from orchestrator.store.store import Store, make_id

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


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled test, and the number of its next trial.

    ``program_id`` depends on the source, its libraries and the compiler.
    """

    test: GuestTest
    program_id: str
    path: Path
    trial: int = 1


def make_program_id(test: GuestTest, toolchain: Toolchain) -> str:
    """The id of the program that is copied to the guest for a test."""
    return make_id(test.content_id, toolchain.identity if test.is_compiled else "")


def compile_test(
    test: GuestTest,
    toolchain: Toolchain,
    lib_dir: Path,
    store: Store,
    find_headers: Callable[[], Path] | None = None,
) -> Program:
    """Compile a C test statically, once; scripts and binaries are used unchanged.

    ``find_headers`` is for a program that does not compile with the headers of the host.
    Raises ``UsageError`` with the output of the compiler for errors of the test, ``InfraError`` for others.
    """
    program_id = make_program_id(test, toolchain)
    if not test.is_compiled:
        return Program(test, program_id, test.path)

    def publish(*headers: Path) -> Path:
        def fill(draft: Path) -> None:
            target = draft / test.id
            if test.parts:
                _make_folder(test, toolchain.compiler, headers, target)
                return
            words = compile_command(test, toolchain.compiler, lib_dir, target, headers)
            done = command.run(words, check=False)
            if done.returncode:
                raise _explain_compiler(test, done)

        # those of each tree are a folder of their own
        name = make_id(program_id, [path.parent.name for path in headers]) if headers else program_id
        return store.publish("programs", name, fill) / test.id

    try:
        return Program(test, program_id, publish())
    except UsageError:
        if not find_headers:
            raise
    return Program(test, program_id, publish(find_headers()))


def _make_folder(test: GuestTest, compiler: str, headers: Sequence[Path], target: Path) -> None:
    """Make a program in a new folder; raises ``UsageError`` with the first error of its Makefile or source.

    Compiled files beside a Makefile are not copied: they may be for another machine.
    """
    folder = read_folder(test.path, test.parts)
    for name in test.parts:
        copy = target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        is_made = folder.makefile and (test.path / name).read_bytes().startswith(_COMPILED)
        if not is_made and not (folder.module and is_left_by_kbuild(name)):
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
        raise _explain_compiler(test, done)


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


def _explain_compiler(test: GuestTest, done: command.Completed) -> CowbellError:
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
            f"{test.id} cannot be made: {told}", where=str(test.path), hint="\n".join(lines[-12:])
        )
    return command.make_failure(done)
