# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the programs that the command line names by their path, such as a reproducer of a bug report.

A program is C with a ``main()``, a script, a binary, or a folder; its exit status is its result. A file that
declares a test of ours is read as one. Nothing is compiled here, and no program is run.

A folder has a Makefile, or a Kbuild for a kernel module, or both. ``run.sh``, ``run.py`` or ``run.c`` is its
program, else the only one that is there or that its Makefile makes, or else its module is loaded and removed.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project.elffile import list_libraries, read_arch
from orchestrator.project.guesttest import (
    KINDS,
    LOCAL,
    PROGRAM,
    GuestTest,
    SourceReader,
    find_family,
    is_declared,
    load_test,
    parse_symbols,
)
from orchestrator.project.selftest import FAMILY
from orchestrator.project.yamlfile import count, limit_s, one_of, size_mib, suggest
from orchestrator.store.name import make_name
from orchestrator.store.store import make_id
from orchestrator.store.userfile import read_file

TIMEOUT_S = 60
# bytes of all arguments together, which are a part of one command
_MOST_ARGUMENTS = 65536
USERS = ("root", "nobody")
_SUFFIXES: Mapping[str, str] = {".c": "", ".py": "python3", ".sh": "sh"}
# the length of a name, without the family
_MOST_STEM = 56
# version of how they are compiled and run
_FORMAT = 2
# of a folder: where it starts, the files of make, and its limits
_STARTS = ("run.sh", "run.py", "run.c")
_MAKEFILES = ("GNUmakefile", "makefile", "Makefile")
_MOST_FILES, _MOST_MIB = 4096, 256
_OF_MODULE = re.compile(r"^[ \t]*obj-m\b", re.MULTILINE)
_NEEDS_MODULE = "MODULES=y MODULE_UNLOAD=y"
_HEADER_LINES = 30
_HEADER = re.compile(r"\bcowbell:[ \t]*(.{0,999})")
_IMPORT = re.compile(r"^[ \t]*(?:from|import)[ \t]+(\w+)", re.MULTILINE)
_SHEBANG = re.compile(rb"#![ \t]*(?:\S*/env[ \t]+)?(?:\S*/)?(\S+)")
_INTERPRETERS = {b"sh": "sh", b"dash": "sh", b"python": "python3", b"python3": "python3"}
_KINDS = "C (.c), a script for sh or python3, a binary, or a folder"


@dataclass(frozen=True, slots=True)
class ProgramLimits:
    """The time limits of the command line in native seconds, 0 if not given.

    After ``forever_s`` a program that still runs passes. With ``is_race``, programs may fail in some trials
    only, whatever they say of themselves.
    """

    timeout_s: int = 0
    forever_s: int = 0
    is_race: bool = False


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
    paths: Sequence[Path],
    lib: Path,
    limits: ProgramLimits,
    known: Iterable[str],
    arguments: Sequence[str] = (),
) -> list[GuestTest]:
    """The tests of the command line's paths; raises the errors of all at once as ``UsageError``.

    ``lib`` is the library of our tests, ``known`` are the ids of other tests, ``arguments`` those of the only
    program.
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
            if test := _load(path, test_id, lib, limits, errors):
                found[test_id] = test
        except* UsageError as group:
            errors += (error for error in group.exceptions if isinstance(error, UsageError))
    if any((limits.timeout_s, limits.forever_s)) and not any(t.language == PROGRAM for t in found.values()):
        names = [name for name in ("TIMEOUT", "FOREVER") if getattr(limits, f"{name.lower()}_s")]
        what = "is for programs, such as TESTS=./repro.c; a test of ours declares its time limit"
        errors += [] if errors else [UsageError(what, where=name) for name in names]
    if arguments and not errors:
        errors += _check_arguments(arguments, found)
    raise_all(errors)
    return [_add_words(test, tuple(arguments), limits) for test in found.values()]


def _check_arguments(arguments: Sequence[str], found: Mapping[str, GuestTest]) -> Iterator[UsageError]:
    programs = [test for test in found.values() if test.language == PROGRAM]
    if len(programs) != 1:
        what = f"are for exactly one program of TESTS=, and there are {len(programs)}"
        yield UsageError(what, where=f"arguments after --: {' '.join(arguments)}")
    if sum(map(len, arguments)) > _MOST_ARGUMENTS:
        yield UsageError(f"are more than {_MOST_ARGUMENTS} bytes", where="arguments after --")


def _add_words(test: GuestTest, arguments: tuple[str, ...], limits: ProgramLimits) -> GuestTest:
    if test.language != PROGRAM:
        return test
    if limits.is_race:
        test = replace(test, kind="race")
    if not arguments:
        return test
    return replace(test, arguments=arguments, content_id=make_id(test.content_id, arguments))


def _load(
    path: Path, test_id: str, lib: Path, limits: ProgramLimits, errors: list[UsageError]
) -> GuestTest | None:
    if path.is_dir():
        return _load_folder(path, test_id, lib, limits)
    data = read_file(path)
    digest = hashlib.sha256(data).hexdigest()
    text = "" if data.startswith(b"\x7fELF") else data.decode(errors="replace").replace("\r\n", "\n")
    if path.suffix in (".c", ".py") and is_declared(text, path.suffix):
        test = load_test(path, test_id, SourceReader((lib,)), errors)
        return replace(test, text=text, sha256=digest) if test else None
    arch, interpreter = read_arch(path, data), _find_interpreter(path, data)
    if not arch and not interpreter and path.suffix != ".c":
        raise UsageError("is no program that a guest can run", where=str(path), hint=f"expected {_KINDS}")
    if path.suffix == ".py" and (missing := _find_beside(path, text)):
        what = f"imports {missing}.py of its folder, and only the program is copied to the guest"
        raise UsageError(what, where=str(path), hint="put both into one file")
    libraries = list_libraries(path, data) if arch else ()
    source_id = SourceReader((path.parent,)).make_content_id(path, test_id)
    test = _make_test(path, test_id, _read_header(path, text), lib, limits, source_id, map(_hash, libraries))
    return replace(
        test,
        libs=(path.parent,),
        text=text,
        sha256=digest,
        arch=arch,
        interpreter=interpreter,
        libraries=libraries,
    )


def _load_folder(path: Path, test_id: str, lib: Path, limits: ProgramLimits) -> GuestTest:
    """The program that a folder is; raises ``UsageError``."""
    parts = _list_parts(path)
    folder = read_folder(path, parts)
    first = path / (folder.start or folder.makefile or folder.module)
    header = _read_header(first, _read(first))
    if folder.module:
        needs = dict.fromkeys(f"{header.get('needs_kconfig', '')} {_NEEDS_MODULE}".split())
        header["needs_kconfig"] = " ".join(needs)
    digests = [(name, os.access(path / name, os.X_OK), _hash(path / name)) for name in parts]
    test = _make_test(path, test_id, header, lib, limits, make_id(test_id, digests), ())
    return replace(test, parts=parts, has_module=bool(folder.module), sha256=make_id(digests))


def _list_parts(path: Path) -> tuple[str, ...]:
    """The files of a folder, as sorted relative paths, without those of git; raises ``UsageError``."""
    errors: list[UsageError] = []
    parts: list[str] = []
    size = 0
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if name != ".git")
        for name in sorted(names):
            file = Path(root, name)
            parts.append(str(file.relative_to(path)))
            if not file.is_file():
                errors.append(UsageError("is no regular file, and cannot be copied", where=str(file)))
            else:
                size += file.stat().st_size
        if len(parts) > _MOST_FILES or size > _MOST_MIB << 20:
            what = f"is too large to be copied: more than {_MOST_FILES} files or {_MOST_MIB} MiB"
            raise UsageError(what, where=str(path))
    raise_all(errors)
    return tuple(sorted(parts))


@dataclass(frozen=True, slots=True)
class Folder:
    """The files of a folder that decide how it becomes a program; empty where there is none.

    ``start`` is its program, ``makefile`` that of its own make, ``module`` what tells Kbuild about a module.
    """

    start: str
    makefile: str
    module: str


def read_folder(path: Path, parts: Collection[str]) -> Folder:
    """Raises ``UsageError`` for a folder with nothing to run, or with several programs."""
    makefile = next((name for name in _MAKEFILES if name in parts), "")
    module = "Kbuild" if "Kbuild" in parts else ""
    if not module and makefile and _OF_MODULE.search(_read(path / makefile)):
        makefile, module = "", makefile
    starts = [name for name in _STARTS if name in parts]
    if not starts and not makefile and not module:
        starts = [name for name in parts if "/" not in name and _is_program(path / name)]
    if len(starts) > 1 or not (starts or makefile or module):
        told = f"has {len(starts)} programs: {', '.join(starts[:5])}" if starts else "has no program"
        hint = "add run.sh, which the guest runs in a copy of the folder, or a Makefile or Kbuild"
        raise UsageError(told, where=str(path), hint=hint)
    return Folder(starts[0] if starts else "", makefile, module)


def _read(path: Path) -> str:
    return read_file(path).decode(errors="replace")


def _is_program(path: Path) -> bool:
    """Whether a file can be a program by its name or its first bytes."""
    data = read_file(path)
    return path.suffix in _SUFFIXES or data.startswith((b"#!", b"\x7fELF"))


def _hash(path: Path) -> str:
    return hashlib.sha256(read_file(path)).hexdigest()


def _make_test(
    path: Path,
    test_id: str,
    header: dict[str, str | int],
    lib: Path,
    limits: ProgramLimits,
    source_id: str,
    others: Iterable[str],
) -> GuestTest:
    """A program; ``others`` are hashes of what else decides its result."""
    if limits.timeout_s:
        header["timeout_s"] = limits.timeout_s
    supervisor = _hash(lib / "program.py")
    test = GuestTest(
        id=test_id,
        path=path,
        language=PROGRAM,
        content_id=make_id(
            source_id, sorted(header.items()), limits.forever_s, supervisor, list(others), _FORMAT
        ),
        summary=f"the program {path.name}",
        kind="deterministic",
        timeout_s=TIMEOUT_S,
        # each trial has a guest of its own: nothing that it starts or changes is there in the next one
        may_crash=True,
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


def _read_symbols(text: str) -> str:
    return parse_symbols(text.replace(",", " "))


# the keys of a program's header, each with its field of GuestTest and its reader
_KEYS: Mapping[str, tuple[str, Callable[[str], str | int]]] = {
    "needs": ("needs_kconfig", _read_symbols),
    "cpus": ("cpus", count),
    "memory": ("memory_mib", size_mib),
    "timeout": ("timeout_s", limit_s),
    "user": ("user", one_of(USERS)),
    "kind": ("kind", one_of(KINDS)),
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
