# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest library on the host: each header stands alone, and its constants are the kernel's."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.parse.ktap import Rate, parse_ktap
from orchestrator.project.guesttest import GuestTest, compile_command, load_tests
from tests.guestprograms import GUEST_TESTS, LIB, make_argv, run_test, write_test

# the second half of guesttest.h is no header of its own
HEADERS = sorted(path for path in LIB.glob("*.h") if path.name != "guesttest-main.h")
TESTS = load_tests(GUEST_TESTS)
# all of them come with `ci/setup dev`: one that is missing is a failure
COMPILERS = ("gcc", "clang", "aarch64-linux-gnu-gcc", "clang --target=aarch64-linux-gnu")
SANITIZERS = ["-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

DECLARATION = """
GUEST_TEST = {
	.summary = "s",
	.kind = "deterministic",
	.timeout_s = 5,
	.run = run,
};
"""


def run_text(text: str, folder: Path) -> tuple[int, list[str]]:
    test = write_test(folder, "t.c", text + DECLARATION)
    return run_test(make_argv(test, folder))


@pytest.mark.parametrize("header", HEADERS, ids=lambda path: path.name)
def test_header_is_short_and_stands_alone(header: Path, tmp_path: Path) -> None:
    assert len(header.read_text().splitlines()) <= 200
    text = f'#include "{header.name}"\n#include "guesttest.h"\nstatic void run(void) {{ gt_pass("fine"); }}\n'
    test = write_test(tmp_path, "t.c", text + DECLARATION)
    argv = compile_command(test, "cc", LIB, tmp_path / "t.elf")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL, timeout=60)


@pytest.mark.parametrize("cc", COMPILERS)
def test_every_test_compiles_without_a_warning(cc: str, tmp_path: Path) -> None:
    broken = []
    for test in TESTS:
        if test.language == "c":
            # some warnings come from the optimiser: one compiler goes on to the assembly
            how = "-S" if cc == COMPILERS[0] else "-fsyntax-only"
            argv = [*cc.split(), *compile_command(test, cc, LIB, tmp_path / "t")[1:], how]
            done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            broken += [done.stderr] if done.returncode else []
    assert not broken, "\n".join(broken)


def test_page_size_is_never_written_down() -> None:
    """What says 4096 means a page, and is wrong on the next architecture; a pipe's slot is the exception."""
    numbers = re.compile(r"\b(4096|0x1000|1\s*<<\s*12|getpagesize)\b")
    allowed = {"splice-pagecache.py"}
    for path in sorted(GUEST_TESTS.rglob("*.[hcp]*")):
        if path.suffix not in (".h", ".c", ".py") or path.name in allowed:
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not numbers.search(line), f"{path}:{number}: {line}"


@pytest.mark.parametrize(("ending", "told"), [('gt_pass("x")', "gives back"), ('gt_skip("x")', "gives back")])
def test_at_end_is_called_once_by_the_owner(ending: str, told: str, tmp_path: Path) -> None:
    text = """#include "guesttest.h"
static void give_back(void) { gt_note("gives back"); }
static void run(void)
{
	gt_at_end(give_back);
	pid_t pid = gt_fork();
	if (!pid) gt_pass("a helper");
	gt_reap(pid);
	%s;
}
"""
    status, lines = run_text(text % ending, tmp_path)
    assert status == 0
    assert lines.count(f"# {told}") == 1
    assert lines.index("# helper: a helper") < lines.index(f"# {told}")


def test_page_verbs_on_the_host(tmp_path: Path) -> None:
    """What needs no privilege: the pagemap shows presence, and mprotect there and back keeps the bytes."""
    text = """#include "pagestate.h"
static void run(void)
{
	char *page = page_map(2, 7);

	gt_need(page_entry(page) & PAGE_PRESENT, "a page that was written is present");
	gt_need(!madvise(page + page_size(), page_size(), MADV_DONTNEED), "MADV_DONTNEED");
	gt_need(!(page_entry(page + page_size()) & (PAGE_PRESENT | PAGE_SWAPPED)), "a dropped page is not");
	page_mprotect_cycle(page, page_size());
	page_touch(page, 8);
	gt_check(page[0] == 8 && page[1] == 7, "the bytes");
	gt_pass("fine");
}
"""
    assert run_text(text, tmp_path)[0] == 0


def test_swap_that_is_not_there_is_a_skip(tmp_path: Path) -> None:
    text = '#include "swap.h"\nstatic void run(void) { swap_need(); gt_pass("some"); }\n'
    status, lines = run_text(text, tmp_path)
    has_swap = len(Path("/proc/swaps").read_text().splitlines()) > 1
    assert status == 0
    assert ("SKIP no swap is active" in lines[-1]) is not has_swap


def test_python_knows_the_numbers_that_c_knows(tmp_path: Path) -> None:
    """The test in Python has no headers: its numbers are those of the C library's."""
    text = """#include "cowpin.h"
#include "uffd.h"
static void run(void)
{
	printf("# %lx %lx %lx %d %lx %lx %d\\n", (long)UFFDIO_API, (long)UFFDIO_REGISTER, (long)UFFDIO_ZEROPAGE,
		SYS_userfaultfd, (long)COWPIN_IOC_PIN, (long)COWPIN_IOC_READ, SYS_finit_module);
	gt_pass("fine");
}
"""
    _, lines = run_text(text, tmp_path)
    script = (
        "import platform; from uffd import *; from cowpin import IOC_PIN, IOC_READ, SYS_FINIT_MODULE;"
        "orders = [(NUMBER_API, 24), (NUMBER_REGISTER, 32), (NUMBER_ZEROPAGE, 32)];"
        "print('#', *(f'{ioctl_number(*order):x}' for order in orders), SYS_USERFAULTFD[platform.machine()],"
        "f'{IOC_PIN:x} {IOC_READ:x}', SYS_FINIT_MODULE[platform.machine()])"
    )
    env = {**os.environ, "PYTHONPATH": str(LIB), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == lines[2], done.stderr


def test_rates_are_said_in_one_form_and_read(tmp_path: Path) -> None:
    text = '#include "rate.h"\nstatic void run(void) { gt_rate(3, 1800); gt_pass("fine"); }\n'
    _, lines = run_text(text, tmp_path)
    env = {**os.environ, "PYTHONPATH": str(LIB), "PYTHONDONTWRITEBYTECODE": "1"}
    script = [sys.executable, "-c", "from rate import gt_rate; gt_rate(3, 1800)"]
    done = subprocess.run(script, env=env, capture_output=True, text=True)
    assert done.stdout.strip() == lines[2], done.stderr
    (result,) = parse_ktap("\n".join([*lines, ""])).results
    assert result.rate == Rate(3, 1800)


@pytest.mark.parametrize(
    "test",
    [c for c in TESTS if c.language == "c" and not c.needs_root and c.kind == "deterministic"],
    ids=lambda test: test.id,
)
def test_unprivileged_test_under_sanitizers(test: GuestTest, tmp_path: Path) -> None:
    """On whatever kernel runs here: the verdict is the kernel's affair, but no test may break."""
    argv = [word for word in compile_command(test, "gcc", LIB, tmp_path / "t") if word != "-static"]
    subprocess.run([*argv, *SANITIZERS], check=True, stdin=subprocess.DEVNULL, timeout=60)
    env = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [str(tmp_path / "t")], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert not done.stderr
