# SPDX-License-Identifier: GPL-2.0-or-later
"""doctor: the host's tools, compilers, mirrors and disk space."""

from orchestrator.cli.call import Call
from orchestrator.cli.target import JOBS, KERNELS, Target


def run(call: Call) -> int:
    from orchestrator.cli import doctor
    from orchestrator.plan import plan

    findings = doctor.examine(plan.make_plan(call.request, call.known), call.place)
    call.show_product(
        "doctor",
        doctor.render,
        findings,
        findings=findings,
        packages=doctor.find_packages(findings),
        install=doctor.find_install_command(findings),
    )
    return int(bool(doctor.find_missing(findings)))


TARGETS = (
    Target(
        "doctor",
        "set up and look up",
        "check host dependencies; print the command that installs them",
        run,
        (
            ("cowbell doctor ROW=demo", "check the dependencies of row demo"),
            ("cowbell doctor", "check the dependencies of every row"),
        ),
        variables=(*JOBS, *KERNELS),
        products=("doctor",),
        more="It builds and boots nothing. Exit status 1: a dependency is missing.",
    ),
)
