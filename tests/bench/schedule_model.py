# SPDX-License-Identifier: GPL-2.0-or-later
"""How long all rows take on 2, 4, 16 and 64 cores, simulated with step times of the store.

    COWBELL_STORE=... python -m tests.bench.schedule_model [--save]

``--save`` writes the step times to ``tests/steptimes.json``, which tests/test_schedule.py reads. A test takes
the median of its stored results, one without any that of all tests. Builds take the CPU time of full builds
of the store; the serial part is the shortest build after a small change, of which most is the linker.
"""

import dataclasses
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import IMAGE_ROW, Job, Request, make_plan
from orchestrator.result.record import load_result
from orchestrator.source.tree import IMAGES
from orchestrator.store.store import Store, open_default
from tests.schedulemodel import ModelTask, find_bound, render, simulate

ROOT = Path(__file__).parents[2]
SAVED = ROOT / "tests" / "steptimes.json"
# a build with fewer compiled files is one after a small change
_FULL, _SMALL = 300, 30
_BOOT_S = 1.8
_MIB_PER_CORE = 4096


def main() -> None:
    declared = load_declarations(ROOT)
    jobs = make_plan(Request(rows=tuple(name for name in declared.usual_rows if name != IMAGE_ROW)), declared)
    tasks = make_tasks(jobs, open_default())
    if "--save" in sys.argv:
        lines = [json.dumps(dataclasses.asdict(task)) for task in tasks]
        SAVED.write_text("[\n" + ",\n".join(lines) + "\n]\n")
    print(f"{len(tasks)} jobs, {len({task.product for task in tasks})} kernels")
    for cores in (2, 4, 16, 64):
        print(render(simulate(tasks, cores, cores * _MIB_PER_CORE), find_bound(tasks, cores)))


def make_tasks(jobs: tuple[Job, ...], store: Store) -> list[ModelTask]:
    times = read_test_times(store)
    usual_s = statistics.median(times.values())
    full_s, small_s, serial_s = read_build_times(store)
    tasks = []
    for job in jobs:
        folder = f"{job.tree.name} {' '.join(job.row.kconfig)}"
        is_image = isinstance(job.tree, IMAGES)
        tasks.append(
            ModelTask(
                name=job.name,
                group="" if is_image else job.tree.name,
                product=f"{folder} {job.series.name}",
                folder=folder,
                cold_s=0.0 if is_image else full_s,
                warm_s=0.0 if is_image else max(0.0, small_s - serial_s),
                serial_s=1.0 if is_image else serial_s,
                guest_s=round(_BOOT_S + sum(times.get(test.id, usual_s) for test in job.tests), 1),
                cpus=job.row.guest.cpus,
                memory_mib=job.row.guest.memory_mib,
            )
        )
    return tasks


def read_test_times(store: Store) -> dict[str, float]:
    """The median duration of each test."""
    found: dict[str, list[float]] = defaultdict(list)
    for path in store.path("results").glob("*/*.json"):
        if result := load_result(path):
            found[result.test].append(result.duration_s)
    return {test: statistics.median(times) for test, times in found.items()}


def read_build_times(store: Store) -> tuple[float, float, float]:
    """The CPU seconds of a full build and of one after a small change,
    and the least elapsed time of the latter: the host was busy with other work as well."""
    full, small, serial = [], [], []
    for path in store.path("kernels").glob("*/build.json"):
        build = json.loads(path.read_text())
        misses = build.get("ccache", {}).get("misses", 0)
        if misses >= _FULL:
            full.append(build["cpu_s"])
        elif build["wall_s"] and misses <= _SMALL:
            small.append(build["cpu_s"])
            serial.append(build["wall_s"])
    return statistics.median(full), statistics.median(small), min(serial)


if __name__ == "__main__":
    main()
