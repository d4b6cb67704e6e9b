# SPDX-License-Identifier: GPL-2.0-or-later
"""Wall time of a boot: ours, from a saved guest, by way of vng, and ``vng -- true``; one kernel, one run.

They take turns, so that a busy host is busy for all. Ours counts until the guest has answered over
SSH and has been found to be what was asked for; vng's until it is back. Run it with ``make bench``; the
figures to quote are the medians. ``ACCEL=tcg`` measures without KVM.
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.guest.boot import boot_guest
from orchestrator.guest.qemu import Machine
from orchestrator.guest.snapshot import Snapshot, save_snapshot
from orchestrator.kernel.build import Kernel
from orchestrator.plan import products, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.store.store import Store, find_default_root

ROUNDS = 7


def boot_ours(machine: Machine, folder: Path, snapshot: Snapshot | None = None) -> float:
    began = time.monotonic()
    with boot_guest(machine, folder, snapshot):
        return time.monotonic() - began


def boot_vng(kernel: Kernel, accel: str, scratch: Path) -> float:
    """What a user of vng would type, with what keeps it off a KVM that does not work.

    On a host without udev its exit status is 255 whatever the command came to, so its init is asked; our
    consoles are as verbose.
    """
    began = time.monotonic()
    done = command.run(
        ["vng", "--verbose", "--run", str(kernel.image)]
        + (["--disable-kvm"] if accel == "tcg" else [])
        + ["--", "true"],
        cwd=scratch,
        env={"HOME": str(scratch), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        deadline=command.Deadline.after(300),
        check=False,
    )
    if done.returncode and "script exited with code 0" not in done.output:
        raise command.make_failure(done)
    return time.monotonic() - began


def main() -> None:
    declared = load_declarations(Path(__file__).parents[2])
    (job,) = make_plan(Request(rows=("demo",), series=("none",), boot="vng"), declared)
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as folder, Terminal() as terminal:
        scratch = Path(folder)
        place = Workspace(Path(__file__).parents[2], Store(find_default_root()), terminal)
        kernel = steps.build_job(job, declared, place)
        machine = products.choose_machine(job, kernel, place, os.environ.get("ACCEL", "auto"))
        own = replace(machine, boot="qemu")
        with boot_guest(own, scratch / "first") as guest:
            snapshot = save_snapshot(guest, scratch / "saved")
        names = ("cowbell", "cowbell, saved guest", "cowbell BOOT=vng", "vng -- true")
        took: dict[str, list[float]] = {name: [] for name in names}
        for number in range(ROUNDS):
            terminal.stage("boot", f"round {number + 1} of {ROUNDS}")
            took["cowbell"].append(boot_ours(own, scratch / f"qemu-{number}"))
            took["cowbell, saved guest"].append(boot_ours(own, scratch / f"saved-{number}", snapshot))
            took["cowbell BOOT=vng"].append(boot_ours(machine, scratch / f"vng-{number}"))
            took["vng -- true"].append(boot_vng(kernel, machine.accel, scratch))
    load = os.getloadavg()[0]
    terminal.console.print(f"{kernel.request.source.version} on {machine.accel}, load {load:.1f}, seconds:")
    print(f"{'':<24}{'median':>9}{'best':>9}")
    for name, seconds in took.items():
        print(f"{name:<24}{statistics.median(seconds):9.2f}{min(seconds):9.2f}")
    ratio = statistics.median(took["vng -- true"]) / statistics.median(took["cowbell"])
    print(f"{'vng / cowbell':<24}{ratio:9.2f}")


if __name__ == "__main__":
    main()
