# SPDX-License-Identifier: GPL-2.0-or-later
"""The types of all JSON output, and the JSON Schemas made from them.

The first key of a product names its schema. An incompatible change gets a new number.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from types import GenericAlias
from typing import Any, Literal, cast, get_type_hints

from pydantic import TypeAdapter
from typing_extensions import TypedDict

from orchestrator.bisect.outcome import BisectResult as Bisected
from orchestrator.cli.configreport import KernelConfig
from orchestrator.cli.doctor import HostFinding
from orchestrator.cli.explain import Explained
from orchestrator.cli.logreport import FileReport
from orchestrator.cli.seriesmatrix import SeriesMatrix
from orchestrator.cli.variables import Setting
from orchestrator.coverage.gcov import CodeCoverage
from orchestrator.history.coverage import Observation
from orchestrator.history.diff import Difference
from orchestrator.history.entry import Entry as HistoryEntry
from orchestrator.history.merge import Merged
from orchestrator.mutants.score import Measurement, Score
from orchestrator.parse.ktap import Rate
from orchestrator.plan.steps import Step
from orchestrator.project.changelog import Statement
from orchestrator.project.guesttest import NOT_DECLARED, GuestTest
from orchestrator.result.record import JobRecord
from orchestrator.result.verdict import Verdict
from orchestrator.source.apply import PatchOutcome
from orchestrator.source.versions import DebianVersion
from orchestrator.status import Status
from orchestrator.store.gc import Collection

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


class BackportInfo(TypedDict):
    """``flips`` are the claimed results of tests, beside those of the patch."""

    file: str
    flips: dict[str, Status]


class PatchInfo(TypedDict):
    """``flips`` are the claimed results of tests with the patch, ``backports`` its files by condition.

    ``when`` selects its kernels, beside those of its backports; empty for all.
    """

    file: str
    subject: str
    when: str
    flips: dict[str, Status]
    backports: dict[str, BackportInfo]


class SeriesInfo(TypedDict):
    title: str
    when: str
    patches: list[PatchInfo]


class ProofInfo(TypedDict):
    """The kernels on which a subtest failed and passed, and the rates of a race by side and kernel."""

    name: str
    test: str
    kind: str
    rates: dict[str, dict[str, Rate]]
    failed_on: list[str]
    passed_on: list[str]
    unexercised_in: list[str]


class TreeInfo(TypedDict):
    """A tree and its versions, newest first; only Debian trees have versions."""

    about: str
    versions: list[DebianVersion]


def _take_fields(name: str, source: type, left_out: tuple[str, ...], **added: object) -> type:
    """A typed dictionary of a dataclass' fields."""
    hints = get_type_hints(source)
    kept = {field.name: hints[field.name] for field in fields(source) if field.name not in left_out}
    return _make_type(name, {**kept, **added})


# made from types of other modules, which no type checker can follow
_make_type = cast("Callable[[str, Mapping[str, object]], type]", TypedDict)


def _list_of(kind: object) -> object:
    return GenericAlias(list, (kind,))


_NAMES = dict[str, str]
_TEST = _take_fields(
    "Test", GuestTest, tuple(name for name in NOT_DECLARED if name != "id"), seen=list[Observation]
)
_ENTRY = _take_fields("Statement", Statement, (), tests=dict[str, dict[str, list[Status]]])
_JOB = _take_fields("Job", JobRecord, ("results", "expect", "tests"), verdicts=list[Verdict])
_PARTS: Mapping[str, Mapping[str, object]] = {
    "list": {
        **dict.fromkeys(("rows", "trees", "series", "fragments", "tests"), _NAMES),
        # by kind, the names from the user overlay
        "own": dict[str, list[str]],
    },
    "names": {"kind": str, "names": _NAMES},
    "trees": {"trees": dict[str, TreeInfo]},
    "variables": {"variables": dict[str, Setting]},
    "steps": {"steps": list[Step]},
    "config": {"kernels": list[KernelConfig]},
    "report": {
        **dict.fromkeys(("run_id", "command", "started", "summary"), str),
        "is_as_expected": bool,
        "jobs": _list_of(_JOB),
    },
    "series": {"series": dict[str, SeriesInfo]},
    "patches": {"kernel": str, "version": str, "commit": str, "series": dict[str, list[PatchOutcome]]},
    "proof": {"subtests": list[ProofInfo]},
    "test": {"tests": _list_of(_TEST), "words": list[Explained]},
    "changelog": {"entries": _list_of(_ENTRY)},
    "gc": get_type_hints(Collection),
    "history": {"entries": _list_of(_take_fields("HistoryEntry", HistoryEntry, (), status=Status))},
    "diff": get_type_hints(Difference),
    "merge": get_type_hints(Merged),
    "parse": {"files": list[FileReport]},
    "bisect": {**get_type_hints(Bisected), "is_found": bool},
    "series-matrix": {**get_type_hints(SeriesMatrix), "is_as_claimed": bool},
    "mutants": {**get_type_hints(Measurement), "score": Score | None},
    "coverage": get_type_hints(CodeCoverage),
    "doctor": {"findings": list[HostFinding], "packages": list[str], "install": str},
}


def make_schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a product of the targets' ``products``."""
    title = f"cowbell-{name}-1"
    product = _make_type(title, {"schema": Literal[title], **_PARTS[name]})
    return {"$schema": _DIALECT, **TypeAdapter(product).json_schema(mode="serialization")}


def render(name: str) -> str:
    return json.dumps(make_schema(name), indent=1) + "\n"
