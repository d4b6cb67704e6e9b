# SPDX-License-Identifier: GPL-2.0-or-later
"""The demo row's kernel built twice in one run: with an empty ccache, and for a second clone of the tree.

In a throwaway store; about eight minutes on two cores. The second clone has folders of its own.
"""

import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path

from orchestrator.cli.terminal import Terminal
from orchestrator.kernel.build import BuildRequest, build_kernel, find_toolchain
from orchestrator.kernel.kconfig import make_config
from orchestrator.plan.declarations import load_declarations
from orchestrator.project.arch import ARCHES
from orchestrator.source.fetch import fetch_tree
from orchestrator.store.store import Store


def main() -> None:
    declared = load_declarations(Path(__file__).parents[2])
    row = declared.rows["demo"]
    arch = ARCHES[row.arch]
    with tempfile.TemporaryDirectory(prefix="cowbell-", dir="/var/tmp") as scratch, Terminal() as terminal:
        os.environ["CCACHE_DIR"] = f"{scratch}/ccache"
        store = Store(Path(scratch))
        first = fetch_tree(declared.trees[row.tree], store, terminal)
        config = make_config(row.kconfig, declared.fragments, arch, first.version)
        print(f"{'':<14}{'cpu s':>8}{'wall s':>8}{'hits':>8}{'misses':>8}")
        for src in (first, replace(first, tree="second-clone", source_id="second-clone")):
            request = BuildRequest(src, config, arch, find_toolchain(arch))
            kernel = build_kernel(request, store, terminal, limit_s=7200)
            told = json.loads((kernel.folder / "build.json").read_text())
            known = told["ccache"]
            print(
                f"{src.tree:<14}{told['cpu_s']:8.1f}{told['wall_s']:8.1f}{known['hits']:8}{known['misses']:8}",
                flush=True,
            )


if __name__ == "__main__":
    main()
