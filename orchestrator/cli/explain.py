# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains words: rows, trees, targets, variables, verdicts, exit statuses and tests."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.cli.glossary import EXITS, VERDICTS
from orchestrator.cli.target import TARGETS
from orchestrator.cli.variables import VARIABLES
from orchestrator.errors import UsageError, raise_all
from orchestrator.history import coverage
from orchestrator.history.coverage import Observation
from orchestrator.plan.plan import Declarations
from orchestrator.project.guesttest import GuestTest, is_match
from orchestrator.project.matrix import Row
from orchestrator.project.yamlfile import suggest
from orchestrator.source.tree import DebianImageTree, DebianTree, GitTree, LocalTree, Tree


@dataclass(frozen=True, slots=True)
class Explained:
    word: str
    kind: str
    told: Mapping[str, str]


def find_subjects(words: Sequence[str], declared: Declarations) -> tuple[list[str], list[GuestTest]]:
    """The words that name no test, and the tests that the others name.

    Raises ``UsageError`` for each word that is neither, all at once.
    """
    plain: list[str] = []
    tests: dict[str, GuestTest] = {}
    errors: list[UsageError] = []
    known = [*_list_words(declared), *(test.id for test in declared.tests)]
    for word in words:
        matched = {test.id: test for test in declared.tests if is_match(word, test.id)}
        if _explain(word, declared):
            plain.append(word)
        elif matched:
            tests |= matched
        else:
            hint = (
                "it explains tests (* and ? match), rows, trees, targets, variables, verdicts, exit statuses"
            )
            errors.append(UsageError(f"there is no {word}{suggest(word, known)}", where="explain", hint=hint))
    if not words:
        errors.append(UsageError("expected a word, such as a test or a verdict", where="explain"))
    raise_all(errors)
    return plain, list(tests.values())


def _list_words(declared: Declarations) -> list[str]:
    return [*declared.rows, *declared.trees, *TARGETS, *VARIABLES, *VERDICTS, *map(str, EXITS)]


def explain_words(words: Sequence[str], declared: Declarations) -> list[Explained]:
    """All meanings of words that name no test."""
    return [Explained(word, kind, told) for word in words for kind, told in _explain(word, declared).items()]


def render(words: Sequence[Explained], tests: Sequence[GuestTest], seen: Sequence[Observation]) -> str:
    parts = [_render(one.kind, one.word, one.told) for one in words]
    return "\n".join([*parts, *([coverage.explain_tests(tests, seen)] if tests else [])])


def _explain(word: str, declared: Declarations) -> Mapping[str, Mapping[str, str]]:
    """The facts about a word, by kind; a word may be of several kinds."""
    found: dict[str, Mapping[str, str]] = {}
    if word in declared.rows:
        found["row"] = _explain_row(declared.rows[word])
    if word in declared.trees:
        found["tree"] = _explain_tree(declared.trees[word])
    if word in TARGETS:
        target = TARGETS[word]
        found["target"] = {
            "does": target.about,
            "usage": target.usage,
            "variables": ", ".join(target.variables),
            "examples": "; ".join(command for command, _ in target.examples),
            "more": f"cowbell help {word}",
        }
    if word in VARIABLES:
        variable = VARIABLES[word]
        sources = ["the command line", *(["the environment"] if variable.is_inherited else [])]
        found["variable"] = {
            "means": variable.about,
            "more": variable.more,
            "default": variable.default,
            "one of": ", ".join(variable.choices),
            "used by": ", ".join(target.name for target in TARGETS.values() if word in target.variables),
            "taken from": ", ".join([*sources, "~/.config/cowbell.yaml", "the row"]),
        }
    # FAIL explains FAIL (expected) as well
    verdicts = {name: said for name, said in VERDICTS.items() if word.upper() in (name, name.split(" (")[0])}
    aliases = {"XFAIL": "FAIL (expected)", "XPASS": "PASS (expected to fail)"}
    if name := aliases.get(word.upper()):
        verdicts = {name: VERDICTS[name]}
    if verdicts:
        found["verdict"] = verdicts
    if re.fullmatch(r"\d+", word) and int(word) in EXITS:
        found["exit status"] = {"means": EXITS[int(word)]}
    return found


def _explain_tree(tree: Tree) -> Mapping[str, str]:
    match tree:
        case DebianTree() | DebianImageTree():
            more = f"KERNEL={tree.name}:VERSION; cowbell list trees -v lists the versions"
        case GitTree() | LocalTree():
            more = f"KERNEL={tree.name}:REF for another branch, tag or commit"
        case _:
            more = ""
    return {"source": str(tree), "use it": f"KERNEL={tree.name}", "or": more}


def _explain_row(row: Row) -> Mapping[str, str]:
    variants = [
        f"{variant.name} ({variant.series})" if variant.series else variant.name for variant in row.variants
    ]
    expected = sum(len(variant.expect) for variant in row.variants)
    return {
        "about": row.about,
        "tree": f"{row.tree}, {row.arch}",
        "config": ", ".join(row.kconfig),
        "variants": ", ".join(variants),
        "guest": f"{row.guest.cpus} CPUs, {row.guest.memory_mib} MiB",
        "tests": ", ".join(row.tests),
        "expected failures": f"{expected} of the row, beside ci/expectations.yaml" if expected else "",
        "run it": f"cowbell test ROW={row.name}",
    }


def _render(kind: str, word: str, told: Mapping[str, str]) -> str:
    width = max(len(key) for key in told) + 1
    lines = [f"    {key:<{width}} {value}" for key, value in told.items() if value]
    return "\n".join([f"{word}: {kind}", *lines]) + "\n"
