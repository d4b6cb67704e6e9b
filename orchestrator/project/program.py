# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the programs that the command line names by their path, such as a reproducer of a bug report.

A program is C with a ``main()``, a script, or a static binary; its exit status is its result. A file that
declares a test of ours is read as one. Nothing is compiled or run here.
"""

import hashlib
import re
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project.arch import ELF_MACHINES
from orchestrator.project.guesttest import (
    LOCAL,
    PROGRAM,
    GuestTest,
    find_family,
    is_declared,
    load_test,
    make_content_id,
    parse_symbols,
)
from orchestrator.project.selftest import FAMILY
from orchestrator.project.yamlfile import count, limit_s, one_of, size_mib, suggest
from orchestrator.store.name import make_name
from orchestrator.store.store import make_id
from orchestrator.store.userfile import read_file

TIMEOUT_S = 60
USERS = ("root", "nobody")
_SUFFIXES: Mapping[str, str] = {".c": "", ".py": "python3", ".sh": "sh"}
# the length of a name, without the family
_MOST_STEM = 56
# version of how they are compiled and run
_FORMAT = 1
_HEADER_LINES = 30
_HEADER = re.compile(r"\bcowbell:[ \t]*(.{0,999})")
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+(\w+)", re.MULTILINE)
_SHEBANG = re.compile(rb"#![ \t]*(?:\S*/env[ \t]+)?(?:\S*/)?(\S+)")
_INTERPRETERS = {b"sh": "sh", b"dash": "sh", b"python": "python3", b"python3": "python3"}
# ELF: file types of programs, the header of a dynamic one
_ET_EXEC, _ET_DYN = 2, 3
_PT_LOAD, _PT_INTERP = 1, 3
_KINDS = "C (.c), a script for sh or python3, or a static binary"


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """The time limits of the command line in native seconds, 0 if not given.

    After ``forever_s`` a program that still runs passes.
    """

    timeout_s: int = 0
    forever_s: int = 0


NO_LIMITS = ProgramLimits()


def is_program_path(word: str) -> bool:
    """Whether a word of ``TESTS=`` is a path and not the name of a test."""
    if "/" in word:
        return find_family(word) != FAMILY
    return Path(word).suffix in _SUFFIXES and Path(word).is_file()


def name_program(path: Path) -> str:
    """The id of the test that a file becomes."""
    return f"{LOCAL}.{make_name(path.stem[:_MOST_STEM])}"


def load_programs(
    paths: Sequence[Path], lib: Path, limits: ProgramLimits, known: Iterable[str]
) -> list[GuestTest]:
    """The tests of the command line's files; raises the errors of all at once as ``UsageError``.

    ``lib`` is the library of our tests, ``known`` are the ids of other tests.
    """
    errors: list[UsageError] = []
    found: dict[str, GuestTest] = {}
    if limits.timeout_s and limits.forever_s:
        what = "cannot be combined: FOREVER= is a time limit, too"
        errors.append(UsageError(what, where="TIMEOUT, FOREVER"))
    for path in dict.fromkeys(paths):
        test_id = name_program(path)
        if test_id in found or test_id in known:
            other = found[test_id].path if test_id in found else "a test of the user overlay"
            hint = "rename one of them, or test them one by one"
            errors.append(UsageError(f"{test_id} is also {other}", where=str(path), hint=hint))
            continue
        try:
            if test := _load_file(path, test_id, lib, limits, errors):
                found[test_id] = test
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
    if any((limits.timeout_s, limits.forever_s)) and not any(t.language == PROGRAM for t in found.values()):
        names = [name for name in ("TIMEOUT", "FOREVER") if getattr(limits, f"{name.lower()}_s")]
        what = "is for programs, such as TESTS=./repro.c; a test of ours declares its time limit"
        errors += [] if errors else [UsageError(what, where=name) for name in names]
    raise_all(errors)
    return list(found.values())


def _load_file(
    path: Path, test_id: str, lib: Path, limits: ProgramLimits, errors: list[UsageError]
) -> GuestTest | None:
    if path.is_dir():
        hint = "name its program: a folder with several files is not supported"
        raise UsageError("is a folder, and a program is one file", where=str(path), hint=hint)
    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    text = "" if data.startswith(b"\x7fELF") else data.decode(errors="replace").replace("\r\n", "\n")
    if path.suffix in (".c", ".py") and is_declared(text, path.suffix):
        test = load_test(path, test_id, (lib,), errors)
        return replace(test, text=text, sha256=digest) if test else None
    arch, interpreter = _find_arch(path, data), _find_interpreter(path, data)
    if not arch and not interpreter and path.suffix != ".c":
        raise UsageError("is no program that a guest can run", where=str(path), hint=f"expected {_KINDS}")
    if path.suffix == ".py" and (missing := _find_beside(path, text)):
        what = f"imports {missing}.py of its folder, and only the program is copied to the guest"
        raise UsageError(what, where=str(path), hint="put both into one file")
    header = _read_header(path, text)
    if limits.timeout_s:
        header["timeout_s"] = limits.timeout_s
    libs = (path.parent,)
    supervisor = hashlib.sha256((lib / "program.py").read_bytes()).hexdigest()
    source_id = make_content_id(path, test_id, libs)
    test = GuestTest(
        id=test_id,
        path=path,
        language=PROGRAM,
        content_id=make_id(source_id, sorted(header.items()), limits.forever_s, supervisor, _FORMAT),
        summary=f"the program {path.name}",
        kind="deterministic",
        timeout_s=TIMEOUT_S,
        # each trial has a guest of its own: nothing that it starts or changes is there in the next one
        may_crash=True,
        libs=libs,
        text=text,
        sha256=digest,
        arch=arch,
        interpreter=interpreter,
        forever_s=limits.forever_s,
    )
    return replace(test, **header)  # type: ignore[arg-type]


def _find_beside(path: Path, text: str) -> str:
    """A module in the folder of a script that it imports; empty if there is none."""
    return next((name for name in _IMPORT.findall(text) if (path.parent / f"{name}.py").is_file()), "")


def _find_interpreter(path: Path, data: bytes) -> str:
    """``sh`` or ``python3`` for a script, else empty; raises ``UsageError`` for interpreters of no guest."""
    if path.suffix == ".c":
        return ""
    if match := _SHEBANG.match(data):
        if match[1] not in _INTERPRETERS:
            name = match[1].decode(errors="replace")
            raise UsageError(f"is a script for {name}", where=f"{path}:1", hint="a guest has sh and python3")
        return _INTERPRETERS[match[1]]
    return "" if data.startswith(b"\x7fELF") else _SUFFIXES.get(path.suffix, "")


def _find_arch(path: Path, data: bytes) -> str:
    """The architecture of a static ELF program, empty for other files; raises ``UsageError`` for other ELF
    files.
    """
    if not data.startswith(b"\x7fELF"):
        return ""
    where = str(path)
    try:
        if data[4:6] != b"\x02\x01":
            hint = "link it for x86_64, aarch64 or riscv64"
            raise UsageError("is not a 64-bit little-endian program", where=where, hint=hint)
        kind, machine = struct.unpack_from("<HH", data, 16)
        (offset,) = struct.unpack_from("<Q", data, 32)
        size, number = struct.unpack_from("<HH", data, 54)
        segments = {struct.unpack_from("<I", data, offset + size * i)[0] for i in range(number)}
    except struct.error:
        raise UsageError("is a truncated ELF file", where=where) from None
    if kind not in (_ET_EXEC, _ET_DYN) or _PT_LOAD not in segments:
        raise UsageError("is an ELF file, but no program", where=where, hint="link it with -static")
    if _PT_INTERP in segments:
        hint = "link it with -static: a guest has none of your libraries"
        raise UsageError("is linked dynamically", where=where, hint=hint)
    return ELF_MACHINES.get(machine, f"ELF machine {machine}")


def _read_symbols(text: str) -> str:
    return parse_symbols(text.replace(",", " "))


# the keys of a program's header, each with its field of GuestTest and its reader
_KEYS: Mapping[str, tuple[str, Callable[[str], str | int]]] = {
    "needs": ("needs_kconfig", _read_symbols),
    "cpus": ("cpus", count),
    "memory": ("memory_mib", size_mib),
    "timeout": ("timeout_s", limit_s),
    "user": ("user", one_of(USERS)),
}


def _read_header(path: Path, text: str) -> dict[str, str | int]:
    """The fields of ``cowbell: needs=KSM=y cpus=2 ...`` at the top; raises all errors as ``UsageError``."""
    errors: list[UsageError] = []
    found: dict[str, str | int] = {}
    for number, line in enumerate(text.splitlines()[:_HEADER_LINES], 1):
        match = _HEADER.search(line)
        for word in match[1].rstrip().removesuffix("*/").split() if match else ():
            key, _, value = word.partition("=")
            where = f"{path}:{number}"
            if key not in _KEYS:
                hint = f"there are: {', '.join(f'{key}=' for key in _KEYS)}"
                what = f"cowbell: unknown word {word}{suggest(key, _KEYS)}"
                errors.append(UsageError(what, where=where, hint=hint))
                continue
            field, read = _KEYS[key]
            try:
                if field in found:
                    raise ValueError("is given twice")
                found[field] = read(value)
            except ValueError as error:
                errors.append(UsageError(f"{key}: {error}", where=where))
    raise_all(errors)
    return found
