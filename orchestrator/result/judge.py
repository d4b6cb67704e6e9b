# SPDX-License-Identifier: GPL-2.0-or-later
"""Derives findings, one per subtest, from one result of a test.

A test passes only on positive evidence: a complete KTAP stream whose plan is met, exit status 0, a guest that
still answers, a kernel log without a splat, and no new taint. Missing or contradicting evidence is BROKEN; a
splat is a CRASH. The results of kernel selftests are not declared, so the plan of their streams must be met;
one that prints none is judged by its exit status.
The evidence of a program that does not use our library is how it ended.
"""

from collections.abc import Iterator
from dataclasses import replace

from orchestrator.project.guesttest import LOCAL, find_family
from orchestrator.result.finding import Finding, find_cause, find_wait, is_starved, join_some, name_failed
from orchestrator.result.override import find_override
from orchestrator.result.programjudge import judge_program
from orchestrator.result.record import Known, TrialResult
from orchestrator.result.selftestjudge import judge_selftest
from orchestrator.status import Status


def judge_result(
    result: TrialResult, subtests: tuple[str, ...], known: tuple[Known, ...]
) -> Iterator[Finding]:
    """A finding for each declared subtest, or for each result of a test that declares none."""
    is_program = find_family(result.test) == LOCAL
    judge_undeclared = judge_program if is_program else judge_selftest
    found = _judge_declared(result, subtests, known) if subtests else judge_undeclared(result, known)
    for finding in found:
        finding = replace(finding, is_starved=is_starved(result))
        if result.unusable and finding.status is Status.PASS:
            reason = f"its guest could not be used afterwards: {result.unusable}"
            finding = replace(finding, status=Status.BROKEN, reason=reason)
        yield finding


def _judge_declared(
    result: TrialResult, subtests: tuple[str, ...], known: tuple[Known, ...]
) -> Iterator[Finding]:
    """A finding for each declared subtest. All are BROKEN if the test reports any other result."""
    stream = result.ktap
    leaves = dict(stream.flatten())
    override = find_override(result, known)
    undeclared = join_some([name for name in leaves if name not in subtests])
    told = [f"it does not declare: {undeclared}"] if undeclared else []
    problems = "; ".join((*stream.problems, *told))
    evidence = (result.stdout + result.stderr)[-2000:]
    all_ok = all(leaf.ok for leaf in leaves.values())
    for name in subtests:
        leaf = leaves.get(name)
        if override and (leaf is None or leaf.status is not Status.SKIP):
            yield replace(override, name=name)
        elif leaf is None or problems:
            failed = name_failed([(name, leaf)] if leaf else [])
            reason = f"{find_cause(result)}{problems or 'no result line'}{failed}"
            yield Finding(name, Status.BROKEN, reason, evidence)
        elif all_ok != (result.exit_status == 0):
            reason = f"reports {'ok' if all_ok else 'not ok'}, but exits with {result.exit_status}"
            yield Finding(name, Status.BROKEN, reason, evidence)
        else:
            # the verdict adds the rate with its confidence
            lines = [line for line in leaf.diagnostics if not line.startswith("rate: ")]
            reason = leaf.reason or (lines[-1] if lines else "")
            if leaf.status is Status.TIMEOUT:
                reason = reason or f"its time limit ended it after {result.duration_s:.0f} s"
            status = leaf.status
            if status is Status.TIMEOUT and (text := find_wait(result)):
                status = Status.BROKEN
                reason += text
            yield Finding(name, status, reason, "\n".join(leaf.diagnostics), leaf.rate)
