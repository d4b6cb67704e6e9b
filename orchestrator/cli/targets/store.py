# SPDX-License-Identifier: GPL-2.0-or-later
"""clean and gc: disk space of the store."""

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target
from orchestrator.project.yamlfile import size_mib
from orchestrator.store import gc


def run_clean(call: Call) -> int:
    return _collect(call, 0, gc.CLEANED)


def run_gc(call: Call) -> int:
    return _collect(call, size_mib(call.value("SIZE")), gc.KINDS)


def _collect(call: Call, limit_mib: int, kinds: tuple[str, ...]) -> int:
    found = gc.collect(call.store, limit_mib << 20, kinds, is_dry_run=call.is_dry_run)
    return call.show_product("gc", gc.render_text, found)


TARGETS = (
    Target(
        "clean",
        "set up and look up",
        "delete object files, worktrees and compiled tests",
        run_clean,
        (
            ("cowbell clean", "delete them; images and results stay"),
            ("cowbell -n clean", "print what would be deleted"),
        ),
        products=("gc",),
    ),
    Target(
        "gc",
        "set up and look up",
        "delete the least recently used artifacts of the store",
        run_gc,
        (
            ("cowbell gc", "keep at most 20 GB"),
            ("cowbell -n gc SIZE=5G", "print what would be deleted to keep 5 GB"),
        ),
        variables=("SIZE",),
        products=("gc",),
    ),
)
