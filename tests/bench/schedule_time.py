# SPDX-License-Identifier: GPL-2.0-or-later
"""Compares the model of the scheduler with its workers on two cores: seconds of both, and the difference.

Compilers and guests sleep, so that other work of the host matters little; make starts the compilers.
"""

import os
import subprocess
import tempfile
import time
from pathlib import Path

from orchestrator.process.budget import Budget
from orchestrator.process.jobserver import Jobserver
from orchestrator.process.progress import Board
from orchestrator.process.workers import Limits, Task, work
from tests.conftest import QuietProgress
from tests.schedulemodel import ModelTask, simulate

CORES, FILE_S = 2, 0.25
TASKS = [
    ModelTask("a", "tree 1", "k1", "k1", 6.0, 1.0, 1.0, 4.0),
    ModelTask("b", "tree 1", "k2", "k2", 4.0, 1.0, 1.0, 2.0),
    ModelTask("c", "tree 1", "k1", "k1", 6.0, 1.0, 1.0, 3.0, cpus=1),
    ModelTask("d", "tree 2", "k3", "k3", 5.0, 1.0, 1.0, 1.0, cpus=1),
    ModelTask("e", "tree 2", "k4", "k4", 3.0, 1.0, 1.0, 5.0),
]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="cowbell-") as folder:
        began = time.monotonic()
        tasks = [make_task(task, Path(folder)) for task in TASKS]
        work(tasks, Limits(Jobserver.make(CORES)), QuietProgress())
        real_s = time.monotonic() - began
    model_s = simulate(TASKS, CORES, 4096).makespan_s
    print(f"model {model_s:.1f} s, workers {real_s:.1f} s: {real_s / model_s - 1:+.1%}")


def make_task(task: ModelTask, folder: Path) -> Task[None]:
    def call(board: Board, budget: Budget) -> None:
        made = folder / task.product
        if not made.exists():
            with budget.build() as share:
                names = [f"{task.product}-{number}" for number in range(round(task.cold_s / FILE_S))]
                rule = f"all: {' '.join(names)}\n{' '.join(names)}:\n\t@sleep {FILE_S}\n"
                words = ["make", "-s", "-f", "-", *share.words]
                subprocess.run(
                    words, input=rule.encode(), env=os.environ | share.env, pass_fds=share.fds, check=True
                )
                time.sleep(task.serial_s)
            made.touch()
        with budget.guest(task.cpus, task.memory_mib):
            time.sleep(task.guest_s)

    return Task(task.name, task.group, call, task.guest_s, task.product)


if __name__ == "__main__":
    main()
