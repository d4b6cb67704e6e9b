# SPDX-License-Identifier: GPL-2.0-or-later
"""How long the deterministic tests of the row catalogue take on one kernel, boots included.

The kernel and the tests are built beforehand; nothing that was earned before is taken. On an idle host the
figure is to stay below 90 s under TCG. ``KERNEL=`` chooses another tree, ``ACCEL=tcg`` measures without KVM.
"""

import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.plan import products, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.run.runner import run_tests
from orchestrator.store.store import Store, find_default_root

SLOWEST = 8


def main() -> None:
    root = Path(__file__).parents[2]
    declared = load_declarations(root)
    request = Request(rows=("catalogue",), series=("none",), tree=os.environ.get("KERNEL", ""))
    (job,) = make_plan(request, declared)
    job = replace(job, tests=tuple(test for test in job.tests if test.kind == "deterministic"))
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as scratch, Terminal() as terminal:
        place = Workspace(root, Store(find_default_root()), terminal)
        kernel = steps.build_job(job, declared, place)
        machine = products.choose_machine(job, kernel, place, os.environ.get("ACCEL", "auto"))
        programs = products.compile_tests(job, kernel, place)
        began = time.monotonic()
        results = list(run_tests(machine, programs, place.lib_dir, Path(scratch), terminal))
        took = time.monotonic() - began
    load, boots = os.getloadavg()[0], len({result.boot for result in results})
    terminal.console.print(f"{kernel.request.source.version} on {machine.accel}, load {load:.1f}, seconds:")
    print(f"{f'{len(results)} tests, {boots} guests':<32}{took:8.1f}")
    print(f"{'of them in the tests':<32}{sum(result.duration_s for result in results):8.1f}")
    for result in sorted(results, key=lambda result: -result.duration_s)[:SLOWEST]:
        print(f"  {result.test:<30}{result.duration_s:8.1f}")


if __name__ == "__main__":
    main()
