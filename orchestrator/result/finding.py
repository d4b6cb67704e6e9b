# SPDX-License-Identifier: GPL-2.0-or-later
"""Derives findings, one per subtest, from one result of a test.

A test passes only on positive evidence: a complete KTAP stream whose plan is met, exit status 0, a guest that
still answers, a kernel log without a splat, and no new taint. Missing or contradicting evidence is BROKEN; a
splat is a CRASH. The results of kernel selftests are not declared, so the plan of their streams must be met;
one that prints none is judged by its exit status.
The evidence of a program that does not use our library is how it ended.
"""

import fnmatch
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from orchestrator.guest.connection import CUT
from orchestrator.parse.codeplace import add_source_lines
from orchestrator.parse.console import ConsoleLog, parse_console
from orchestrator.parse.ktap import NO_VERSION, Ktap, KtapResult, Rate, parse_ktap
from orchestrator.parse.printk import make_printable
from orchestrator.parse.selftest import SelftestOutput, SelftestRun, parse_selftest
from orchestrator.parse.splat import Splat, SplatKind
from orchestrator.project.guesttest import LOCAL, find_family
from orchestrator.result.record import Ended, Known, ProgramEnd, TrialResult
from orchestrator.status import Status

# taint bits that a healthy kernel never sets: bad page, oops, WARN, soft lockup, machine check
_BAD_TAINT = {1 << 4: "M", 1 << 5: "B", 1 << 7: "D", 1 << 9: "W", 1 << 14: "L"}
# the taint that a splat sets; W for all others
_TAINT_OF = {
    SplatKind.BAD_PAGE: "B", SplatKind.OOPS: "D", SplatKind.BUG: "D", SplatKind.SOFT_LOCKUP: "L",
}  # fmt: skip
# exit codes and output of kernel selftests (tools/testing/selftests/kselftest.h)
_KSFT_FAIL, _KSFT_SKIP = 1, 4
# the skip of automake and of many shell scripts, and what a shell says of a command that it cannot start
# the end of what a test of the Linux Test Project prints
_LTP_SUMMARY = re.compile(
    r"^Summary:\n" + "".join(rf"{word} +(\d{{1,9}})\n" for word in ("passed", "failed", "broken", "skipped"))
    + r"warnings +(\d{1,9})$",
    re.MULTILINE,
)  # fmt: skip
_SKIPS, _NOT_STARTED = (_KSFT_SKIP, 77), {126: "cannot be executed", 127: "is not there"}
# what a shell adds to the number of the signal that killed a program
_SIGNALS = 128
_MAX_NAMED = 10
_ANNOUNCED = "[RUN] "
# the guest's clock goes on while it has no CPU: of this share of its time, a time limit in it says nothing
_BUSY = 0.2
# a text that says how a test ended, or has an address: no name, as it differs from one kernel to another
_OUTCOME = re.compile(
    r"[:;,.!-]|.{0,999}(?:\b(?:succe(?:ss|ed)|fail|pass(?:ed)?\b|error|0x[0-9a-f]{4})|\bnot \w{1,30}ed\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one subtest in one trial. ``fingerprint`` is that of the first splat."""

    name: str
    status: Status
    reason: str
    evidence: str = ""
    rate: Rate | None = None
    trial: int = 1
    fingerprint: str = ""


def judge_result(
    result: TrialResult, subtests: tuple[str, ...], known: tuple[Known, ...]
) -> Iterator[Finding]:
    """A finding for each declared subtest, or for each result of a test that declares none."""
    is_program = find_family(result.test) == LOCAL
    judge_undeclared = _judge_program if is_program else _judge_selftest
    found = _judge_declared(result, subtests, known) if subtests else judge_undeclared(result, known)
    for finding in found:
        if result.unusable and finding.status is Status.PASS:
            reason = f"its guest could not be used afterwards: {result.unusable}"
            finding = replace(finding, status=Status.BROKEN, reason=reason)
        yield finding


def _judge_declared(
    result: TrialResult, subtests: tuple[str, ...], known: tuple[Known, ...]
) -> Iterator[Finding]:
    """A finding for each declared subtest. All are BROKEN if the test reports any other result."""
    stream = parse_ktap(result.stdout)
    leaves = dict(stream.flatten())
    override = _find_override(result, known)
    undeclared = _join([name for name in leaves if name not in subtests])
    told = [f"it does not declare: {undeclared}"] if undeclared else []
    problems = "; ".join((*stream.problems, *told))
    evidence = (result.stdout + result.stderr)[-2000:]
    all_ok = all(leaf.ok for leaf in leaves.values())
    for name in subtests:
        leaf = leaves.get(name)
        if override and (leaf is None or leaf.status is not Status.SKIP):
            yield replace(override, name=name)
        elif leaf is None or problems:
            failed = _name_failed([(name, leaf)] if leaf else [])
            reason = f"{_find_cause(result)}{problems or 'no result line'}{failed}"
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
            if status is Status.TIMEOUT and (text := _find_wait(result)):
                status = Status.BROKEN
                reason += text
            yield Finding(name, status, reason, "\n".join(leaf.diagnostics), leaf.rate)


def _judge_selftest(result: TrialResult, known: tuple[Known, ...]) -> Iterator[Finding]:
    """A finding for each result of each run of a selftest; one for a run without a valid stream."""
    evidence = (result.stdout + result.stderr)[-2000:]
    told = parse_selftest(result.stdout)
    if override := _find_override(result, known):
        yield replace(override, name=result.test)
    elif told.kind:
        status = Status.SKIP if told.kind == "skip" else Status.BROKEN
        yield Finding(result.test, status, told.why, evidence)
    elif not told.runs:
        yield _judge_without_run(result, told, evidence)
    else:
        end = result.program_end
        is_whole = end is not None and end.status == 0 and told.status is not None
        names: Counter[str] = Counter()
        for run in told.runs:
            name = f"{result.test}/{run.arguments}" if run.arguments else result.test
            names[name] += 1
            yield from _judge_run(_number(name, names[name]), run, result)
        if not is_whole and told.runs[-1].status is not None:
            # the script that starts the programs ended before its last line
            status, reason = _judge_program_end(result)
            status = status if status.is_bad else Status.BROKEN
            yield Finding(f"{result.test}/end", status, reason or "its script did not end", evidence)


def _number(name: str, number: int) -> str:
    return f"{name} ({number})" if number > 1 else name


def _judge_without_run(result: TrialResult, told: SelftestOutput, evidence: str) -> Finding:
    """The finding of a selftest of which no program was started."""
    last = next((line for line in reversed(told.other.splitlines()) if line.strip()), "").strip("# ")
    text = f": {last[:200]}" if last else ""
    if told.status is None:
        status, reason = _judge_program_end(result)
        if not status.is_bad:
            status, reason = Status.BROKEN, "it has no end"
        return Finding(result.test, status, f"{reason}{text}", evidence)
    if told.status in (0, _KSFT_SKIP):
        return Finding(result.test, Status.SKIP, f"its run script does not start it here{text}", evidence)
    reason = f"its run script ended with status {told.status} before it started the program{text}"
    return Finding(result.test, Status.BROKEN, reason, evidence)


def _judge_run(name: str, run: SelftestRun, result: TrialResult) -> Iterator[Finding]:
    """The findings of one run: by its streams where it has any, else by its exit status."""
    evidence = run.output[-2000:]
    if run.status is None:
        status, reason = _judge_program_end(result)
        if not status.is_bad:
            status, reason = Status.BROKEN, f"{_find_cause(result)}the run has no end"
        yield Finding(name, status, reason + _name_failed(_name_streams(name, run.streams)), evidence)
        return
    named = _name_streams(name, run.streams)
    streams = run.streams
    all_ok = all(leaf.ok for _, leaf in named)
    has_skipped_rest = run.status == _KSFT_SKIP and bool(streams) and streams[-1].has_skipped_rest
    problems = [
        text
        for stream in streams
        for text in stream.list_foreign_problems(may_skip_rest=has_skipped_rest and stream is streams[-1])
    ]
    expected = {0} if all_ok else {_KSFT_FAIL}
    if has_skipped_rest or (streams and streams[-1].plan == 0):
        expected.add(_KSFT_SKIP)
    if not streams:
        yield _judge_status(name, run, result)
    elif problems:
        reason = f"{_find_cause(result)}{'; '.join(problems)}{_describe_status(run.status)}"
        yield Finding(name, Status.BROKEN, f"{reason}{_name_failed(named)}", evidence)
    elif run.status not in expected and not (len(streams) > 1 and run.status == 0):
        reason = f"reports {'ok' if all_ok else 'not ok'}, but exits with {run.status}"
        yield Finding(name, Status.BROKEN, f"{reason}{_name_failed(named)}", evidence)
    elif not named:
        yield Finding(name, Status.SKIP, next((stream.skip or "" for stream in streams), ""), evidence)
    else:
        for full, leaf in named:
            reason = "; ".join(text for text in (leaf.name.lstrip(": "), leaf.reason) if text not in full)
            yield Finding(full, leaf.status, reason, "\n".join(leaf.diagnostics))


def _describe_status(status: int) -> str:
    """The end of a run whose results are not complete, as the end of a reason."""
    if status > _SIGNALS:
        return f"; killed by signal {status - _SIGNALS}"
    return f"; exit status {status}" if status else ""


def _judge_status(name: str, run: SelftestRun, result: TrialResult) -> Finding:
    """The finding of a run that prints no stream, as kselftest/runner.sh judges it."""
    evidence = run.output[-2000:]
    last = next((line.strip() for line in reversed(run.output.split("\n")) if line.strip()), "")
    text = f": {last[:200]}" if last else ""
    match run.status:
        case 0:
            return Finding(name, Status.PASS, "", evidence)
        case 4:
            return Finding(name, Status.SKIP, last[:200] or "exit status 4", evidence)
        case 126 | 127:
            reason = (
                f"exit status {run.status}: a command that it uses {_NOT_STARTED[run.status]} in the guest"
            )
            return Finding(name, Status.BROKEN, f"{reason}{text}", evidence)
        case int(status) if status > _SIGNALS:
            oom = _find_oom(result) if status == _SIGNALS + 9 else ""
            outcome = Status.BROKEN if oom else Status.FAIL
            return Finding(name, outcome, f"{oom}killed by signal {status - _SIGNALS}{text}", evidence)
    return Finding(name, Status.FAIL, f"exit status {run.status}{text}", evidence)


def _name_streams(name: str, streams: Sequence[Ktap]) -> list[tuple[str, KtapResult]]:
    """The results of all streams of a run, with unique names."""
    found: list[tuple[str, KtapResult]] = []
    times: Counter[str] = Counter()
    for stream in streams:
        for full, leaf in _name_leaves(name, stream):
            times[full] += 1
            found.append((_number(full, times[full]), leaf))
    return found


def _judge_program(result: TrialResult, known: tuple[Known, ...]) -> Iterator[Finding]:
    """A finding for each result of a complete stream that fits the exit status, else a single one."""
    stream = parse_ktap(result.stdout, is_foreign=True)
    named = _name_leaves(result.test, stream)
    all_ok = all(leaf.ok for _, leaf in named)
    told = stream.list_foreign_problems(may_skip_rest=stream.has_skipped_rest)
    problems = [text for text in told if text != NO_VERSION]
    status, reason = _judge_program_end(result)
    exit_status = result.program_end.status if result.program_end else None
    if override := _find_override(result, known):
        yield replace(override, name=result.test)
        return
    evidence = (result.stdout + result.stderr)[-2000:]
    is_whole = exit_status is not None and stream.plan is not None and not problems
    if is_whole and named and status is not Status.BROKEN and (exit_status in (0, *_SKIPS) or not all_ok):
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
        reason = f"{_find_cause(result)}{'; '.join(told)}{_name_failed(named)}"
    yield Finding(result.test, status, reason, evidence)


def _judge_program_end(result: TrialResult) -> tuple[Status, str]:
    """The outcome of a program by how it ended, and the reason."""
    match end := result.program_end:
        case None:
            return Status.BROKEN, f"{_find_oom(result)}how the program ended was not recorded"
        case ProgramEnd(problem=text) if text:
            return Status.BROKEN, text
        case ProgramEnd(lacks=text) if text:
            return Status.SKIP, text
        case ProgramEnd(running_s=running_s) if running_s:
            text = f"still running after {running_s:.0f} s"
            wait = _find_wait(result)
            # emulation makes the limit longer than FOREVER=, so part of it may be lost
            share = 1 - result.waited_s / max(result.duration_s, result.waited_s, 1.0) if wait else 1.0
            if end.forever_s and running_s * share >= end.forever_s:
                return Status.PASS, text
            return (Status.BROKEN, text + wait) if wait else (Status.TIMEOUT, text)
        case ProgramEnd(signal=name) if name:
            oom = _find_oom(result) if name == "SIGKILL" else ""
            return Status.BROKEN if oom else Status.FAIL, f"{oom}killed by {name}"
        case ProgramEnd(status=None):
            return Status.BROKEN, "how the program ended was not recorded"
    if summary := _LTP_SUMMARY.search(f"{result.stdout}\n{result.stderr}"):
        return _judge_ltp(summary, end.status or 0)
    if end.status == 0:
        return Status.PASS, ""
    text = f"exit status {end.status}"
    if why := _NOT_STARTED.get(end.status or 0):
        return Status.BROKEN, f"{text}: a command that it uses {why} in the guest"
    lines = (result.stderr.strip() or result.stdout).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return Status.SKIP if end.status in _SKIPS else Status.FAIL, f"{text}: {last[:200]}" if last else text


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


def _find_wait(result: TrialResult) -> str:
    """That the host gave the guest too little CPU for a time limit, as the end of a reason, else empty."""
    if result.waited_s <= _BUSY * result.duration_s:
        return ""
    return f", for {result.waited_s:.0f} s of which the host gave the guest no CPU"


def _name_failed(named: Sequence[tuple[str, KtapResult]]) -> str:
    """The results that failed all the same, as the end of the reason of a BROKEN test."""
    texts = [
        f"{name} ({text})" if (text := leaf.name.lstrip(": ")) not in name else name
        for name, leaf in named
        if leaf.status is Status.FAIL
    ]
    return f"; failed: {_join(texts)}" if texts else ""


def _join(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more


def _name_leaves(test: str, stream: Ktap) -> list[tuple[str, KtapResult]]:
    """The results with unique names, made of the last ``[RUN]`` line and the result line.

    If only one result follows a ``[RUN]`` line, that line alone is its name: the text of the result line
    depends on the outcome. Without a ``[RUN]`` line, such a text is replaced by the number of the result.
    """
    announced, titled = "", []
    for name, leaf in stream.flatten():
        for text in leaf.diagnostics:
            announced = text.removeprefix(_ANNOUNCED).strip() if text.startswith(_ANNOUNCED) else announced
        # a skipped test may have its name in place of the reason
        text = name if leaf.name else "" if announced else leaf.reason
        if leaf.name and not announced and _OUTCOME.match(leaf.name):
            text = f"{name.removesuffix(leaf.name)}{leaf.number}"
        titled.append((announced, text, leaf))
    uses = Counter(title for title, _, _ in titled)
    times: Counter[str] = Counter()
    named: list[tuple[str, KtapResult]] = []
    for title, text, leaf in titled:
        parts = (title, text) if not title or uses[title] > 1 else (title,)
        name = "/".join((test, *filter(None, parts)))
        times[name] += 1
        named.append((f"{name} ({times[name]})" if times[name] > 1 else name, leaf))
    return named


def _split_faults(log: ConsoleLog, known: tuple[Known, ...]) -> tuple[list[Splat], list[tuple[Splat, str]]]:
    """The faults in a log, and the known issues, each with its reason."""
    faults: list[Splat] = []
    ignored: list[tuple[Splat, str]] = []
    for splat in log.faults:
        why = next((k.why for k in known if fnmatch.fnmatchcase(splat.fingerprint, k.fingerprint)), None)
        if why is None:
            faults.append(splat)
        else:
            ignored.append((splat, why))
    return faults, ignored


def list_known(trials: Sequence[TrialResult], known: tuple[Known, ...]) -> tuple[str, ...]:
    """The known issues that were ignored, each once, as text."""
    texts = (
        f"{make_printable(splat.title)} ({splat.fingerprint}): {why}"
        for result in trials
        for splat, why in _split_faults(parse_console(result.console), known)[1]
    )
    return tuple(dict.fromkeys(texts)) if known else ()


def _name_faults(faults: Sequence[Splat]) -> str:
    """Each fault once, by fingerprint, with its number of occurrences."""
    count = Counter(splat.fingerprint for splat in faults)
    titles = {splat.fingerprint: splat.title for splat in reversed(faults)}
    return "; ".join(
        f"{titles[name]} ({number} times)" if number > 1 else titles[name] for name, number in count.items()
    )


def _find_override(result: TrialResult, known: tuple[Known, ...]) -> Finding | None:
    """The finding that overrides the test's own results: a splat, a lost guest, taint, a missing log."""
    log = parse_console(result.console)
    ends = [marker.line_number for marker in log.markers if marker.action == "end"]
    end = max(ends, default=log.lines)
    core = f"the guest's memory: {result.core}\n" if result.core else ""
    shown = _show(f"{core}{result.console[-4000:]}\n{result.said[-4000:]}", result)
    faults, ignored = _split_faults(log, known)
    # a kernel that has panicked does not run the test to its end
    forged = [
        splat
        for splat in faults
        if splat.kind is SplatKind.PANIC and ends and splat.line_number < end and result.ended is Ended.EXIT
    ]
    faults = [splat for splat in faults if splat not in forged]
    if faults:
        titles = _name_faults(faults)
        if all(splat.line_number > end for splat in faults):
            titles += " (after the end of the test)"
        excerpts = "\n".join({splat.fingerprint: splat.excerpt for splat in reversed(faults)}.values())[:8000]
        evidence = _show(core + excerpts, result)
        return Finding("", Status.CRASH, titles, evidence, fingerprint=faults[0].fingerprint)
    if forged:
        reason = f"a program wrote to the kernel log, which goes on after it: {_name_faults(forged)}"
        return Finding("", Status.BROKEN, reason, shown)
    if log.panic:
        return Finding("", Status.CRASH, log.panic, shown)
    if result.ended is not Ended.EXIT:
        return Finding("", *_judge_ending(result, log), shown)
    if result.taint_before is None or result.taint_after is None:
        return Finding("", Status.BROKEN, "the taint of the kernel could not be read")
    marks = {(marker.action, marker.test) for marker in log.markers}
    if not {("begin", result.test), ("end", result.test)} <= marks:
        return Finding("", Status.BROKEN, "the kernel log did not reach the console", result.console[-4000:])
    if result.console_lost:
        reason = f"the kernel log was flooded: {result.console_lost} bytes were not checked"
        return Finding("", Status.BROKEN, reason, result.console[-4000:])
    gained = result.taint_after & ~result.taint_before
    expected = {_TAINT_OF.get(splat.kind, "W") for splat, _ in ignored}
    letters = "".join(letter for bit, letter in _BAD_TAINT.items() if gained & bit and letter not in expected)
    if letters:
        return Finding("", Status.CRASH, f"the kernel became tainted ({letters})", result.console[-4000:])
    return None


def _show(log: str, result: TrialResult) -> str:
    return add_source_lines(log, result.source_lines)


def _judge_ending(result: TrialResult, log: ConsoleLog) -> tuple[Status, str]:
    """The outcome of a test that did not end, if the kernel printed no splat."""
    match result.ended:
        case Ended.TIMEOUT:
            return Status.TIMEOUT, f"not done after {result.duration_s:.0f} s; {result.how}"
        case Ended.HANG:
            return Status.CRASH, f"the guest hangs with no console output: it {result.how}"
        case Ended.SSH_LOST:
            return Status.BROKEN, f"{_find_oom(result)}SSH was lost, but the kernel runs: {result.how}"
        case Ended.FLOOD:
            return Status.BROKEN, f"the guest flooded the console and was killed: {result.how}"
        case Ended.RESET if not any(milestone.name == "restart" for milestone in log.milestones):
            return Status.CRASH, f"guest reset with no console output (triple fault?): {result.how}"
        case _:
            return Status.BROKEN, f"the guest shut itself down before the test ended: {result.how}"


def _find_cause(result: TrialResult) -> str:
    """Why results may be missing, as the start of a reason; empty if nothing is known of it."""
    is_cut = result.stdout.endswith(CUT)
    return _find_oom(result) + (f"{CUT.strip().removeprefix('# cowbell: ')}; " if is_cut else "")


def _find_oom(result: TrialResult) -> str:
    """The last message of the OOM killer, as the start of a reason; empty if there is none."""
    kills = [splat for splat in parse_console(result.console).splats if splat.kind is SplatKind.OOM]
    return f"the guest ran out of memory ({kills[-1].title}); " if kills else ""
