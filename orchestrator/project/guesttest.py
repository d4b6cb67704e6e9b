# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the declarations of the guest tests in ``<family>/<test>.{c,py}``.

No test is compiled, imported or run here. The guest enforces the same lines that are parsed here, so anything
that cannot be parsed exactly, such as an expression or a macro, is an error.
"""

import ast
import difflib
import functools
import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.store.name import is_name
from orchestrator.store.userfile import read_text

Literal = str | int | bool

KINDS = ("deterministic", "race")
LANGUAGES: Mapping[str, str] = {".c": "c", ".py": "python"}
# the language of kernel selftests, whose subtests are not declared
SELFTEST = "selftest"
# the language of programs that do not use our library; the exit status is their result
PROGRAM = "program"
# the family of files that the command line names by their path
LOCAL = "local"
# the limits of guesttest.h and guesttest.py
MAX_PARAMS, MAX_VALUES = 4, 12

_NAME = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_SYMBOL = re.compile(r"(?!CONFIG_)[A-Z0-9_]+=[ymn]")
_C_TOKENS = re.compile(r'//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.DOTALL)
_C_START = re.compile(r"^GUEST_TEST\s*=\s*\{[ \t]*$", re.MULTILINE)
_C_FIELD = re.compile(r'\s*\.(\w+)\s*=\s*("(?:\\["\\]|[^"\\])*"|-?\d+|\w+)\s*,\s*')
_INCLUDES: Mapping[str, re.Pattern[str]] = {
    ".c": re.compile(r'^\s*#\s*include\s*"([^"]+)"', re.MULTILINE),
    ".py": re.compile(r"^\s*(?:from|import)\s+(\w+)", re.MULTILINE),
}
_UAPI = re.compile(r"^\s*#\s*include\s*<(?:linux|asm|asm-generic)/", re.MULTILINE)
_HINTS: Mapping[str, str] = {
    ".c": "one `.field = literal,` per line between `GUEST_TEST = {` and `};`",
    ".py": "the file must end with TEST = GuestTest(field=literal, ..., run=run) and a call of TEST.main()",
}


@dataclass(frozen=True, slots=True)
class GuestTest:
    """One declared test. ``path`` is its source; empty strings are fields that were not declared.

    ``libs`` are its include folders: the library of a user overlay before the built-in one. A test that is
    not ``is_built_in`` is not trusted to leave the guest as it was.

    The last fields are those of a path of the command line: its text (empty for a binary) and SHA-256. Of a
    program: the architecture of a binary with its shared ``libraries``, the loader first, the interpreter of
    a script, the user that it runs as, its ``arguments``, and the native seconds after which it passes if it
    still runs, 0 if it has to end. A folder has ``parts``, its files by their paths in it, and
    ``has_module`` if the build of a kernel compiles it as well.
    """

    id: str
    path: Path
    language: str
    content_id: str
    summary: str
    kind: str
    timeout_s: int
    contract: str = ""
    mechanism: str = ""
    fixes: str = ""
    cve: str = ""
    changelog: str = ""
    detects: str = ""
    needs_kconfig: str = ""
    min_kernel: str = ""
    params: str = ""
    needs_root: bool = False
    may_crash: bool = False
    cpus: int = 1
    memory_mib: int = 0
    libs: tuple[Path, ...] = ()
    is_built_in: bool = False
    text: str = ""
    sha256: str = ""
    arch: str = ""
    interpreter: str = ""
    user: str = "root"
    forever_s: int = 0
    arguments: tuple[str, ...] = ()
    libraries: tuple[Path, ...] = ()
    parts: tuple[str, ...] = ()
    has_module: bool = False

    @property
    def is_compiled(self) -> bool:
        """Whether the host compiles it, so that the program depends on the compiler."""
        if self.language == PROGRAM:
            return self.path.suffix == ".c" or bool(self.parts)
        return self.language != "python"

    @property
    def own_lib(self) -> Path | None:
        return self.libs[0] if self.libs[1:] else None

    @property
    def family(self) -> str:
        return find_family(self.id)

    @property
    def symbols(self) -> tuple[tuple[str, str], ...]:
        """``needs_kconfig`` as (symbol without ``CONFIG_``, value)."""
        return tuple((need.partition("=")[0], need.partition("=")[2]) for need in self.needs_kconfig.split())

    @property
    def subtests(self) -> tuple[str, ...]:
        """The names on the result lines, in the order of the plan; none if they are not declared."""
        if self.language in (SELFTEST, PROGRAM):
            return ()
        groups = parse_params(self.params)
        if not groups:
            return (self.id,)
        chosen = itertools.product(*([f"{name}={value}" for value in values] for name, values in groups))
        return tuple(f"{self.id}[{','.join(words)}]" for words in chosen)

    def describe(self) -> dict[str, Literal]:
        """The fields that the compiled test prints for ``--describe``."""
        return {"id": self.id, **{name: getattr(self, name) for name in _FIELDS}}


# the fields that no test declares
NOT_DECLARED = (
    "id", "path", "language", "content_id", "libs", "is_built_in", "text", "sha256", "arch", "interpreter",
    "user", "forever_s", "arguments", "libraries", "parts", "has_module",
)  # fmt: skip
_DECLARED = tuple(field for field in fields(GuestTest) if field.name not in NOT_DECLARED)
_FIELDS: Mapping[str, type] = {field.name: field.type for field in _DECLARED if isinstance(field.type, type)}
_REQUIRED = tuple(field.name for field in _DECLARED if field.default is MISSING)


@dataclass(frozen=True, slots=True)
class _Declaration:
    """The fields with their lines, all field names, and the line of the declaration."""

    values: Mapping[str, tuple[Literal, int]]
    names: frozenset[str]
    line: int


class _FieldReader:
    """Collects the fields of either language; only ``run`` is a name instead of a literal."""

    def __init__(self, found: list[tuple[int, str]]) -> None:
        self._found = found
        self._values: dict[str, tuple[Literal, int]] = {}
        self._names: set[str] = set()

    def add(
        self, name: str, source: str, line: int, literal: Callable[[str], Literal], *, is_name: bool
    ) -> None:
        if name in self._names:
            self._found.append((line, f"{name} is declared twice"))
        self._names.add(name)
        if name == "run":
            if not is_name:
                self._found.append((line, f"run: expected the name of a function, got {source}"))
            return
        try:
            self._values[name] = (literal(source), line)
        except ValueError as error:
            self._found.append((line, f"{name}: {error}"))

    def declaration(self, line: int) -> _Declaration:
        if "run" not in self._names:
            self._found.append((line, "missing field run"))
        return _Declaration(self._values, frozenset(self._names), line)


def parse_params(text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Parse ``when: pre post; page: small thp``; raises ``ValueError`` for anything else."""
    groups: list[tuple[str, tuple[str, ...]]] = []
    for group in text.split(";") if text.strip() else ():
        name, colon, values = (part.strip() for part in group.partition(":"))
        words = tuple(values.split())
        if not colon or not words or not all(re.fullmatch(r"[a-z0-9_-]+", word) for word in (name, *words)):
            raise ValueError(f"expected NAME: VALUE..., got {group.strip()!r}")
        if len(set(words)) < len(words) or name in dict(groups):
            raise ValueError(f"{name}: declared twice")
        groups.append((name, words))
        if len(words) > MAX_VALUES or len(groups) > MAX_PARAMS:
            raise ValueError(f"more than {MAX_PARAMS} parameters or {MAX_VALUES} values")
    return tuple(groups)


def parse_symbols(text: str) -> str:
    """The same symbols, ``KSM=y SWAP=y``; raises ``ValueError`` for anything else."""
    wrong = [need for need in text.split() if not _SYMBOL.fullmatch(need)]
    if wrong:
        raise ValueError(f"expected SYMBOL=y without CONFIG_, got {' '.join(wrong)}")
    return " ".join(text.split())


def load_tests(root: Path, shipped_lib: Path | None = None) -> tuple[GuestTest, ...]:
    """The tests below ``root``, sorted by id. Raises the errors of all files at once as ``UsageError``.

    ``shipped_lib`` is searched for includes that are not in the ``lib`` of ``root``; where it is that folder,
    the tests are the built-in ones.
    """
    own_lib = root / "lib"
    is_own = shipped_lib and shipped_lib != own_lib
    libs = (own_lib, shipped_lib) if is_own else (own_lib,)
    reader = SourceReader([lib for lib in libs if lib and lib.is_dir()])
    errors: list[UsageError] = []
    tests: dict[str, GuestTest] = {}
    if not root.is_dir():
        raise_all([UsageError("no such folder of guest tests", where=str(root))])
    for path in sorted(root.glob("*/*")):
        if path.suffix not in LANGUAGES or path.parent.name in ("lib", "module"):
            continue
        test_id = f"{path.parent.name}.{path.stem}"
        if not is_name(test_id) or not re.fullmatch(rf"{_NAME}\.{_NAME}", test_id):
            errors.append(
                UsageError(
                    f"{test_id} is not a test id: use lower case letters, digits and -", where=str(path)
                )
            )
        elif test_id in tests:
            errors.append(UsageError(f"{test_id} is also {tests[test_id].path.name}", where=str(path)))
        elif test := load_test(path, test_id, reader, errors):
            tests[test_id] = test
    raise_all(errors)
    is_built_in = shipped_lib == own_lib
    return tuple(replace(test, is_built_in=is_built_in) for _, test in sorted(tests.items()))


def select_tests(
    tests: Iterable[GuestTest], globs: Sequence[str], where: str = "TESTS"
) -> tuple[GuestTest, ...]:
    """The tests that match any glob, in order; each glob must match. ``*`` does not match selftests."""
    known = tuple(tests)
    errors: list[UsageError] = []
    chosen: set[str] = set()
    for glob in globs:
        matched = {test.id for test in known if is_match(glob, test.id)}
        if not matched:
            near = difflib.get_close_matches(glob, [test.id for test in known], n=3, cutoff=0.4)
            hint = f"nearest: {', '.join(near)}" if near else "`*` and `?` match within the id family.test"
            errors.append(UsageError(f"no test matches {glob!r}", where=where, hint=hint))
        chosen |= matched
    raise_all(errors)
    return tuple(test for test in known if test.id in chosen)


def find_family(test: str) -> str:
    """The family of an id: ``odirect`` of ``odirect.rd-fork``, ``kselftest`` of ``kselftest/mm/cow``."""
    return re.split("[./]", test, maxsplit=1)[0]


def is_match(glob: str, name: str) -> bool:
    """Whether a glob matches the whole name of a test or subtest; ``*`` and ``?`` do not match ``/``."""
    is_glob = "*" in glob or "?" in glob
    return _make_pattern(glob).fullmatch(name) is not None if is_glob else glob == name


@functools.cache
def _make_pattern(glob: str) -> re.Pattern[str]:
    words = ({"*": "[^/]*", "?": "[^/]"}.get(part) or re.escape(part) for part in glob)
    return re.compile("".join(words))


def find_imports(test: GuestTest) -> set[str]:
    """The modules that a Python test, or the supervisor of other tests, imports; none for C tests."""
    if test.language in (PROGRAM, SELFTEST):
        return {"program"}
    if test.language != "python":
        return set()
    return set(_INCLUDES[".py"].findall(test.path.read_text(encoding="utf-8")))


def compile_command(
    test: GuestTest, cc: str, lib_dir: Path, out: Path, headers: Sequence[Path] = ()
) -> list[str]:
    """The compiler command for a C test, which is linked statically; warnings of programs are not ours."""
    if test.language == PROGRAM:
        return [*make_compiler_words(cc, headers), "-O2", "-g", "-o", str(out), str(test.path)]
    return [
        cc, "-O2", "-g0", "-static", "-Wall", "-Wextra", "-Werror", "-std=gnu11", "-pthread",
        f'-DGT_ID="{test.id}"', *([f"-I{test.own_lib}"] if test.own_lib else []), f"-I{lib_dir}",
        "-o", str(out), str(test.path),
    ]  # fmt: skip


def uses_kernel_headers(test: GuestTest) -> bool:
    """Whether a program includes UAPI headers of the kernel."""
    sources = [test.path / part for part in test.parts] if test.parts else [test.path]
    texts = (path.read_text(errors="replace") for path in sources if path.suffix in (".c", ".h"))
    return any(_UAPI.search(text) for text in texts)


def is_left_by_kbuild(name: str) -> bool:
    """Whether an earlier build of a module has made a file of its folder, maybe for another kernel."""
    return Path(name).suffix in (".o", ".ko", ".a", ".cmd", ".mod")


def make_compiler_words(cc: str, headers: Sequence[Path]) -> list[str]:
    """The compiler of programs, which searches ``headers`` before those of the host."""
    return [cc, "-static", "-pthread", *(f"-isystem{path}" for path in headers)]


class SourceReader:
    """Reads the sources of programs, each file once: most tests include the same headers.

    Includes are searched for in ``libs``, whose default is the folder ``lib`` beside the families.
    """

    def __init__(self, libs: Sequence[Path] = ()) -> None:
        self.libs = tuple(libs)
        self._data: dict[Path, bytes] = {}
        self._included: dict[Path, list[tuple[str, Path]]] = {}

    def list_files(self, path: Path) -> list[tuple[str, Path]]:
        """The source files of a program: its own and the included ones, with their names in the includes."""
        # with the include name, as lib/ and module/ may have files of the same name
        files = {(path.name, path)}
        waiting = [path]
        while waiting:
            includer = waiting.pop()
            if includer not in self._included:
                self._included[includer] = list(self._find_included(includer, path))
            new = [included for included in self._included[includer] if included not in files]
            files.update(new)
            waiting += [file for _, file in new]
        return sorted(files)

    def make_content_id(self, path: Path, test_id: str) -> str:
        """The hash of all source files by name and content, without their paths."""
        digest = hashlib.sha256()
        parts = sorted((name, self._read(file)) for name, file in self.list_files(path))
        for name, data in ((test_id, b""), *parts):
            digest.update(f"{name}\0{len(data)}\0".encode())
            digest.update(data)
        return digest.hexdigest()

    def _read(self, path: Path) -> bytes:
        if path not in self._data:
            self._data[path] = path.read_bytes()
        return self._data[path]

    def _find_included(self, includer: Path, program: Path) -> Iterator[tuple[str, Path]]:
        """What a file of a program includes: gcc searches its folder first, Python only the libraries."""
        pattern = _INCLUDES.get(program.suffix)
        libs = self.libs or (program.parent.parent / "lib",)
        for name in pattern.findall(self._read(includer).decode(errors="replace")) if pattern else ():
            if program.suffix == ".py":
                places = [lib / f"{name}.py" for lib in libs]
            else:
                places = [folder / name for folder in (includer.parent, *libs)]
            if file := next((place for place in places if place.is_file()), None):
                yield name, file


def load_test(path: Path, test_id: str, reader: SourceReader, errors: list[UsageError]) -> GuestTest | None:
    """The test that a file declares; None if there are errors, which are added to ``errors``."""
    found: list[tuple[int, str]] = []
    declaration = None
    try:
        parse = _parse_c if path.suffix == ".c" else _parse_python
        declaration = parse(read_text(path), found)
    except UsageError as error:
        errors.append(error)
    if declaration:
        found += _check_declaration(declaration)
    errors += [
        UsageError(what, where=f"{path}:{line}", hint=_HINTS[path.suffix]) for line, what in sorted(found)
    ]
    if found or not declaration:
        return None
    values = {name: value for name, (value, _) in declaration.values.items()}
    content_id = reader.make_content_id(path, test_id)
    return _make_test(test_id, path, content_id, reader.libs, values)


def _make_test(
    test_id: str, path: Path, content_id: str, libs: tuple[Path, ...], values: Mapping[str, Literal]
) -> GuestTest:
    return GuestTest(
        id=test_id,
        path=path,
        language=LANGUAGES[path.suffix],
        content_id=content_id,
        libs=libs,
        **values,  # type: ignore[arg-type]
    )


def _check_declaration(declaration: _Declaration) -> Iterator[tuple[int, str]]:
    for name in _REQUIRED:
        if name not in declaration.names:
            yield declaration.line, f"missing field {name}"
    for name, (value, line) in declaration.values.items():
        if name not in _FIELDS:
            near = difflib.get_close_matches(name, _FIELDS, n=1)
            yield line, f"unknown field {name}" + (f", is it {near[0]}?" if near else "")
        elif type(value) is not _FIELDS[name]:
            yield line, f"{name}: expected {_FIELDS[name].__name__}, got {value!r}"
        elif what := _check_value(name, value):
            yield line, f"{name}: {what}"


def _check_value(name: str, value: Literal) -> str:
    """The error of a value of the right type, or an empty string."""
    if isinstance(value, str):
        if not value.isprintable():
            return "expected one line of text"
        match name:
            case "summary" if not value:
                return "expected a sentence"
            case "kind" if value not in KINDS:
                return f"expected {' or '.join(KINDS)}, got {value!r}"
            case "min_kernel" if value and not re.fullmatch(r"\d+\.\d+(\.\d+)?", value):
                return f"expected a version like 5.10, got {value!r}"
            case "needs_kconfig":
                return _find_error(parse_symbols, value)
            case "params":
                return _find_error(parse_params, value)
    elif name in ("timeout_s", "cpus") and value < 1:
        return f"expected at least 1, got {value}"
    elif value < 0:
        return f"expected at least 0, got {value}"
    return ""


def is_declared(text: str, suffix: str) -> bool:
    """Whether a source declares a test of ours, however wrong."""
    start = _C_START if suffix == ".c" else re.compile(r"^TEST\s*=\s*GuestTest\(", re.MULTILINE)
    return start.search(text) is not None


def _find_error(parse: Callable[[str], object], value: str) -> str:
    try:
        parse(value)
    except ValueError as error:
        return str(error)
    return ""


def _parse_c(text: str, found: list[tuple[int, str]]) -> _Declaration | None:
    """Parse the GUEST_TEST block; errors are added to ``found`` as (line, message)."""
    code = _C_TOKENS.sub(_blank_comment, text)
    starts = list(_C_START.finditer(code))
    if len(starts) != 1:
        where = 1 + code.count("\n", 0, starts[1].start()) if starts else 1 + text.rstrip().count("\n")
        found.append((where, "a second GUEST_TEST" if starts else "no line `GUEST_TEST = {`"))
        return None
    first = 1 + code.count("\n", 0, starts[0].start())
    reader = _FieldReader(found)
    lines = code[starts[0].end() :].split("\n")[1:]
    for number, line in enumerate(lines, first + 1):
        if re.fullmatch(r"\};\s*", line):
            if any(rest.strip() for rest in lines[number - first :]):
                found.append((number + 1, "the declaration must be last in the file"))
            return reader.declaration(first)
        if match := _C_FIELD.fullmatch(line):
            reader.add(match[1], match[2], number, _c_literal, is_name=_is_c_name(match[2]))
        elif line.strip():
            found.append((number, f"not `.field = literal,`: {line.strip()}"))
    found.append((first, "the declaration has no end `};`"))
    return None


def _blank_comment(token: re.Match[str]) -> str:
    """Replace comments by their newlines, keep strings."""
    return token[0] if token[0][0] in "\"'" else "\n" * token[0].count("\n")


def _is_c_name(text: str) -> bool:
    return text not in ("true", "false") and bool(re.fullmatch(r"[A-Za-z_]\w*", text))


def _c_literal(text: str) -> Literal:
    if text[0] == '"':
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"-?(0|[1-9]\d*)", text):
        return int(text)
    raise ValueError(f"expected a string, decimal number, true or false, got {text}")


def _parse_python(text: str, found: list[tuple[int, str]]) -> _Declaration | None:
    """Parse the module-level TEST; errors are added to ``found`` as (line, message)."""
    try:
        module = ast.parse(text)
    except (SyntaxError, ValueError) as error:
        found.append((getattr(error, "lineno", None) or 1, f"not Python: {getattr(error, 'msg', error)}"))
        return None
    calls: list[ast.Call] = []
    for statement in module.body:
        match statement:
            case ast.Assign([ast.Name("TEST")], ast.Call(ast.Name("GuestTest")) as call):
                calls.append(call)
    if len(calls) != 1:
        line = calls[1].lineno if calls else 1 + text.rstrip().count("\n")
        found.append((line, "a second TEST = GuestTest(...)" if calls else "no TEST = GuestTest(...)"))
        return None
    (call,) = calls
    if ast.unparse(module.body[-1]) != "if __name__ == '__main__':\n    TEST.main()":
        found.append((module.body[-1].lineno, 'expected at the end: if __name__ == "__main__": TEST.main()'))
    reader = _FieldReader(found)
    found += [(argument.lineno, "fields must be keyword arguments") for argument in call.args]
    for keyword in call.keywords:
        source = ast.unparse(keyword.value)
        is_name = isinstance(keyword.value, ast.Name)
        reader.add(keyword.arg or "**", source, keyword.lineno, _python_literal, is_name=is_name)
    return reader.declaration(call.lineno)


def _python_literal(source: str) -> Literal:
    try:
        value = ast.literal_eval(source)
    except ValueError:
        value = None
    if not isinstance(value, str | int):
        raise ValueError(f"expected a string, number, True or False, got {source}")
    return value
