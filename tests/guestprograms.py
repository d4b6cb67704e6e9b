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
    done = subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
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


# a reproducer that was never a test of ours: a child reads what its parent writes later; small: no huge page
LEAK = """/* cowbell: needs=TRANSPARENT_HUGEPAGE=y timeout=30 user=nobody */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define HUGE (2 << 20)

int main(int argc, char **argv)
{
	unsigned long size = argc > 1 && !strcmp(argv[1], "small") ? 4096 : HUGE;
	char *area = mmap(NULL, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *page = (char *)(((unsigned long)area + HUGE - 1) & -HUGE), byte = 0;
	int data[2], taken[2], written[2], status;

	if (pipe(data) || pipe(taken) || pipe(written))
		return 4;
	if (madvise(page, HUGE, size == HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE))
		return 4;
	memset(page, 'o', size);
	if (!fork()) {
		struct iovec part = { page, 1 };

		/* the pipe refers to the page, which the child then unmaps: only the parent maps it */
		if (vmsplice(data[1], &part, 1, 0) != 1 || munmap(page, size))
			_exit(4);
		write(taken[1], "", 1);
		read(written[0], &byte, 1);
		read(data[0], &byte, 1);
		_exit(byte != 'o');
	}
	read(taken[0], &byte, 1);
	memset(page, 's', size);
	write(written[1], "", 1);
	wait(&status);
	if (status)
		fprintf(stderr, "the child read what its parent wrote later\\n");
	return WEXITSTATUS(status);
}
"""

# as fuzzers generate them: processes that do a few calls each, for ever
FUZZED = """#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static void execute_one(unsigned int call, int procid)
{
	uint64_t area = 0x20000000ul + procid * 0x1000000ul;

	syscall(SYS_mmap, area, 0x8000ul, 3ul, 0x32ul, -1, 0ul);
	switch (call % 5) {
	case 0:
		syscall(SYS_mprotect, area + 0x1000, 0x2000ul, 1ul);
		break;
	case 1:
		syscall(SYS_remap_file_pages, area, 0x8000ul, 0ul, 0ul, 0ul);
		break;
	case 2:
		syscall(SYS_munlockall);
		break;
	case 3:
		syscall(SYS_mremap, area, 0x4000ul, 0x6000ul, 1ul, 0ul);
		break;
	default:
		syscall(SYS_madvise, area, 0x8000ul, 4ul);
	}
	syscall(SYS_munmap, area, 0x8000ul);
}

static void loop(int procid)
{
	unsigned int iter;

	for (iter = 0;; iter++) {
		int status, pid = fork();

		if (pid < 0)
			exit(1);
		if (!pid) {
			execute_one(iter + procid, procid);
			_exit(0);
		}
		usleep(5000);
		kill(-pid, SIGKILL);
		kill(pid, SIGKILL);
		waitpid(pid, &status, 0);
	}
}

int main(void)
{
	int procid;

	for (procid = 0; procid < 4; procid++)
		if (!fork())
			loop(procid);
	sleep(1000000);
	return 0;
}
"""
