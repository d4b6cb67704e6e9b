# SPDX-License-Identifier: GPL-2.0-or-later
"""Write, compile and run guest tests on the host."""

import os
import subprocess
import sys
from pathlib import Path

from orchestrator.project.guesttest import GuestTest, compile_command, load_tests
from tests.conftest import ROOT

GUEST_TESTS = ROOT / "guest-tests"
LIB = GUEST_TESTS / "lib"


def write_test(root: Path, name: str, text: str) -> GuestTest:
    """Write the source of the test ``family.NAME`` below a folder, and load it."""
    path = root / "family" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return next(test for test in load_tests(root) if test.path == path)


def make_argv(test: GuestTest, out_dir: Path) -> list[str]:
    """The argv that runs the test here; compiles it first if need be."""
    if test.language == "python":
        return [sys.executable, str(test.path)]
    out = out_dir / f"{test.id}.elf"
    subprocess.run(compile_command(test, "cc", LIB, out), check=True, stdin=subprocess.DEVNULL, timeout=60)
    return [str(out)]


def run_test(argv: list[str], **env: str) -> tuple[int, list[str]]:
    """Exit status, negative for a signal, and the lines of stdout."""
    environment = {**os.environ, "PYTHONPATH": str(LIB), "PYTHONDONTWRITEBYTECODE": "1", **env}
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    return done.returncode, done.stdout.decode().splitlines()


def render_test(body: str, *, timeout_s: int, may_crash: bool = False, head: str = "") -> str:
    """The source of a test in C with a body of ``run``."""
    return f"""#include "guesttest.h"
{head}
static void run(void)
{{
	{body}
}}

GUEST_TEST = {{
	.summary = "a fault",
	.kind = "deterministic",
	.timeout_s = {timeout_s},
	.may_crash = {str(may_crash).lower()},
	.run = run,
}};
"""
