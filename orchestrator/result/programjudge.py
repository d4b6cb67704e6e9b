# SPDX-License-Identifier: GPL-2.0-or-later
"""Judges a program that is no declared test: by a complete stream of results, else by how it ended."""

import re
from collections.abc import Iterator
from dataclasses import replace

from orchestrator.result.finding import Finding, find_cause, find_oom, find_wait, name_failed
from orchestrator.result.override import find_override
from orchestrator.result.record import Known, ProgramEnd, TrialResult
from orchestrator.result.resultname import name_leaves
from orchestrator.status import Status

# the end of what a test of the Linux Test Project prints
_LTP_SUMMARY = re.compile(
    r"^Summary:\n" + "".join(rf"{word} +(\d{{1,9}})\n" for word in ("passed", "failed", "broken", "skipped"))
    + r"warnings +(\d{1,9})$",
    re.MULTILINE,
)  # fmt: skip
# the skips of kernel selftests and of automake, and what a shell says of a command that it cannot start
SKIPS = (4, 77)
NOT_STARTED = {126: "cannot be executed", 127: "is not there"}


def judge_program(result: TrialResult, known: tuple[Known, ...]) -> Iterator[Finding]:
    """A finding for each result of a complete stream that fits the exit status, else a single one."""
    stream = result.foreign_ktap
    named = name_leaves(result.test, stream)
    all_ok = all(leaf.ok for _, leaf in named)
    problems = stream.list_foreign_problems(may_skip_rest=stream.has_skipped_rest)
    status, reason = judge_program_end(result)
    exit_status = result.program_end.status if result.program_end else None
    if override := find_override(result, known):
        yield replace(override, name=result.test)
        return
    evidence = (result.stdout + result.stderr)[-2000:]
    is_whole = exit_status is not None and stream.plan is not None and not problems
    if is_whole and named and status is not Status.BROKEN and (exit_status in (0, *SKIPS) or not all_ok):
        for name, leaf in named:
            yield Finding(name, leaf.status, leaf.reason, "\n".join(leaf.diagnostics), leaf.rate)
        return
    if is_whole and not named and status is Status.PASS:
        status, reason = Status.SKIP, stream.skip or ""
    elif is_whole and named and all_ok and status is Status.FAIL:
        status, reason = Status.BROKEN, f"reports ok, but exits with {exit_status}"
    elif status is Status.PASS and (stream.version or not all_ok) and not is_whole:
        # the output contradicts the exit status
        status = Status.BROKEN
        reason = f"{find_cause(result)}{'; '.join(problems)}{name_failed(named)}"
    yield Finding(result.test, status, reason, evidence)


def judge_program_end(result: TrialResult) -> tuple[Status, str]:
    """The outcome of a program by how it ended, and the reason."""
    match end := result.program_end:
        case None:
            return Status.BROKEN, f"{find_oom(result)}how the program ended was not recorded"
        case ProgramEnd(problem=text) if text:
            return Status.BROKEN, text
        case ProgramEnd(lacks=text) if text:
            return Status.SKIP, text
        case ProgramEnd(running_s=running_s) if running_s:
            text = f"still running after {running_s:.0f} s"
            wait = find_wait(result)
            # emulation makes the limit longer than FOREVER=, so part of it may be lost
            share = 1 - result.waited_s / max(result.duration_s, result.waited_s, 1.0) if wait else 1.0
            if end.forever_s and running_s * share >= end.forever_s:
                return Status.PASS, text
            return (Status.BROKEN, text + wait) if wait else (Status.TIMEOUT, text)
        case ProgramEnd(signal=name) if name:
            oom = find_oom(result) if name == "SIGKILL" else ""
            return Status.BROKEN if oom else Status.FAIL, f"{oom}killed by {name}"
        case ProgramEnd(status=None):
            return Status.BROKEN, "how the program ended was not recorded"
    if summary := _LTP_SUMMARY.search(f"{result.stdout}\n{result.stderr}"):
        return _judge_ltp(summary, end.status or 0)
    if end.status == 0:
        return Status.PASS, ""
    text = f"exit status {end.status}"
    if why := NOT_STARTED.get(end.status or 0):
        return Status.BROKEN, f"{text}: a command that it uses {why} in the guest"
    lines = (result.stderr.strip() or result.stdout).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Status.SKIP if end.status in SKIPS else Status.FAIL, f"{text}: {last[:200]}" if last else text


def _judge_ltp(summary: re.Match[str], exit_status: int) -> tuple[Status, str]:
    """The outcome of a test of the Linux Test Project, whose exit status has a bit for each kind."""
    passed, failed, broken, skipped, warnings = (int(number) for number in summary.groups())
    text = ", ".join(" ".join(reversed(line.split())) for line in summary[0].splitlines()[1:])
    bits = bool(failed) | bool(broken) << 1 | bool(warnings) << 2
    # whether skipped results count beside others depends on the version
    if exit_status not in ((bits, bits | 32) if skipped else (bits,)):
        return Status.BROKEN, f"exit status {exit_status} contradicts its summary: {text}"
    if failed:
        return Status.FAIL, text
    if broken or warnings or not (passed or skipped):
        return Status.BROKEN, text
    return (Status.PASS, "") if passed else (Status.SKIP, text)
