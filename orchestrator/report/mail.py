# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as a plain-text mail for a kernel list: what was tested, what changed, and how to repeat it.

No line is longer than 72 columns. Lines that come from a guest or a build start with a bar: b4 would take a
trailer in them for one of the sender, also if it is indented, and regzbot a command.
"""

import re
import shlex
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from orchestrator.guest.setup import describe_setup
from orchestrator.history.entry import Entry, render_columns
from orchestrator.parse.printk import make_printable
from orchestrator.report.replay import make_command
from orchestrator.report.report import Group, Judged, describe_boot, describe_difference, is_of_git
from orchestrator.result import statistics
from orchestrator.result.record import JobRecord, RunRecord
from orchestrator.result.verdict import Verdict, find_target_rate, lacks_tries
from orchestrator.source.lore import parse_message
from orchestrator.status import Status

WIDTH = 72
# of an excerpt, and of the tests that a command names
_MOST_LINES = 12
_MOST_TESTS = 8
# the start of a line that others have written
BAR = "  | "
NO_TESTER = "(your name) <(your address)>"


@dataclass(frozen=True, slots=True)
class Regression:
    """A test that passed on an older kernel: ``introduced`` is the range of commits or versions."""

    verdict: Verdict
    job: JobRecord
    passed_on: str
    introduced: str


def fold(text: str, indent: str = "", more: str | None = None) -> str:
    """Text of any length in lines of at most 72 columns; ``more`` is the indent of all but the first."""
    return "\n".join(
        textwrap.wrap(
            " ".join(make_printable(text).split()),
            WIDTH,
            initial_indent=indent,
            subsequent_indent=indent if more is None else more,
            break_on_hyphens=False,
        )
    )


def show_name(name: str) -> str:
    """The name of a subtest, which a program in the guest may have chosen, as no trailer and no command."""
    return re.sub(r":(?=\s)", "", name).lstrip("# ") or "-"


def fold_command(command: str) -> str:
    """A command in lines that can be pasted to a shell together."""
    lines, line = [], " "
    for word in shlex.split(command):
        quoted = shlex.quote(word)
        if len(quoted) > WIDTH - 8:
            # the parts of a word are quoted one by one; their lines are not indented
            parts = [shlex.quote(part) for part in re.findall(r"(?s).{1,39},|.{1,40}", word)]
            lines += [f"{line} \\", *(f"{part}\\" for part in parts[:-1])]
            line = parts[-1]
            continue
        if len(line) + len(quoted) > WIDTH - 3:
            lines.append(f"{line} \\")
            line = "   "
        line += f" {quoted}"
    return "\n".join([*lines, line])


def list_facts(job: JobRecord) -> Iterator[tuple[str, str]]:
    """What was tested, as labels and texts."""
    version = job.version if job.version not in job.tree else ""
    yield "tree", f"{job.tree}{f' ({version})' if version else ''}"
    if job.base:
        yield "base", f"{job.base[:12]}{f' of {job.origin}' if job.origin else ''}"
    if job.series:
        yield "series", job.series
    if job.fixups:
        yield "fixups", ", ".join(job.fixups)
    yield "config", f"of row {job.row}{f', id {job.config_id}' if job.config_id else ''}"
    setup = describe_setup(job.guest_setup)
    yield "guest", "; ".join(filter(None, (f"{job.arch} in QEMU", describe_boot(job), setup)))


def render_facts(jobs: Sequence[JobRecord]) -> str:
    """The facts of all jobs, each fact once; one that is not of all jobs has the names of its variants."""
    found: dict[tuple[str, str], list[str]] = {}
    for job in jobs:
        for fact in list_facts(job):
            found.setdefault(fact, []).append(job.variant)
    lines = []
    for (label, text), variants in found.items():
        is_shared = len(variants) == len(jobs) or label == "series"
        named = "" if is_shared else f"{', '.join(variants)}: "
        lines.append(fold(f"{named}{text}", f"{label + ':':8} ", " " * 9))
    return "\n".join(lines)


def render_mail(judged: Judged, entries: Sequence[Entry] = (), tester: str = "") -> str:
    """The mail of a run. ``entries`` of the history tell on which kernels a test passed before.

    ``tester`` is the name and address for a ``Tested-by:``. It is proposed for a series that was tested,
    whose verdicts are all as expected, and that breaks nothing.
    """
    regressions = [one for group in judged.groups for one in _find_regressions(group, entries)]
    parts = [fold(judged.summary)]
    for group in judged.groups:
        run = next(run for run in judged.parts or (judged.run,) if run.run_id == group.run_id)
        parts += _render_group(group, run)
    parts += [_render_regression(regression) for regression in regressions[:1]]
    parts += [_render_trailers(group, tester) for group in judged.groups]
    head = "\n".join(_list_headers(judged, regressions))
    return f"{head}\n\n" + "\n\n".join(filter(None, parts)) + "\n"


def _list_headers(judged: Judged, regressions: Sequence[Regression]) -> Iterator[str]:
    jobs = judged.run.jobs
    series = list(dict.fromkeys(job.series for job in jobs if job.series))
    about = ", ".join(series) or ", ".join(dict.fromkeys(job.tree for job in jobs))
    message = parse_message(series[0]) if len(series) == 1 else None
    yield f"To: {'(all recipients of the series)' if series else '(output of scripts/get_maintainer.pl)'}"
    if regressions and not series:
        first = regressions[0]
        yield "Cc: regressions@lists.linux.dev"
        others = f" and {len(regressions) - 1} more" if regressions[1:] else ""
        subject = f"[REGRESSION] {show_name(first.verdict.name)}{others} on {first.job.tree}"
    else:
        subject = f"[TEST] {about}: {'as expected' if judged.is_as_expected else 'NOT as expected'}"
    yield fold(subject, "Subject: ", " ")
    if message:
        yield f"In-Reply-To: <{message.id}>"


def _render_group(group: Group, run: RunRecord) -> Iterator[str]:
    yield render_facts(group.jobs)
    for job in group.jobs:
        if job.left_out:
            yield fold(f"{job.variant} was left out: {job.left_out}", "", BAR)
        if job.failure:
            yield fold(f"{job.variant}: {job.failure.stage} failed: {job.failure.what}", "", BAR)
    order = (Status.CRASH, Status.FAIL, Status.TIMEOUT, Status.BROKEN)
    changed = sorted(
        (name for name in group.tests if _is_changed(group, name)),
        key=lambda name: (not _is_broken(group, name), not _is_bad(group, name), name),
    )
    if changed:
        yield f"What changed, or is not as expected:\n\n{_render_table(group, changed)}"
    else:
        yield "No result changed, and none is unexpected."
    if rates := "\n".join(_list_rates(group)):
        confidence = statistics.percent(statistics.CONFIDENCE)
        yield f"Failure rates, with {confidence} confidence:\n\n{rates}"
    same = len(group.tests) - len(changed)
    if changed and same:
        yield fold(f"The other {same} subtests are as expected, with the same result on each kernel.")
    for name in changed:
        for job in group.jobs:
            verdict = group.tests[name].get(job.variant)
            if verdict and (verdict.status.is_bad or (verdict.raw in order and _is_broken(group, name))):
                yield _render_reason(job, verdict)
    tests = list(dict.fromkeys(next(iter(group.tests[name].values())).test for name in changed))
    command = make_command(run, group.jobs[-1], *(tests if len(tests) <= _MOST_TESTS else ()))
    yield f"To reproduce, with Cowbell:\n\n{fold_command(command)}"


def _is_bad(group: Group, name: str) -> bool:
    return any(verdict.status.is_bad for verdict in group.tests[name].values())


def _find_ends(group: Group, name: str) -> tuple[Verdict, Verdict] | None:
    """The verdicts on the first and the last kernel, if there are two that say something of the kernel."""
    found = [group.tests[name][job.variant] for job in group.jobs if job.variant in group.tests[name]]
    known = [one for one in found if one.raw is Status.PASS or one.raw.is_kernel_fault]
    return (known[0], known[-1]) if len(known) > 1 and len(known) == len(found) else None


def _is_changed(group: Group, name: str) -> bool:
    ends = _find_ends(group, name)
    return _is_bad(group, name) or bool(ends and ends[0].raw is not ends[1].raw)


def _is_broken(group: Group, name: str) -> bool:
    """Whether a test passes on the first kernel and fails on a later one."""
    found = [group.tests[name][job.variant] for job in group.jobs if job.variant in group.tests[name]]
    return found[0].raw is Status.PASS and any(one.raw.is_kernel_fault for one in found[1:])


def _render_table(group: Group, names: Iterable[str]) -> str:
    """A line per test and a column per kernel, or a line per verdict if that is too wide."""
    variants = [job.variant for job in group.jobs]
    labels = {
        name: [by[variant].label if variant in by else "-" for variant in variants]
        for name in names
        if (by := group.tests[name])
    }
    table = render_columns([("", *variants), *((show_name(name), *labels[name]) for name in labels)]).rstrip(
        "\n"
    )
    if max(map(len, table.splitlines())) <= WIDTH:
        return table
    lines = []
    for name in labels:
        lines.append(fold(show_name(name), "", "    "))
        lines += [
            fold(f"{variant}: {label}", "  ", "    ")
            for variant, label in zip(variants, labels[name], strict=True)
        ]
    return "\n".join(lines)


def _list_rates(group: Group) -> Iterator[str]:
    for name, by_variant in group.tests.items():
        rates = {
            job.variant: found.rate
            for job in group.jobs
            if (found := by_variant.get(job.variant))
            and found.rate
            and found.rate.hits <= found.rate.tries > 0
        }
        if not rates:
            continue
        yield fold(show_name(name), "", "    ")
        for variant, rate in rates.items():
            yield fold(f"{variant}: {statistics.describe(rate).partition(' with ')[0]}", "  ", "    ")
        if difference := describe_difference(by_variant, group.jobs):
            yield fold(f"difference: {difference.partition(' with ')[0]}", "  ", "    ")


def _render_reason(job: JobRecord, verdict: Verdict) -> str:
    lines = [fold(f"{show_name(verdict.name)} on {job.variant}: {verdict.label}")]
    lines += [fold(verdict.reason, BAR)] if verdict.reason else []
    lines += [fold(f"fingerprint: {verdict.fingerprint}", BAR)] if verdict.fingerprint else []
    rest = [line for line in verdict.evidence.splitlines() if line.strip() and line not in verdict.reason]
    lines += [fold(line, BAR, f"{BAR}  ") for line in rest[:_MOST_LINES]]
    return "\n".join(lines)


def _find_regressions(group: Group, entries: Sequence[Entry]) -> Iterator[Regression]:
    """The failures without a series, for which a kernel is known on which the test passed."""
    for name, by_variant in group.tests.items():
        found = [(job, by_variant[job.variant]) for job in group.jobs if job.variant in by_variant]
        plain = [(job, verdict) for job, verdict in found if not job.series and verdict.stage == "run"]
        passed = [job for job, verdict in plain if verdict.raw is Status.PASS]
        for job, verdict in plain:
            if not verdict.status.is_bad or not verdict.raw.is_kernel_fault:
                continue
            older = [one for one in passed if one.variant != job.variant and one.version]
            if older:
                yield _make_regression(verdict, job, older[0].tree, older[0].version, older[0].base)
                break
            past = [
                one
                for one in entries
                if (one.name, one.row, one.arch, one.series, one.raw)
                == (name, job.row, job.arch, "", Status.PASS)
                and _compare_key(one.kernel) <= _compare_key(job.version)
                and (one.kernel, one.commit) != (job.version, job.commit)
            ]
            if past:
                last = max(past, key=lambda one: (_compare_key(one.kernel), one.started))
                yield _make_regression(verdict, job, last.tree, last.kernel, last.commit)
                break


def _compare_key(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _make_regression(verdict: Verdict, job: JobRecord, tree: str, version: str, commit: str) -> Regression:
    is_same_tree = tree.split(":")[0] == job.tree.split(":")[0]
    if is_of_git(job) and is_same_tree and commit:
        ends = f"{commit[:12]}..{job.base[:12]}"
    else:
        ends = f"v{version.removesuffix('.0')}..v{job.version.removesuffix('.0')}"
    return Regression(verdict, job, f"{tree} ({version})", ends)


def _render_regression(regression: Regression) -> str:
    """Source of the commands: Documentation/process/handling-regressions.rst of the kernel."""
    verdict, job = regression.verdict, regression.job
    name = show_name(verdict.name)
    text = fold(f"{name} passes on {regression.passed_on} and fails on {job.tree} ({job.version}).")
    title = " ".join(make_printable(f"{name} fails ({verdict.raw.upper()})").split())
    title = textwrap.shorten(title, WIDTH - len("#regzbot title: "), placeholder="...")
    return f"{text}\n\n#regzbot introduced: {regression.introduced}\n#regzbot title: {title}"


def _render_trailers(group: Group, tester: str) -> str:
    """A proposed ``Tested-by:`` for each series, or why there is none."""
    parts = []
    for job in group.jobs:
        if not job.series:
            continue
        verdicts = [by[job.variant] for by in group.tests.values() if job.variant in by]
        broken = [name for name in group.tests if _is_broken(group, name)]
        bad = [verdict.name for verdict in verdicts if verdict.status.is_bad]
        passed = [verdict for verdict in verdicts if verdict.raw is Status.PASS]
        reason = (
            job.left_out
            or (job.failure and f"{job.failure.stage} failed")
            or (bad and f"{len(bad)} verdict(s) are not as expected")
            or (broken and f"{len(broken)} test(s) fail only with a series")
            or (not passed and "no test passed")
        )
        if reason:
            parts.append(fold(f"No Tested-by is proposed for {job.series}: {reason}.", "", "  "))
            continue
        doubts = [
            verdict.name
            for verdict in passed
            if lacks_tries(verdict.rate, find_target_rate(job.target_rates, verdict.name))
        ]
        told = f"If you vouch for these results ({len(passed)} passed on {job.arch}"
        told += f"; {len(doubts)} of them are races with too few tries):" if doubts else "):"
        parts.append(f"{fold(told)}\n\nTested-by: {' '.join(make_printable(tester).split()) or NO_TESTER}")
    return "\n\n".join(parts)
