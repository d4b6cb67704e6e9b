# SPDX-License-Identifier: GPL-2.0-or-later
"""list, explain and proof: what is declared, and on which trees each test has failed and passed."""

from typing import TYPE_CHECKING

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target
from orchestrator.errors import UsageError, raise_all

if TYPE_CHECKING:
    from orchestrator.history.coverage import Observation
    from orchestrator.project.guesttest import GuestTest

KINDS = ("rows", "trees", "series", "fragments", "tests", "targets", "variables", "schemas")


def run_list(call: Call) -> int:
    from orchestrator.cli import listing

    options = call.line.options
    kind = call.choose_subject(KINDS)
    if options.changelog:
        return _show_changelog(call)
    if kind == "trees" and options.verbose:
        return _show_versions(call)
    faults = call.declared.faults.items()
    raise_all([error for name, errors in faults if not kind or name.startswith(kind) for error in errors])
    if kind:
        names = listing.list_kind(kind, call.declared)
        return call.show_product("names", listing.render_names, names, kind=kind, names=names)
    listed, own = listing.list_declared(call.declared), call.declared.own
    mine = {kind: sorted(names) for kind, names in own.items()}
    return call.show_product("list", lambda _: listing.render_declared(listed, own), None, **listed, own=mine)


def _show_versions(call: Call) -> int:
    """The trees with the versions that Debian's mirror offers."""
    from orchestrator.cli import listing
    from orchestrator.source import debian, versions
    from orchestrator.source.tree import VERSIONED

    trees = [tree for tree in call.declared.named_trees.values() if isinstance(tree, VERSIONED)]
    if call.is_dry_run:
        found = versions.DebianVersions(
            {tree.name: versions.read_versions(tree, call.store) for tree in trees}, {}
        )
    else:
        max_age_s = 0.0 if call.redo else debian.FRESH_S
        found = versions.list_versions(trees, call.store, max_age_s=max_age_s)
    if found.errors and not any(found.trees.values()):
        raise next(iter(found.errors.values()))
    for error in found.errors.values():
        call.note(error.what)
    names = listing.list_kind("trees", call.declared)
    listed = {name: {"about": about, "versions": found.trees.get(name, ())} for name, about in names.items()}
    return call.show_product("trees", lambda _: listing.render_versions(names, found), None, trees=listed)


def _choose_tests(call: Call) -> "tuple[tuple[GuestTest, ...], list[Observation]]":
    from orchestrator.cli.storedresults import find_seen
    from orchestrator.project.guesttest import select_tests

    tests = select_tests(call.declared.tests, call.settings["TESTS"].words or ("*",), "TESTS")
    return tests, find_seen(tests, call)


def _show_changelog(call: Call) -> int:
    from orchestrator.history import coverage
    from orchestrator.project import changelog

    if call.subjects:
        raise UsageError("does not go with a kind", where="--changelog")
    tests, seen = _choose_tests(call)
    entries = changelog.load_changelog(call.place.changelogs, call.declared.tests)
    covered = coverage.make_coverage(entries, tests, seen)
    return call.show_product(
        "changelog", coverage.render_coverage, covered, entries=coverage.list_entries(covered)
    )


def run_proof(call: Call) -> int:
    from orchestrator.history import coverage

    proofs = coverage.make_proofs(*_choose_tests(call))
    return call.show_product("proof", coverage.render_proofs, proofs, subtests=coverage.list_proofs(proofs))


def run_explain(call: Call) -> int:
    from orchestrator.cli import explain
    from orchestrator.cli.storedresults import find_seen
    from orchestrator.history import coverage
    from orchestrator.project import changelog

    entries = changelog.load_changelog(call.place.changelogs, call.declared.tests)
    words, chosen = explain.find_subjects(call.subjects, call.declared, entries)
    seen = find_seen(chosen, call)
    return call.show_product(
        "test",
        lambda _: explain.render(words, chosen, seen),
        None,
        tests=coverage.list_tests(chosen, seen),
        words=words,
    )


TARGETS = (
    Target(
        "list",
        "set up and look up",
        "list rows, trees, series, config fragments and tests",
        run_list,
        (
            ("cowbell list tests", "list the tests and their requirements"),
            ("cowbell list trees -v", "list the trees, and the versions that Debian's mirror offers"),
        ),
        variables=("ROW", "TESTS"),
        extra_options=("--changelog", "--always-make"),
        products=("list", "names", "trees", "changelog"),
        takes="[KIND]",
        words=KINDS,
        more=f"KIND is one of {', '.join(KINDS)}. ROW= and TESTS= apply to --changelog, -B updates the "
        "versions.",
    ),
    Target(
        "explain",
        "set up and look up",
        "explain the words that Cowbell prints",
        run_explain,
        (
            ("cowbell explain odirect.rd-mprotect", "what the test does, and its results so far"),
            ("cowbell explain BROKEN 3 ROW", "the meaning of a verdict, an exit status and a variable"),
        ),
        variables=("ROW",),
        products=("test",),
        takes="WORD...",
        kinds=("tests", "rows", "trees", "series", "fragments", "targets", "variables"),
        more="WORD is a test or a glob of tests, a row, variant, tree, series, fragment, family, contract or "
        "changelog entry, a target, variable, verdict, exit status, fingerprint, or a term of the glossary. "
        "ROW= limits the results.",
    ),
    Target(
        "proof",
        "read results",
        "list the trees on which each test has failed and passed",
        run_proof,
        (
            ("cowbell proof", "every test, in every row"),
            ("cowbell proof TESTS='vmsplice.*' ROW=demo", "some tests, in row demo"),
        ),
        variables=("ROW", "TESTS"),
        products=("proof",),
    ),
)
