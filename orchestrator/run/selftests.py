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
    """The programs of some tests; all selftests of a source are compiled once, which takes about 15 s.

    Raises ``InfraError`` if the UAPI headers of the kernel cannot be installed.
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
            target.write_text(render_stub(words))
    shutil.rmtree(scratch)


def _compile(name: str, worktree: Path, scratch: Path, compiler: str, target: Path) -> list[str]:
    """Compile a selftest; returns the TAP lines of its stub if there is nothing to run, else none."""
    found = [place for place in (worktree / folder / name for folder in FOLDERS) if place.is_file()]
    if not found:
        return [f"1..0 # SKIP this tree has no {FOLDERS[0]}/{name}"]
    source = found[0]
    if "ksft_set_plan(" not in source.read_text(errors="replace"):
        return [f"1..0 # SKIP {source.relative_to(worktree)} has no TAP plan"]
    argv = [
        compiler, *FLAGS, f"-I{scratch}", f"-I{worktree}", f"-isystem{scratch}/usr/include",
        f"-isystem{worktree}/tools/include/uapi", "-o", str(target), name, str(scratch / "unbuffer.c"),
        *(shared for shared in SHARED if source.with_name(shared).is_file()),
        "-lrt", "-lm",
    ]  # fmt: skip
    # in its folder: some derive file names from __FILE__
    done = command.run(argv, cwd=source.parent, check=False)
    if not done.returncode:
        return []
    output = done.output.replace(f"{worktree}/", "").splitlines()
    if error := command.find_host_error(done, output):
        raise error
    return [
        *(f"# {line}" for line in output[:20]),
        f"Bail out! {source.relative_to(worktree)} does not compile",
    ]


def render_stub(words: Sequence[str]) -> str:
    """A program that prints these TAP lines and exits like a skipped or broken selftest."""
    lines = "\n".join(("TAP version 13", *words))
    return f"#!/bin/sh\ncat <<'END-OF-TAP'\n{lines}\nEND-OF-TAP\nexit {4 if '# SKIP' in lines else 1}\n"
