# SPDX-License-Identifier: GPL-2.0-or-later
"""What ``patches/cow`` costs where it costs: fork, write faults, references to pages; plain beside cow.

The two kernels of the row demo take turns, each in a guest of its own, so that a busy host is busy for both.
Of each the best mean is told, in nanoseconds. ``KERNEL=`` chooses another tree, ``TURNS=`` how many turns.
"""

import os
import re
import tempfile
from collections import defaultdict
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.plan import products, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.run.runner import run_tests
from orchestrator.store.store import Store, find_default_root


def main() -> None:
    root = Path(__file__).with_suffix("")
    declared = load_declarations(root)
    request = Request(rows=("demo",), tests=("cost.paths",), tree=os.environ.get("KERNEL", ""))
    jobs = make_plan(request, declared)
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as scratch, Terminal() as terminal:
        place = Workspace(root, Store(find_default_root()), terminal)
        kernels = [steps.build_job(job, declared, place) for job in jobs]
        for turn in range(int(os.environ.get("TURNS", "3"))):
            for job, kernel in zip(jobs, kernels, strict=True):
                machine = products.choose_machine(job, kernel, place, os.environ.get("ACCEL", "auto"))
                programs = products.compile_tests(job, kernel, place)
                folder = Path(scratch) / f"{turn}-{job.variant.name}"
                folder.mkdir()
                (result,) = run_tests(machine, programs, place.lib_dir, folder, terminal)
                for cost, name in re.findall(r"# cost: (\d+) ns (.*)", result.stdout):
                    found[name][job.variant.name].append(int(cost))
    terminal.console.print(f"{machine.accel}, load {os.getloadavg()[0]:.1f}, best of the turns, ns:")
    print(f"{'':<52}{'plain':>10}{'cow':>10}{'cow/plain':>10}")
    for name, costs in found.items():
        plain, cow = (min(costs[job.variant.name]) for job in jobs)
        print(f"{name:<52}{plain:>10}{cow:>10}{cow / plain:>10.2f}")


if __name__ == "__main__":
    main()
