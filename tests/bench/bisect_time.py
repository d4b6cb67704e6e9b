# SPDX-License-Identifier: GPL-2.0-or-later
"""Wall time to find one of eight patches to mm/ on a built base: ours, and ``git bisect run`` around vng.

Both have the base built. Ours tests both ends, and what it finds once more; theirs is ``vng --build`` and
``vng -- TEST`` in each step. Run it with ``make bench``; the figure to quote is the last line's ratio.
``ACCEL=tcg`` keeps vng off a KVM that does not work.
"""

import os
import shlex
import sys
import tempfile
import time
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.plan import products, steps
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.workspace import Workspace
from orchestrator.process import command
from orchestrator.store.store import Store, find_default_root
from tests.gitserver import run_git
from tests.longhistory import make_short_history

TEST = "vmsplice.child-small"
ROOT = Path(__file__).parents[2]


def main() -> None:
    declared = load_declarations(ROOT)
    (job,) = make_plan(Request(rows=("demo",), series=("none",), tests=(TEST,)), declared)
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as folder, Terminal() as terminal:
        scratch = Path(folder)
        place = Workspace(ROOT, Store(find_default_root()), terminal)
        kernel = steps.build_job(job, declared, place)
        (program,) = products.compile_tests(job, kernel, place)
        linux = scratch / "linux"
        make_short_history(
            linux, place.store.root / "git/kernels.git", kernel.request.source.commit, int(time.time())
        )
        (scratch / "eight.mbox").write_text(run_git(linux, "format-patch", "--stdout", "v0..main") + "\n")
        terminal.stage("bisect", "ours")
        began = time.monotonic()
        argv = [sys.executable, "-m", "orchestrator", "-s", "bisect", "ROW=demo", f"TESTS={TEST}"]
        command.run(
            [*argv, f"SERIES={scratch / 'eight.mbox'}"],
            cwd=ROOT,
            env={"COWBELL_STORE": str(place.store.root)},
            deadline=command.Deadline.after(3600),
        )
        ours_s = time.monotonic() - began
        theirs_s = bisect_by_vng(linux, program.path, scratch, terminal)
    terminal.console.print(f"one of eight patches, load {os.getloadavg()[0]:.1f}, seconds:")
    print(f"{'cowbell bisect':<32}{ours_s:9.1f}")
    print(f"{'git bisect run, vng':<32}{theirs_s:9.1f}")
    print(f"{'vng / cowbell':<32}{theirs_s / ours_s:9.2f}")


def bisect_by_vng(linux: Path, program: Path, scratch: Path, terminal: Terminal) -> float:
    """As a user of vng would write it.

    Its exit status is not that of the command on a host without udev, so its init is asked, as in boot_time.
    """
    env = {"HOME": str(scratch), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    run_git(linux, "checkout", "-q", "v0")
    terminal.stage("build", "the base with vng --build")
    command.run(["vng", "--build"], cwd=linux, env=env, log=scratch / "vng.log")
    options = "--disable-kvm" if os.environ.get("ACCEL") == "tcg" else ""
    step = scratch / "step"
    step.write_text(
        "#!/bin/sh\nvng --build > build.log 2>&1 || exit 125\n"
        f"vng --verbose {options} -- {shlex.quote(str(program))} > test.log 2>&1\n"
        "grep -q 'script exited with code 0' test.log && exit 0\n"
        "grep -q 'script exited with code 1' test.log && exit 1\nexit 125\n"
    )
    step.chmod(0o755)
    terminal.stage("bisect", "git bisect run, vng")
    run_git(linux, "bisect", "start", "main", "v0")
    began = time.monotonic()
    done = command.run(["git", "bisect", "run", str(step)], cwd=linux, env=env, check=False)
    if "is the first bad commit" not in done.output:
        raise command.make_failure(done)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
