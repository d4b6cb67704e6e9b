# SPDX-License-Identifier: GPL-2.0-or-later
"""series, worktree and refresh: does a series apply, open it for editing, write it back."""

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target


def run(call: Call) -> int:
    from orchestrator.cli import patching

    show = patching.TARGETS[call.line.targets[0]]
    status, text = show(call.request, call.known, call.place, call.line.options, call.folder)
    call.show(text)
    return status


TARGETS = (
    Target(
        "series",
        "edit patches",
        "list patches of series; with KERNEL=, check whether they apply",
        run,
        (
            ("cowbell series SERIES=cow", "list the patches, and the results that each changes"),
            ("cowbell series SERIES=~/fix.mbox KERNEL=~/linux", "check whether a mail thread applies"),
        ),
        variables=("SERIES", "KERNEL", "DIRTY"),
        extra_options=("--keep-going",),
        products=("series", "patches"),
        more="Without SERIES= it covers every series. Exit status 1: a patch does not apply.",
    ),
    Target(
        "worktree",
        "edit patches",
        "open a series as commits in a git worktree, and print its path",
        run,
        (
            ("cowbell worktree SERIES=cow KERNEL=debian-5.10", "open a series on a tree"),
            ("cowbell worktree SERIES=fix KERNEL=~/linux DIR=~/edit", "open it in a folder of your choice"),
        ),
        variables=("SERIES", "KERNEL", "DIR"),
    ),
    Target(
        "refresh",
        "edit patches",
        "write the commits of a worktree back to patches/SERIES",
        run,
        (
            ("cowbell refresh SERIES=cow KERNEL=debian-5.10", "write the edited patches back"),
            ("cowbell -n refresh SERIES=cow KERNEL=debian-5.10", "print which files would change"),
        ),
        variables=("SERIES", "KERNEL", "DIR"),
        more="The series must be in a user overlay; patches that were not edited keep their bytes.",
    ),
)
