# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the words that name the kernel's selftests, and the files of a selftest directory.

``kselftest/DIRECTORY/PROGRAM`` names programs of tools/testing/selftests/DIRECTORY; PROGRAM may be a glob.
The programs are known only when the tree is there. Until then, a word stands for the tests that it selects.
"""

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import UsageError, raise_all
from orchestrator.project.guesttest import SELFTEST, GuestTest, is_match
from orchestrator.store.name import is_name
from orchestrator.store.store import make_id, make_tree_id

FAMILY = "kselftest"
FOLDER = "tools/testing/selftests"
# the fragment for what the directories' own fragments take for granted
FRAGMENT = "kselftest"
# the limit of a directory without settings (kselftest/runner.sh)
TIMEOUT_S = 45
# directories that had another name in older trees: selftests/vm was renamed in 6.3
OLD_NAMES: Mapping[str, str] = {"mm": "vm"}
# runs one selftest in the guest; a part of our library
RUNNER = "selftest.sh"
_SUPERVISOR = "program.py"
# version of how selftests are built and run
FORMAT = 5

_WORD = re.compile(r"(?:[\w.+-]+/)+[\w.+*?-]+")
# a call of the function run_test, with its category and what starts the program
_CALL = re.compile(r'^\s*(?:CATEGORY="?([\w-]+)"?\s+)?run_test\s+(.*)$', re.MULTILINE)
_ASSIGNED = re.compile(r"^\s*(\w+)=(\./[\w.-]+)\s*$", re.MULTILINE)
_PROGRAM = re.compile(r"(?:^|\s)\./([\w.-]+)")
_SETTING = re.compile(r"^\s*timeout\s*=\s*(\d+)\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RunScript:
    """A script of a directory that runs its programs with arguments, by a function ``run_test``.

    ``categories`` are those of each program, in the order of the script.
    """

    name: str
    categories: Mapping[str, tuple[str, ...]]


def is_selftest(word: str) -> bool:
    """Whether a word of ``TESTS=`` is about the kernel's selftests."""
    return word.split("/", 1)[0] == FAMILY


def make_placeholders(words: Iterable[str], lib: Path, where: str = "TESTS") -> list[GuestTest]:
    """A test for each word, until the tree says which tests it selects; raises all ``UsageError`` at once."""
    chosen = list(dict.fromkeys(filter(is_selftest, words)))
    errors = []
    for word in chosen:
        directory, _, program = word.removeprefix(f"{FAMILY}/").rpartition("/")
        parts = [*directory.split("/"), program.replace("*", "x").replace("?", "x")]
        if not _WORD.fullmatch(word) or not directory or not all(map(is_name, parts)):
            hint = f"as in {FAMILY}/mm/cow or '{FAMILY}/net/forwarding/*': only the last part may be a glob"
            what = f"expected {FAMILY}/DIRECTORY/PROGRAM, a directory of {FOLDER}, got {word}"
            errors.append(UsageError(what, where=where, hint=hint))
    raise_all(errors)
    return [make_test(word, TIMEOUT_S, lib) for word in chosen]


def make_test(test_id: str, timeout_s: int, lib: Path) -> GuestTest:
    directory, name = split_id(test_id)
    files = {file: lib / file for file in (RUNNER, _SUPERVISOR)}
    return GuestTest(
        id=test_id,
        path=Path(FOLDER, directory, name),
        language=SELFTEST,
        # the source is identified by the kernel that was built from it
        content_id=make_id(test_id, timeout_s, make_tree_id(files), FORMAT),
        summary=f"{name} of the kernel's {directory} selftests",
        kind="deterministic",
        timeout_s=timeout_s,
        needs_root=True,
        # run in a separate guest, as it may not restore settings
        may_crash=True,
    )


def split_id(test_id: str) -> tuple[str, str]:
    """The directory and the program, which may be a glob: ``mm`` and ``cow`` of ``kselftest/mm/cow``."""
    directory, _, name = test_id.removeprefix(f"{FAMILY}/").rpartition("/")
    return directory, name


def list_directories(tests: Iterable[GuestTest]) -> tuple[str, ...]:
    """The directories of the selftests among some tests."""
    return tuple(dict.fromkeys(split_id(test.id)[0] for test in tests if test.language == SELFTEST))


def choose_programs(word: str, known: Sequence[str]) -> list[str]:
    """The ids that a word selects of the programs that a directory lists; raises ``UsageError``.

    A name without a glob selects itself: also a program that is not listed, and one that only other versions
    have.
    """
    directory, pattern = split_id(word)
    if not set(pattern) & set("*?"):
        return [word]
    found = [f"{FAMILY}/{directory}/{name}" for name in known if is_match(pattern, name)]
    if not found:
        listed = ", ".join(known[:20]) or "none"
        raise UsageError(
            f"{word} selects no program of {FOLDER}/{directory}", where="TESTS", hint=f"there are: {listed}"
        )
    return found


def find_nearest(name: str, known: Sequence[str]) -> str:
    """The listed programs with similar names, as the end of a sentence, or an empty string."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; nearest: {', '.join(near)}" if near else ""


def parse_settings(text: str) -> int:
    """The time limit in a directory's ``settings``, in seconds; a limit of 0 means none: an hour here."""
    match = _SETTING.search(text)
    return int(match[1]) or 3600 if match else TIMEOUT_S


def parse_run_script(name: str, text: str) -> RunScript | None:
    """The programs that a script runs by its function ``run_test``; None for other scripts."""
    if not re.search(r"^run_test\(\)", text, re.MULTILINE):
        return None
    assigned = dict(_ASSIGNED.findall(text))
    found: dict[str, tuple[str, ...]] = {}
    for category, words in _CALL.findall(text):
        for variable, value in assigned.items():
            words = words.replace(f"${{{variable}}}", value)
        if match := _PROGRAM.search(words):
            known = found.get(match[1], ())
            found[match[1]] = known if category in known or not category else (*known, category)
    return RunScript(name, found) if found else None


def parse_list(text: str, directory: str) -> list[str]:
    """The programs of a directory in the format of ``kselftest-list.txt``; other lines are ignored."""
    names = [
        line.removeprefix(f"{directory}:") for line in text.splitlines() if line.startswith(f"{directory}:")
    ]
    return [name for name in dict.fromkeys(map(str.strip, names)) if is_name(name)]
