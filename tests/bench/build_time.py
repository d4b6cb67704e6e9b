# SPDX-License-Identifier: GPL-2.0-or-later
"""CPU time of a cold build: the demo row's config against ``vng --build`` of the same tree, in one run.

Both build without ccache, one after the other, in a throwaway store. Run it with ``make bench``; on two cores
it takes about half an hour. The figure to quote is the last line's ratio.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.kernel.build import BuildRequest, build_kernel, find_toolchain
from orchestrator.kernel.kconfig import make_config
from orchestrator.plan.declarations import load_declarations
from orchestrator.process import command
from orchestrator.project.arch import ARCHES
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import checkout
from orchestrator.store.store import Store


def main() -> None:
    os.environ["CCACHE_DISABLE"] = "1"
    declared = load_declarations(Path(__file__).parents[2])
    row = declared.rows["demo"]
    arch = ARCHES[row.arch]
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as scratch, Terminal() as terminal:
        store = Store(Path(scratch))
        src = fetch_tree(declared.trees[row.tree], store, terminal)
        config = make_config(row.kconfig, declared.fragments, arch, src.version)
        request = BuildRequest(src, config, arch, find_toolchain(arch))
        kernel = build_kernel(request, store, terminal, limit_s=7200)
        ours = json.loads((kernel.folder / "build.json").read_text())
        with checkout(src, store) as worktree:
            terminal.stage("build", f"{src.tree} with vng --build")
            vng = command.run(
                ["vng", "--build"],
                cwd=worktree,
                env={"HOME": scratch, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
                deadline=command.Deadline.after(7200),
                log=Path(scratch) / "vng.log",
            )
            objects = sum(1 for _ in worktree.rglob("*.o"))
    terminal.console.print(f"{src.tree} {src.version}, cold, {os.cpu_count()} cores, seconds:")
    print(f"{'':<24}{'cpu':>9}{'wall':>9}")
    print(f"{'cowbell, demo row':<24}{ours['cpu_s']:9.1f}{ours['wall_s']:9.1f}")
    print(f"{'vng --build':<24}{vng.cpu_s:9.1f}{vng.wall_s:9.1f}   ({objects} objects)")
    print(f"{'ratio of CPU time':<24}{ours['cpu_s'] / vng.cpu_s:9.2f}")


if __name__ == "__main__":
    main()
