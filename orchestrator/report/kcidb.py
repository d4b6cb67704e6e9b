# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs for KCIDB, the database of KernelCI: checkouts, builds and tests, as its schema 5.3 has them.

The kcidb-io library checks the result. Nothing is sent. Expectations do not matter: a test that failed as
expected has failed.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

from orchestrator.errors import InfraError, UsageError
from orchestrator.parse.printk import make_printable
from orchestrator.report.replay import make_command
from orchestrator.report.report import Judged, describe_boot, describe_kernel, is_of_git
from orchestrator.result.record import JobRecord, RunRecord, TrialResult
from orchestrator.result.verdict import Verdict
from orchestrator.source.lore import parse_message
from orchestrator.status import Status
from orchestrator.store.store import make_id

# the most characters of an excerpt
_EXCERPT = 16384
_STATUS = {
    Status.PASS: "PASS",
    Status.FAIL: "FAIL",
    Status.CRASH: "FAIL",
    Status.TIMEOUT: "FAIL",
    Status.SKIP: "SKIP",
    Status.BROKEN: "ERROR",
}


def render_kcidb(judged: Judged, origin: str) -> str:
    """The JSON of all runs. ``origin`` is the name of the CI system that would submit it.

    Raises ``InfraError`` if kcidb-io is not installed.
    """
    try:
        from jsonschema import ValidationError
        from kcidb_io.schema import V5_3
    except ImportError:
        raise InfraError("kcidb-io is not installed", hint="pip install 'cowbell[kcidb]'") from None
    report: dict[str, Any] = V5_3.new()
    report |= {"checkouts": [], "builds": [], "tests": []}
    for (job, verdicts), run in zip(judged.jobs, judged.origins, strict=True):
        if job.left_out:
            continue
        checkout = _make_checkout(run, job, origin)
        if checkout["id"] not in [one["id"] for one in report["checkouts"]]:
            report["checkouts"].append(checkout)
        stage = job.failure.stage if job.failure else ""
        if stage == "source":
            continue
        build = _make_build(run, job, origin, checkout["id"])
        report["builds"].append(build)
        if build["status"] == "PASS":
            report["tests"] += _list_tests(run, job, verdicts, origin, build["id"])
    try:
        V5_3.validate_exactly(report)
    except ValidationError as error:
        where = ".".join(map(str, error.absolute_path))
        raise UsageError(
            f"cannot be a KCIDB report: {where}: {error.message[:200]}", where=judged.run.run_id
        ) from None
    return json.dumps(report, indent=1) + "\n"


def _make_checkout(run: RunRecord, job: JobRecord, origin: str) -> dict[str, Any]:
    is_bad = bool(job.failure and job.failure.stage == "source")
    checkout: dict[str, Any] = {
        "id": f"{origin}:{make_id(run.run_id, job.origin, job.tree, job.base, job.series)}",
        "origin": origin,
        "tree_name": _clean(job.tree.split(":")[0]),
        "comment": _clean(f"{describe_kernel(job)} ({job.version})"),
        "start_time": run.started,
        "valid": not is_bad,
        "misc": {"base": job.base, "tree_id": job.tree_id, "from": _clean(job.origin)},
    }
    if is_of_git(job):
        checkout["git_commit_hash"] = job.base
        if job.origin.startswith("https://"):
            checkout["git_repository_url"] = job.origin
    if not job.series and not job.fixups:
        checkout["patchset_hash"] = ""
    if message := parse_message(job.series):
        checkout["message_id"] = message.id
    if is_bad and job.failure:
        checkout["log_excerpt"] = _cut(f"{job.failure.what}\n{job.failure.hint}")
    return checkout


def _make_build(run: RunRecord, job: JobRecord, origin: str, checkout: str) -> dict[str, Any]:
    failure = job.failure if job.failure and job.failure.stage in ("kconfig", "build") else None
    build: dict[str, Any] = {
        "id": f"{origin}:{make_id(run.run_id, job.row, job.variant)}",
        "origin": origin,
        "checkout_id": checkout,
        "architecture": job.arch,
        "config_name": f"cowbell-{job.row}",
        "status": "FAIL" if failure else "PASS" if job.build_id or job.results else "MISS",
        "misc": {
            "row": job.row,
            "variant": job.variant,
            "build_id": job.build_id,
            "config_id": job.config_id,
        },
    }
    if failure:
        build["log_excerpt"] = _cut(f"{failure.what}\n{failure.hint}")
    return build


def _list_tests(
    run: RunRecord, job: JobRecord, verdicts: tuple[Verdict, ...], origin: str, build: str
) -> Iterator[dict[str, Any]]:
    common = {"origin": origin, "build_id": build}
    environment = {
        "comment": _clean(f"QEMU, {job.arch}, {describe_boot(job)}"),
        "misc": {"guest": job.guest_setup},
    }
    is_dead = bool(job.failure and job.failure.stage == "boot" and not job.results)
    if job.results or is_dead:
        yield {
            **common,
            "id": f"{build}.boot",
            "path": "boot",
            "status": "FAIL" if is_dead else "PASS",
            "environment": environment,
            **({"log_excerpt": _cut(job.failure.what)} if is_dead and job.failure else {}),
        }
    first: dict[str, TrialResult] = {}
    for result in job.results:
        first.setdefault(result.test, result)
    for verdict in verdicts:
        known = first.get(verdict.test)
        test: dict[str, Any] = {
            **common,
            "id": f"{build}.{make_id(verdict.name)}",
            "path": make_path(verdict.name),
            "status": _STATUS[verdict.raw] if verdict.stage == "run" and known else "MISS",
            "comment": _clean(verdict.reason or verdict.label),
            "environment": environment,
            "misc": _make_misc(run, job, verdict),
        }
        if known:
            test["duration"] = verdict.duration_s
            test["start_time"] = known.started or run.started
        if verdict.evidence:
            test["log_excerpt"] = _cut(verdict.evidence)
        yield test


def make_path(name: str) -> str:
    """The dotted path of a subtest: ``cowbell.family.name.param_value``."""
    words = [re.sub(r"[^A-Za-z0-9_-]+", "_", word).strip("_") for word in re.split(r"[.\[/]", name)]
    return ".".join(["cowbell", *filter(None, words)])


def _make_misc(run: RunRecord, job: JobRecord, verdict: Verdict) -> dict[str, Any]:
    misc: dict[str, Any] = {
        "name": verdict.name,
        "verdict": verdict.status.value,
        "expected": verdict.expected.value,
        "why_expected": verdict.why_expected,
        "trials": verdict.trials,
        "fingerprint": verdict.fingerprint,
        "command": make_command(run, job, verdict.test),
    }
    if verdict.rate and verdict.interval:
        misc["rate"] = {"hits": verdict.rate.hits, "tries": verdict.rate.tries}
        misc["interval"] = list(verdict.interval)
    return misc


def _clean(text: str) -> str:
    return make_printable(text).replace("\0", "")


def _cut(text: str) -> str:
    return _clean(text)[:_EXCERPT]
