# SPDX-License-Identifier: GPL-2.0-or-later
"""expect: write the expectations that a run implies into ci/expectations.yaml."""

import difflib

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target


def run(call: Call) -> int:
    from orchestrator.cli import expect
    from orchestrator.errors import UsageError
    from orchestrator.project.expectationfile import edit_expectations
    from orchestrator.project.root import IS_CHECKOUT, SHIPPED
    from orchestrator.report.folder import choose_runs, judge_runs
    from orchestrator.store.store import write_atomic

    if call.root == SHIPPED and not IS_CHECKOUT:
        what = "the built-in ci/expectations.yaml is installed, not yours to change"
        raise UsageError(what, where=str(SHIPPED), hint="-C DIR selects a user overlay")
    file = call.root / "ci" / "expectations.yaml"
    judged = judge_runs(call.store, choose_runs(call.store, call.value("RUN")))
    found = expect.propose(judged, call.declared, file, call.settings["TESTS"].words)
    # not as text, which would change the ends of lines
    before = file.read_bytes().decode() if file.exists() else ""
    if found.added or found.removed:
        after = edit_expectations(file, before, found.added, found.removed)
        names = (str(file) if before else "/dev/null", str(file))
        lines = difflib.unified_diff(before.splitlines(), after.splitlines(), *names, lineterm="")
        call.show("".join(f"{line}\n" for line in lines))
        if not call.is_dry_run:
            write_atomic(file.resolve(), after)
    for who, reason in found.left:
        call.show(call.fit(f"not written: {who}: {reason}\n"))
    verb = "would be " if call.is_dry_run else ""
    counts = (
        f"{len(found.added)} {verb}added, {len(found.removed)} {verb}removed, {len(found.left)} not written"
    )
    call.show(f"{file}: {counts}\n")
    return int(bool(found.left))


TARGETS = (
    Target(
        "expect",
        "read results",
        "write the failures of a run into ci/expectations.yaml",
        run,
        (
            ("cowbell -n expect", "print what the last run would add and remove"),
            ("cowbell expect RUN=demo-0123456789ab TESTS='odirect.*'", "write it, for some tests"),
        ),
        variables=("RUN", "TESTS"),
        more="Each entry is for the tested minor version, architecture and series; fill in its reason. "
        "Entries whose tests all pass now are removed if they cover nothing else; comments stay. A crash is "
        "written only if TESTS= names its test, BROKEN never. Exit status 1: an unexpected result was not "
        "written.",
    ),
)
