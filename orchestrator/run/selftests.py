# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the mm selftests of the tree under test for its guest.

Only selftests with a TAP plan and without arguments are listed. They are compiled unmodified, against the
headers of their tree. A selftest that the tree lacks, or that does not compile, is replaced by a program that
reports so in TAP.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

from orchestrator.kernel.build import BuildRequest
from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.selftest import FLAGS, FOLDERS, LOCAL_CONFIG, SHARED, TESTS, UNBUFFERED
from orchestrator.run.runner import Program, make_program_id
from orchestrator.source.repository import checkout
from orchestrator.store.store import Store, make_id


def compile_selftests(
    tests: Sequence[GuestTest], request: BuildRequest, store: Store, progress: Progress
) -> list[Program]:
    """A program for each test, compiled once from a kernel's source, with all that are known (about 15 s).

    Raises ``InfraError`` when the headers that the kernel shows to programs can not be made.
    """
    if not tests:
        return []

    def fill(draft: Path) -> None:
        progress.stage("build", f"selftests of {request.subject}")
        with checkout(request.source, store) as worktree:
            _compile_all(worktree, request, draft)

    ids = {test.id: make_program_id(test, request.toolchain) for test in TESTS}
    folder = store.publish("programs", make_id("selftests", request.source.source_id, ids), fill)
    return [Program(test, ids[test.id], folder / test.path.stem) for test in tests]


def _compile_all(worktree: Path, request: BuildRequest, draft: Path) -> None:
    scratch = draft / "headers"
    scratch.mkdir()
    make = [command.find_tool("make", "make"), *request.toolchain.make_words, *request.source.make_words]
    command.run([*make, "-s", f"O={scratch}", "headers"], cwd=worktree, deadline=command.Deadline.after(600))
    (scratch / "local_config.h").write_text(LOCAL_CONFIG)
    (scratch / "unbuffer.c").write_text(UNBUFFERED)
    for test in TESTS:
        target = draft / test.path.stem
        if words := _compile(test.path.name, worktree, scratch, request.toolchain.compiler, target):
            target.write_text(render_stand_in(words))
    shutil.rmtree(scratch)


def _compile(name: str, worktree: Path, scratch: Path, compiler: str, target: Path) -> list[str]:
    """Compile a selftest; the lines of TAP that stand for it when there is nothing to run."""
    found = [place for place in (worktree / folder / name for folder in FOLDERS) if place.is_file()]
    if not found:
        return [f"1..0 # SKIP this tree has no {FOLDERS[0]}/{name}"]
    source = found[0]
    if "ksft_set_plan(" not in source.read_text(errors="replace"):
        return [f"1..0 # SKIP {source.relative_to(worktree)} does not say in TAP how many results will come"]
    argv = [
        compiler, *FLAGS, f"-I{scratch}", f"-I{worktree}", f"-isystem{scratch}/usr/include",
        f"-isystem{worktree}/tools/include/uapi", "-o", str(target), name, str(scratch / "unbuffer.c"),
        *(shared for shared in SHARED if source.with_name(shared).is_file()),
        "-lrt", "-lm",
    ]  # fmt: skip
    # from its folder: some name their files after __FILE__
    done = command.run(argv, cwd=source.parent, check=False)
    if not done.returncode:
        return []
    said = done.output.replace(f"{worktree}/", "").splitlines()
    if trouble := command.find_host_error(done, said):
        raise trouble
    told = [f"# {line}" for line in said[:20]]
    return [*told, f"Bail out! {source.relative_to(worktree)} does not compile"]


def render_stand_in(words: Sequence[str]) -> str:
    """A program that says these lines of TAP, and ends as a selftest does that was skipped or is broken."""
    lines = "\n".join(("TAP version 13", *words))
    return f"#!/bin/sh\ncat <<'END-OF-WORDS'\n{lines}\nEND-OF-WORDS\nexit {4 if '# SKIP' in lines else 1}\n"
