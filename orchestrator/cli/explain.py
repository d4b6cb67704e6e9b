# SPDX-License-Identifier: GPL-2.0-or-later
"""Explains every word that Cowbell prints: names of declarations, verdicts, exit statuses, terms."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from orchestrator.cli.glossary import CONTRACTS, EXITS, TERMS, VERDICTS
from orchestrator.cli.target import TARGETS
from orchestrator.cli.variables import VARIABLES
from orchestrator.errors import UsageError, raise_all
from orchestrator.history import coverage
from orchestrator.history.coverage import Observation
from orchestrator.parse.splat import SplatKind
from orchestrator.plan.plan import Declarations
from orchestrator.project.changelog import Statement
from orchestrator.project.guesttest import GuestTest, is_match
from orchestrator.project.matrix import Row
from orchestrator.project.yamlfile import suggest
from orchestrator.source.tree import DebianImageTree, DebianTree, GitTree, LocalTree, Tree

# other words for verdicts: those of KTAP, and of the last line of a report
_VERDICT_WORDS = {
    "XFAIL": "FAIL (EXPECTED)",
    "CRASH (EXPECTED)": "FAIL (EXPECTED)",
    "TIMEOUT (EXPECTED)": "FAIL (EXPECTED)",
    "FAILED AS EXPECTED": "FAIL (EXPECTED)",
    "XPASS": "PASS (EXPECTED TO FAIL)",
    "PASSED UNEXPECTEDLY": "PASS (EXPECTED TO FAIL)",
}


@dataclass(frozen=True, slots=True)
class Explained:
    word: str
    kind: str
    told: Mapping[str, str]


def find_subjects(
    words: Sequence[str], declared: Declarations, changelog: Sequence[Statement]
) -> tuple[list[Explained], list[GuestTest]]:
    """All meanings of the words that name no test, and the tests that the others name.

    Raises ``UsageError`` for each word that is neither, all at once.
    """
    plain: list[Explained] = []
    tests: dict[str, GuestTest] = {}
    errors: list[UsageError] = []
    for word in words:
        found = _explain(word, declared, changelog)
        matched = {test.id: test for test in declared.tests if _is_named(test, word)}
        plain += [Explained(word, kind, told) for kind, told in found.items()]
        tests |= matched
        if not found and not matched:
            known = [*_list_words(declared, changelog), *(test.id for test in declared.tests)]
            hint = "it explains the words that Cowbell prints; * and ? match in the names of tests"
            errors.append(UsageError(f"there is no {word}{suggest(word, known)}", where="explain", hint=hint))
    if not words:
        errors.append(UsageError("expected a word, such as a test or a verdict", where="explain"))
    raise_all(errors)
    return plain, list(tests.values())


def _is_named(test: GuestTest, word: str) -> bool:
    """Whether a word is a test, a glob of tests, a subtest, or a result of a kernel selftest."""
    return is_match(word, test.id) or word in test.subtests or word.startswith(f"{test.id}/")


def _list_words(declared: Declarations, changelog: Sequence[Statement]) -> list[str]:
    """The words to which a wrong one may be similar."""
    terms = (term for terms in TERMS for term in terms.split(", "))
    return [
        *declared.rows, *declared.trees, *declared.series, *declared.fragments, *TARGETS, *VARIABLES,
        *VERDICTS, *map(str, EXITS), *terms, *CONTRACTS, *SplatKind, *(entry.id for entry in changelog),
        *(test.family for test in declared.tests),
        *(variant.name for row in declared.rows.values() for variant in row.variants),
    ]  # fmt: skip


def render(words: Sequence[Explained], tests: Sequence[GuestTest], seen: Sequence[Observation]) -> str:
    parts = [_render(one.kind, one.word, one.told) for one in words]
    return "\n".join([*parts, *([coverage.explain_tests(tests, seen)] if tests else [])])


def _explain(
    word: str, declared: Declarations, changelog: Sequence[Statement]
) -> Mapping[str, Mapping[str, str]]:
    """The facts about a word, by kind; a word may be of several kinds."""
    found: dict[str, Mapping[str, str]] = {}
    for names, told in TERMS.items():
        if word.lower() in names.lower().split(", "):
            found["term"] = {"means": told}
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
    verdict = _VERDICT_WORDS.get(word.upper(), word.upper())
    # FAIL explains FAIL (expected) as well
    if verdicts := {
        name: said for name, said in VERDICTS.items() if verdict in (name.upper(), name.split(" (")[0])
    }:
        found["verdict"] = verdicts
    found |= _explain_uses(word, declared)
    if word in declared.series:
        series = declared.series[word]
        found["series"] = {
            "title": series.title,
            "patches": str(len(series.patches)),
            "use it": f"SERIES={word}",
            "more": f"cowbell series SERIES={word}",
        }
    if word in declared.fragments:
        found["fragment"] = {"about": declared.fragments[word].about, "use it": f"CONFIG=base,{word}"}
    for entry in changelog:
        if word == entry.id:
            covering = ", ".join(test.id for test in declared.tests if word in test.changelog.split())
            found["changelog entry"] = {
                "says": entry.says,
                "tests": covering or entry.uncovered or "no test yet",
            }
    kind, _, functions = word.partition(":")
    if kind in list(SplatKind):
        effect = "the verdict is CRASH" if SplatKind(kind).is_fault else "it does not change the verdict"
        found["fingerprint" if functions else "kind of splat"] = {
            "means": f"the kernel log has a report of kind {kind}: {effect}",
            "functions": functions.replace("/", ", called by "),
            "more": f"cowbell explain {kind}; cowbell history" if functions else "",
        }
    if re.fullmatch(r"\d+", word) and int(word) in EXITS:
        found["exit status"] = {"means": EXITS[int(word)]}
    return found


def _explain_uses(word: str, declared: Declarations) -> Mapping[str, Mapping[str, str]]:
    """The facts about a variant, a family or a contract, which rows and tests only name."""
    found: dict[str, Mapping[str, str]] = {}
    variants = {row.name: one for row in declared.rows.values() for one in row.variants if one.name == word}
    if variants:
        series = sorted({one.series for one in variants.values() if one.series})
        found["variant"] = {"series": ", ".join(series) or "none", "in the rows": ", ".join(variants)}
    row, _, variant = word.partition("/")
    if row in declared.rows and variant in {one.name for one in declared.rows[row].variants}:
        found["job"] = {"row": row, "variant": variant, "more": f"cowbell explain {row} {variant}"}
    for kind, told, tests in (
        ("family", "", [test.id for test in declared.tests if test.family == word]),
        ("contract", CONTRACTS.get(word, ""), [test.id for test in declared.tests if test.contract == word]),
    ):
        if tests:
            found[kind] = {"means": told, "tests": ", ".join(tests)}
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
