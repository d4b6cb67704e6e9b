# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's own mm selftests as cases: in comes the tree under test, out come programs for its guest.

Only those are listed that say in TAP how many results will come and need no argument. They are compiled as
the tree has them, against its own headers. What a tree does not have, or what does not compile, becomes a
program that says so in the same words; their sources are never changed.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator import command
from orchestrator.build import BuildRequest
from orchestrator.guesttest import SELFTEST, GuestCase
from orchestrator.progress import Progress
from orchestrator.repository import checkout
from orchestrator.run import Program, make_program_id
from orchestrator.store import Store, make_id

SELFTESTS: Mapping[str, str] = {
    "cow": "copy-on-write between parent and child, also with pins, huge pages and zero pages",
    "gup_longterm": "long-term pins of shared and private mappings of files",
    "hugetlb_dio": "direct writes from huge pages of hugetlbfs give them back",
    "ksm_functional_tests": "merging, unmerging and what may not be merged",
    "madv_populate": "page tables populated for reading and for writing",
    "mkdirty": "no page that may not be written becomes writable because it is dirty",
    "pagemap_ioctl": "written pages found and write-protected by PAGEMAP_SCAN",
    "soft-dirty": "soft-dirty bits after writes, mremap and mprotect",
    "split_huge_page_test": "huge pages split by debugfs keep their bytes",
}

# selftests/vm until 6.2
_FOLDERS = ("tools/testing/selftests/mm", "tools/testing/selftests/vm")
# as the Makefile there, but static: a guest owes them no library
_FLAGS = ("-O2", "-w", "-static", "-pthread", "-D_GNU_SOURCE=", "-U_FORTIFY_SOURCE")
_SHARED = ("vm_util.c", "thp_settings.c")
# a program that is killed has said what it had to say, and a child of it does not say it again
_UNBUFFERED = """#include <stdio.h>
static void __attribute__((constructor)) cowbell_unbuffer(void) { setvbuf(stdout, NULL, _IOLBF, 0); }
"""
# what the Makefile there finds out; without liburing its tests are left out
_LOCAL_CONFIG = ""
# of how they are compiled and run
_FORMAT = 2


def _make_case(name: str) -> GuestCase:
    return GuestCase(
        id=f"upstream/{name}",
        path=Path(_FOLDERS[0], f"{name}.c"),
        language=SELFTEST,
        # the tree's part in it is known by the kernel that was built from it
        content_id=make_id(name, _FLAGS, _SHARED, _UNBUFFERED, _LOCAL_CONFIG, _FORMAT),
        summary=SELFTESTS[name],
        kind="deterministic",
        timeout_s=180,
        needs_root=True,
        # it gets a guest of its own: knobs that it turns are not turned back for others
        may_crash=True,
    )


CASES = tuple(_make_case(name) for name in SELFTESTS)


def compile_selftests(
    cases: Sequence[GuestCase], request: BuildRequest, store: Store, progress: Progress
) -> list[Program]:
    """A program for each case, compiled once from a kernel's source, with all that are known (about 15 s).

    Raises ``InfraError`` when the headers that the kernel shows to programs can not be made.
    """
    if not cases:
        return []

    def fill(draft: Path) -> None:
        progress.stage("build", f"selftests of {request.subject}")
        with checkout(request.source, store) as worktree:
            _compile_all(worktree, request, draft)

    ids = {case.id: make_program_id(case, request.toolchain) for case in CASES}
    folder = store.publish("programs", make_id("selftests", request.source.source_id, ids), fill)
    return [Program(case, ids[case.id], folder / case.path.stem) for case in cases]


def _compile_all(worktree: Path, request: BuildRequest, draft: Path) -> None:
    scratch = draft / "headers"
    scratch.mkdir()
    make = [command.find_tool("make", "make"), *request.toolchain.make_words, *request.source.make_words]
    command.run([*make, "-s", f"O={scratch}", "headers"], cwd=worktree, deadline=command.Deadline.after(600))
    (scratch / "local_config.h").write_text(_LOCAL_CONFIG)
    (scratch / "unbuffer.c").write_text(_UNBUFFERED)
    for case in CASES:
        target = draft / case.path.stem
        if words := _compile(case.path.name, worktree, scratch, request.toolchain.compiler, target):
            target.write_text(render_stand_in(words))
    shutil.rmtree(scratch)


def _compile(name: str, worktree: Path, scratch: Path, compiler: str, target: Path) -> list[str]:
    """Compile a selftest; the lines of TAP that stand for it when there is nothing to run."""
    found = [place for place in (worktree / folder / name for folder in _FOLDERS) if place.is_file()]
    if not found:
        return [f"1..0 # SKIP this tree has no {_FOLDERS[0]}/{name}"]
    source = found[0]
    if "ksft_set_plan(" not in source.read_text(errors="replace"):
        return [f"1..0 # SKIP {source.relative_to(worktree)} does not say in TAP how many results will come"]
    argv = [
        compiler, *_FLAGS, f"-I{scratch}", f"-I{worktree}", f"-isystem{scratch}/usr/include",
        f"-isystem{worktree}/tools/include/uapi", "-o", str(target), name, str(scratch / "unbuffer.c"),
        *(shared for shared in _SHARED if source.with_name(shared).is_file()),
        "-lrt", "-lm",
    ]  # fmt: skip
    # from its folder: some name their files after __FILE__
    done = command.run(argv, cwd=source.parent, check=False)
    if not done.returncode:
        return []
    said = done.output.replace(f"{worktree}/", "").splitlines()
    if trouble := command.find_host_trouble(done, said):
        raise trouble
    told = [f"# {line}" for line in said[:20]]
    return [*told, f"Bail out! {source.relative_to(worktree)} does not compile"]


def render_stand_in(words: Sequence[str]) -> str:
    """A program that says these lines of TAP, and ends as a selftest does that was skipped or is broken."""
    lines = "\n".join(("TAP version 13", *words))
    return f"#!/bin/sh\ncat <<'END-OF-WORDS'\n{lines}\nEND-OF-WORDS\nexit {4 if '# SKIP' in lines else 1}\n"
