# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks the text of a GitLab pipeline for errors.

The syntax is checked against GitLab's published schema, which check-jsonschema ships. Dependency cycles,
names, paths and limits, which a schema cannot express, are checked here.
"""

import graphlib
import importlib.util
import json
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.project.yamlfile import suggest

# default limits of a GitLab instance
_MOST_NEEDS = 50
_MOST_BYTES = 2 << 20
_MOST_LETTERS = 255
_STAGES = ("build", "test", "deploy")
_GLOBAL = (
    "spec", "default", "include", "stages", "variables", "workflow", "image", "services", "cache",
    "before_script", "after_script",
)  # fmt: skip
_RESERVED = ("true", "false", "nil", "types")
_INPUT = re.compile(r"\$\[\[\s*inputs\.(\w+)[^\]]*\]\]")

Jobs = Mapping[str, Mapping[str, Any]]


def check_pipeline(text: str, where: str) -> list[UsageError]:
    """All errors of a pipeline or an included template, each with its line.

    Raises ``InfraError`` if check-jsonschema is not installed.
    """
    try:
        documents = list(yaml.safe_load_all(text))
        lines = _find_lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{where}:{mark.line + 1}" if mark else where
        return [UsageError(f"is not YAML: {getattr(error, 'problem', error)}", where=line)]
    inputs: Mapping[str, Any] = {}
    if len(documents) == 2 and isinstance(documents[0], dict) and "spec" in documents[0]:
        inputs = documents[0]["spec"].get("inputs") or {}
    pipeline = _fill_in(documents[-1], inputs) if documents else None
    if not isinstance(pipeline, dict):
        return [UsageError("is not a pipeline: expected a mapping", where=where)]

    def place(path: str) -> str:
        """The line of ``$.job.key``, or of its deepest known parent."""
        inner = path.removeprefix("$.")
        # a job's name may have dots, too
        names = [name for name in lines if f"{inner}.".startswith(f"{name}.")]
        return f"{where}:{lines[max(names, key=len)] if names else 1}: {inner}"

    found = [*_check_schema(pipeline), *_check_rules(pipeline)]
    found += [(f"$.spec.inputs.{name}", what) for name, what in _check_inputs(documents, inputs)]
    if len(text.encode()) > _MOST_BYTES:
        found.append(("$", f"has {len(text.encode())} bytes, GitLab's limit is {_MOST_BYTES}"))
    return [UsageError(what, where=place(path)) for path, what in found]


def check_file(path: Path) -> list[UsageError]:
    try:
        return check_pipeline(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        return [UsageError(f"cannot be read: {error}", where=str(path))]


def _find_lines(text: str) -> dict[str, int]:
    """The lines of keys, by ``job``, ``job.key`` and so on; in a header by ``spec.inputs.name``."""
    lines: dict[str, int] = {}

    def walk(node: yaml.Node, path: str, depth: int) -> None:
        if isinstance(node, yaml.MappingNode) and depth:
            for key, value in node.value:
                name = f"{path}.{key.value}" if path else str(key.value)
                lines[name] = key.start_mark.line + 1
                walk(value, name, depth - 1)

    for document in yaml.compose_all(text, Loader=yaml.SafeLoader):
        walk(document, "", 3)
    return lines


def _fill_in(value: object, inputs: Mapping[str, Any]) -> object:
    """A template with the defaults of its inputs."""

    def default(name: str) -> object:
        given = inputs.get(name) or {}
        return given.get("default", "given") if isinstance(given, dict) else "given"

    if isinstance(value, str):
        if whole := _INPUT.fullmatch(value):
            return default(whole[1])
        return _INPUT.sub(lambda match: str(default(match[1])), value)
    if isinstance(value, dict):
        return {_fill_in(key, inputs): _fill_in(each, inputs) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill_in(each, inputs) for each in value]
    return value


def _check_inputs(documents: list[Any], inputs: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    used = set(_INPUT.findall(json.dumps(documents[-1], default=str)))
    for name in sorted(used - set(inputs)):
        yield name, f"inputs.{name} is used but not declared{suggest(name, inputs)}"
    for name in sorted(set(inputs) - used):
        yield name, "is declared but not used"


def _check_schema(pipeline: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if not importlib.util.find_spec("check_jsonschema"):
        raise InfraError("check-jsonschema is not installed", hint="pip install 'cowbell[ci]'")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(pipeline, file, default=str)
        file.flush()
        words = ["--builtin-schema", "vendor.gitlab-ci", "-o", "json", file.name]
        done = command.run([sys.executable, "-m", "check_jsonschema", *words], check=False)
    try:
        errors = json.loads(done.output)["errors"]
    except (ValueError, KeyError):
        raise command.make_failure(done) from None
    for error in errors:
        best = error.get("best_deep_match") or error
        yield best["path"], best["message"]


def _check_rules(pipeline: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    jobs: Jobs = {
        name: job for name, job in pipeline.items() if isinstance(job, dict) and name not in _GLOBAL
    }
    stages = [".pre", *(pipeline.get("stages") or _STAGES), ".post"]
    for name, job in jobs.items():
        path = f"$.{name}"
        if len(name) > _MOST_LETTERS:
            yield path, f"the name has {len(name)} characters, GitLab's limit is {_MOST_LETTERS}"
        if name in _RESERVED:
            yield path, "is a reserved name"
        stage = job.get("stage", "test")
        if stage not in stages and not name.startswith("."):
            yield f"{path}.stage", f"there is no stage {stage}{suggest(str(stage), stages)}"
        yield from _check_paths(path, job)
        yield from _check_needs(name, job, jobs, stages)
    yield from _check_cycles(jobs)


def _check_paths(path: str, job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Artifacts and caches must be in the project folder; GitLab only logs a warning and drops others."""
    artifacts = job.get("artifacts") or {}
    caches = job.get("cache") or []
    caches = caches if isinstance(caches, list) else [caches]
    kinds = [("artifacts", [*(artifacts.get("paths") or []), *(artifacts.get("exclude") or [])])]
    for reports in (artifacts.get("reports") or {}).values():
        kinds.append(("artifacts", reports if isinstance(reports, list) else [reports]))
    kinds += [("cache", cache.get("paths") or []) for cache in caches if isinstance(cache, dict)]
    for kind, paths in kinds:
        for each in paths:
            inner = str(each).removeprefix("$CI_PROJECT_DIR/")
            if inner.startswith(("/", "~", "$")) or ".." in Path(inner).parts:
                yield f"{path}.{kind}", f"{each} is not in the project folder"


def _list_needs(job: Mapping[str, Any]) -> list[str]:
    words = [need if isinstance(need, str) else need.get("job", "") for need in job.get("needs") or []]
    return [word for word in words if word]


def _check_needs(
    name: str, job: Mapping[str, Any], jobs: Jobs, stages: list[str]
) -> Iterator[tuple[str, str]]:
    needs = _list_needs(job)
    if len(needs) > _MOST_NEEDS:
        yield f"$.{name}.needs", f"has {len(needs)} entries, GitLab's limit is {_MOST_NEEDS}"
    for key, others in (("needs", needs), ("dependencies", job.get("dependencies") or [])):
        for other in others:
            if other not in jobs:
                yield f"$.{name}.{key}", f"there is no job {other}{suggest(other, jobs)}"
                continue
            mine, its = (str(each.get("stage", "test")) for each in (job, jobs[other]))
            if mine in stages and its in stages and stages.index(its) > stages.index(mine):
                yield f"$.{name}.{key}", f"{other} is in a later stage"


def _check_cycles(jobs: Jobs) -> Iterator[tuple[str, str]]:
    try:
        graphlib.TopologicalSorter({name: _list_needs(job) for name, job in jobs.items()}).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1]
        yield f"$.{cycle[0]}.needs", f"is a cycle: {' -> '.join(reversed(cycle))}"
