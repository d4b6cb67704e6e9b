# SPDX-License-Identifier: GPL-2.0-or-later
"""bisect and bisect-step: the change between a kernel on which a test passes and one on which it fails."""

import os
import shutil
from dataclasses import replace

from orchestrator.cli.call import Call
from orchestrator.cli.storedresults import know_rates
from orchestrator.cli.target import GUESTS, JOBS, KERNELS, LIMITS, PARALLEL, TRIALS, Target
from orchestrator.cli.variables import read_confidence
from orchestrator.errors import UsageError, raise_all


def run_bisect(call: Call) -> int:
    from orchestrator.bisect import bisection, outcome
    from orchestrator.cli import bisect

    if call.value("RESUME") == "1":
        return _resume(call)
    name = _read_name(call)
    test, job = bisect.choose_job(name, call.request, call.known)
    asked = bisect.Asked(
        name,
        call.value("GOOD"),
        call.value("BAD"),
        call.value("FIND"),
        call.settings["PATHS"].words,
        call.settings["CONFIG_GOOD"].words,
        call.settings["CONFIG_BAD"].words,
        read_confidence(call.value("CONFIDENCE")),
        call.value("FINGERPRINT"),
    )
    question = bisect.make_question(asked, test, job, call.known, call.place)
    place = know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    ours = bisection.Bisection(question, job, place, call.request.accel, call.command, redo=call.redo)
    if call.is_dry_run:
        call.show(f"{ours.describe()}\n")
        return 0
    with outcome.open_call(ours.folder, call.line.typed):
        found = ours.run()
    call.terminal.stop()
    call.show_product("bisect", outcome.render_text, found, is_found=found.is_found)
    if not call.line.options.json:
        files = [name for name in ("report.txt", "mail.txt", "evidence") if (ours.folder / name).exists()]
        call.show(f"{ours.folder}: {', '.join(files)}\n")
    if call.folder:
        # the other files are for resuming
        others = shutil.ignore_patterns("git", "steps.json")
        shutil.copytree(ours.folder, call.folder, ignore=others, dirs_exist_ok=True)
    return int(not found.is_found)


def _read_name(call: Call) -> str:
    """The id of the test, or of a subtest, whose parameters may have commas."""
    request = call.request
    return ",".join(request.tests) if request.programs else call.value("TESTS").strip()


def _resume(call: Call) -> int:
    from orchestrator.bisect.outcome import find_interrupted

    others = [name for name, setting in call.settings.items() if setting.is_typed and name != "RESUME"]
    raise_all(
        [
            UsageError("has no effect with RESUME=1, which repeats the interrupted command", where=name)
            for name in others
        ]
    )
    folder, words = find_interrupted(call.store.path("bisects"))
    os.chdir(folder)
    return call.again(words)


def run_step(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.cli import bisect, listing

    name, fingerprint = _read_name(call), call.value("FINGERPRINT")
    if not call.request.tree:
        raise UsageError("is required", where="KERNEL", hint="KERNEL=. is the checkout of git bisect")
    _, job = bisect.choose_job(name, call.request, call.known)
    place = know_rates([job], replace(call.place, repeat=replace(call.place.repeat, count=0)))
    if call.is_dry_run:
        steps = list(pipeline.explain_jobs([job], call.known, place, call.request.accel))
        return call.show_product("steps", listing.render_steps, steps, steps=steps)
    answer, why, run_id = bisect.take_step(
        name, fingerprint, job, call.known, place, call.request.accel, call.command
    )
    call.terminal.stop()
    call.show(f"{answer}: {why} ({run_id})\n")
    if call.value("FIND") == "fix":
        answer = answer.other
    return answer.exit_status


_STEP = (*JOBS, *KERNELS, *GUESTS, *TRIALS, *LIMITS)
TARGETS = (
    Target(
        "bisect",
        "find the change",
        "find the commit, version, patch or symbol that changed a test",
        run_bisect,
        (
            (
                "cowbell bisect TESTS=odirect.rd-mprotect KERNEL=~/linux GOOD=v6.1 BAD=v6.2",
                "find the commit that broke the test",
            ),
            (
                "cowbell bisect TESTS=odirect.rd-mprotect SERIES=cow",
                "find the patch of a series that changed the result",
            ),
        ),
        variables=(
            *_STEP, "GOOD", "BAD", "FIND", "PATHS", "CONFIG_GOOD", "CONFIG_BAD", "CONFIDENCE", "FINGERPRINT",
            "RESUME", "DIR",
        ),
        extra_options=("--always-make", *PARALLEL),
        products=("bisect",),
        default_row="the first row with the test",
        more="GOOD= and BAD= bisect commits or Debian versions, SERIES= alone the patches of a series, "
        "CONFIG_GOOD= and CONFIG_BAD= config symbols. Exit status 0: found, 1: not found.",
    ),
    Target(
        "bisect-step",
        "find the change",
        "test one commit for git bisect run",
        run_step,
        (
            (
                "git bisect run cowbell bisect-step KERNEL=. TESTS=odirect.rd-mprotect",
                "bisect with git, in a kernel checkout",
            ),
            (
                "cowbell bisect-step KERNEL=. TESTS=fork.basic-cow FINGERPRINT='warning:do_wp_page*'",
                "only that crash is bad",
            ),
        ),
        variables=(*_STEP, "FIND", "FINGERPRINT"),
        default_row="the first row with the test",
        extra_options=PARALLEL,
        products=("steps",),
        more="Exit status 0: good, 1: bad, 125: skip, 128: usage error, 129: infrastructure error; the "
        "last two stop git bisect.",
    ),
)  # fmt: skip
