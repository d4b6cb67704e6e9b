# SPDX-License-Identifier: GPL-2.0-or-later
"""shell: a shell in the guest of one kernel."""

import sys

from orchestrator.cli.call import Call
from orchestrator.cli.target import FIRST_ROW, GUESTS, JOBS, KERNELS, LIMITS, PARALLEL, Target

# exit statuses for git bisect run; those of errors are in main
_SKIP, _OTHER = 125, 127


def run(call: Call) -> int:
    from orchestrator import pipeline
    from orchestrator.cli import listing, shell
    from orchestrator.plan import plan
    from orchestrator.plan.steps import Step, make_goal

    job = shell.choose_job(plan.make_plan(call.request, call.known), call.request.series)
    accel = call.request.accel
    if call.is_dry_run:
        steps = list(pipeline.explain_jobs([job], call.known, call.place, accel, make_goal(["shell"])))
        steps.append(Step("shell", job.name, f"boot it, by {job.boot}"))
        return call.show_product("steps", listing.render_steps, steps, steps=steps)
    has_gdb = call.value("GDB") == "1"
    with pipeline.open_guest(job, call.known, call.place, accel, has_gdb=has_gdb) as guest:
        call.terminal.stop()
        if has_gdb:
            sys.stderr.write(f"{shell.make_gdb_line(guest.machine)}\n")
        if sys.stdin.isatty() and not call.line.options.silent:
            sys.stderr.write(shell.make_greeting(guest, job))
            sys.stderr.flush()
        session = shell.run_shell(guest)
    for complaint in session.complaints:
        call.note(f"the kernel complained: {complaint} ({guest.console})")
    if session.status > _SKIP:
        call.note(f"the shell ended with status {session.status}")
        return _OTHER
    return session.status


TARGETS = (
    Target(
        "shell",
        "test a kernel",
        "boot one kernel and open a shell in its guest",
        run,
        (
            ("cowbell shell ROW=demo SERIES=none", "the plain kernel, with the tests in PATH"),
            ("echo 'uname -r' | cowbell shell SERIES=none", "run commands; exit with their status"),
        ),
        variables=(*JOBS, *KERNELS, *GUESTS, *LIMITS, "TESTS", "ACCEL", "BUILT", "GDB"),
        extra_options=PARALLEL,
        products=("steps",),
        more="It builds the kernel if necessary. Where a row has several kernels, SERIES= selects one. "
        "Exit status 0 to 125: that of the shell; 125: the kernel does not build or boot; 126: the guest was "
        "lost; 127: the shell ended with a higher status; 128: usage error; 129: infrastructure error. "
        "GDB=1 prints the command that attaches gdb to the guest.",
        default_row=FIRST_ROW,
    ),
)
