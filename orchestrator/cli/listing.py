# SPDX-License-Identifier: GPL-2.0-or-later
"""Renders lists, settings and dry runs as text and JSON."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.target import TARGETS, list_products
from orchestrator.cli.variables import VARIABLES, Setting
from orchestrator.project.selftest import FAMILY, FOLDER

if TYPE_CHECKING:
    from orchestrator.plan.plan import Declarations
    from orchestrator.plan.steps import Step
    from orchestrator.project.guesttest import GuestTest
    from orchestrator.source.versions import DebianVersions


def render_settings(settings: Mapping[str, Setting]) -> str:
    width = max((len(setting.value) for setting in settings.values()), default=0)
    return "".join(f"{name:<6} = {s.value:<{width}} # {s.origin}\n" for name, s in settings.items())


def render_steps(steps: Sequence["Step"]) -> str:
    return "".join(
        f"{s.stage:<8} {' '.join(filter(None, (s.subject, s.key)))}\n"
        f"           {s.why or (f'as for {s.same_as}' if s.same_as else 'up to date')}\n"
        for s in steps
    )


def list_declared(declared: "Declarations") -> Mapping[str, Mapping[str, str]]:
    """The declarations of each kind: by name, a description in one line."""
    return {
        "rows": {name: row.about for name, row in declared.rows.items()},
        "trees": {name: str(tree) for name, tree in declared.named_trees.items()},
        "series": {
            name: f"{len(series.patches)} patch(es), {series.title}"
            for name, series in declared.series.items()
        },
        "fragments": {name: fragment.about for name, fragment in declared.fragments.items()},
        "tests": {test.id: test.summary for test in declared.tests},
    }


def render_declared(listed: Mapping[str, Mapping[str, str]], own: Mapping[str, frozenset[str]]) -> str:
    """All declarations; those of the user overlay, in ``own`` by kind, are marked."""
    lines = []
    for kind, entries in listed.items():
        mine = own.get(kind, frozenset())
        lines.append(f"{kind}:")
        lines += [f"{'*' if name in mine else ' '} {name:<24} {about}" for name, about in entries.items()]
    if own:
        lines.append("* from your overlay; the others are built in")
    return "\n".join(lines) + "\n"


def list_kind(kind: str, declared: "Declarations") -> Mapping[str, str]:
    """The declarations of one kind, with more details."""
    match kind:
        case "tests":
            told = {test.id: describe_test(test) for test in declared.tests}
            return {
                **told,
                f"{FAMILY}/DIRECTORY/*": f"the programs of {FOLDER}/DIRECTORY, of the tree under test",
            }
        case "targets":
            return {name: target.about for name, target in TARGETS.items()}
        case "variables":
            return {name: variable.about for name, variable in VARIABLES.items()}
        case "schemas":
            return {name: f"cowbell schema {name}" for name in list_products()}
        case _:
            return list_declared(declared)[kind]


def render_names(names: Mapping[str, str]) -> str:
    width = max(map(len, names), default=0)
    return "".join(f"{name:<{width}}  {about}\n" for name, about in names.items())


def render_versions(trees: Mapping[str, str], found: "DebianVersions") -> str:
    """The trees, and below each Debian tree its versions with their suites."""
    listed = [version for versions in found.trees.values() for version in versions]
    width = max((len(version.version) for version in listed), default=0)
    names = render_names(trees).splitlines()
    lines = []
    for name, line in zip(trees, names, strict=True):
        lines.append(line)
        for version in found.trees.get(name, ()):
            suites = ", ".join(version.suites) or "no longer offered"
            state = ", fetched" if version.is_fetched else ""
            lines.append(f"    {version.version:<{width}}  {suites}{state}")
    return "".join(f"{line}\n" for line in lines)


def describe_test(test: "GuestTest") -> str:
    """A test and its requirements in one line."""
    needs = [*test.needs_kconfig.split(), *(["root"] if test.needs_root else [])]
    needs += [f"kernel >= {test.min_kernel}"] if test.min_kernel else []
    needs += [f"{test.memory_mib} MiB"] if test.memory_mib else []
    return f"{test.summary} ({test.kind}{'; needs ' + ', '.join(needs) if needs else ''})"
