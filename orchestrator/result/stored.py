# SPDX-License-Identifier: GPL-2.0-or-later
"""The stored results of one kernel on one machine: a file for each trial of each test."""

import dataclasses
import itertools
from pathlib import Path

from orchestrator.guest.qemu import Machine
from orchestrator.guest.setup import make_setup_id
from orchestrator.project.guesttest import GuestTest
from orchestrator.result.record import Known, TrialResult, load_result, save_result
from orchestrator.result.verdict import is_conclusive
from orchestrator.store.store import Store, make_id


def find_results_dir(machine: Machine, store: Store) -> Path:
    """The folder of the results of one kernel on one machine."""
    shape = dataclasses.asdict(machine.shape)
    return store.path(
        "results",
        make_id(
            machine.kernel.request.build_id,
            machine.rootfs.rootfs_id,
            shape,
            machine.accel,
            machine.append,
            make_setup_id(machine.shape),
            machine.boot,
            # the modules, and the initramfs of a kernel from elsewhere
            machine.modules.disk.parent.name if machine.modules else "",
            # results without a trace keep their place
            *([dataclasses.asdict(machine.trace)] if machine.trace.is_on else []),
        ),
    )


def _result_path(folder: Path, test: str, content_id: str, trial: int = 1) -> Path:
    number = f".{trial}" if trial > 1 else ""
    return folder / f"{test}.{content_id[:12]}{number}.json"


def name_trace(test: str, trial: int) -> str:
    """The name of the file with the trace of a trial, in the folder of its boot."""
    return f"{test.replace('/', '-')}.{trial}.trace"


def find_results(
    folder: Path, test: GuestTest, program_id: str, splats: tuple[Known, ...]
) -> list[TrialResult]:
    """The stored results of a test, trial by trial, up to the first inconclusive one.

    ``splats`` are the known issues.
    """
    found: list[TrialResult] = []
    while known := load_result(_result_path(folder, test.id, program_id, len(found) + 1)):
        if not is_conclusive(known, test.subtests, splats):
            break
        found.append(known)
    return found


def keep_result(folder: Path, result: TrialResult) -> None:
    """Save a result; it replaces that of an earlier run, which is there until then."""
    paths = (
        _result_path(folder, result.test, result.content_id, trial)
        for trial in itertools.count(result.trial + 1)
    )
    # no old trial may follow a new one; the last one first, as this may be killed
    for path in reversed(list(itertools.takewhile(Path.exists, paths))):
        path.unlink()
    save_result(result, _result_path(folder, result.test, result.content_id, result.trial))
