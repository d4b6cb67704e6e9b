# SPDX-License-Identifier: GPL-2.0-or-later
"""Source lines of stack frames: calls, exact addresses, inlined functions, and functions of one name."""

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.kernel.build import BuildRequest, Kernel, Toolchain
from orchestrator.kernel.fragment import SymbolRequest
from orchestrator.kernel.kconfig import Config
from orchestrator.kernel.symbols import find_source_lines, read_functions, show_source_lines
from orchestrator.parse.codeplace import add_source_lines, find_code_places
from orchestrator.parse.console import parse_console
from tests.conftest import read_log
from tests.kernels import SOURCE, X86
from tests.samples import CONSOLE, GOOD, WARNING, judge

INNER = """int seen;
__attribute__((noinline)) static int twin(int n)
{
	return n + seen;
}
static inline __attribute__((always_inline)) int inner(int n)
{
	seen++;
	return twin(n);
}
__attribute__((noinline)) int middle(int n)
{
	n++;
	return inner(n) + 1;
}
"""
OTHER = """extern int seen;
__attribute__((noinline)) static int twin(int n)
{
	for (int i = 0; i < n; i++)
		seen += i * n + seen / (i + 1) + seen % (n + 2) + (seen << i) + (seen >> n) + (seen ^ n) * 7;
	return seen;
}
int middle(int n);
int main(int argc, char **argv)
{
	return middle(argc) + twin(argc);
}
"""


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """An image made of two files that each have a function twin."""
    sources = tmp_path / "linux"
    for name, text in (("mm/inner.c", INNER), ("init/other.c", OTHER)):
        (sources / name).parent.mkdir(parents=True)
        (sources / name).write_text(text)
    folder = tmp_path / "kernel"
    folder.mkdir()
    words = ("-O2", "-g", "-fno-ipa-icf", "-fno-ipa-cp", "-fno-ipa-sra", "-o", folder / "vmlinux")
    subprocess.run(["gcc", *words, sources / "mm/inner.c", sources / "init/other.c"], check=True)
    (folder / "build.json").write_text(json.dumps({"source_dir": str(sources)}))
    asked = SymbolRequest("DEBUG_INFO", "y", "")
    request = BuildRequest(SOURCE, Config("id", "x86_64", (asked,), ""), X86, Toolchain("gcc", (), ""))
    return Kernel(request, folder, folder / "vmlinux", "0123")


def find_call(kernel: Kernel, caller: str, callee: str) -> tuple[int, int]:
    """The offset after the call in a function, and the size of that."""
    words = ["objdump", "-d", f"--disassemble={caller}", str(kernel.folder / "vmlinux")]
    code = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    listed = re.findall(r"^\s+([0-9a-f]+):\t(?:[0-9a-f]{2} )+\s*(.*)$", code, re.M)
    (function,) = (one for one in read_functions(kernel.folder / "vmlinux") if one.name == caller)
    (at,) = (n for n, (_, text) in enumerate(listed) if text.startswith("call") and f"<{callee}" in text)
    return int(listed[at + 1][0], 16) - function.address, function.size


def test_a_call_has_the_lines_of_the_call(kernel: Kernel) -> None:
    """The address in a frame is that of the next instruction; inlined functions come first."""
    offset, size = find_call(kernel, "middle", "twin")
    frame = f"middle+{offset:#x}/{size + 8:#x}"
    log = f"[    1.000000]  ? {frame}\nRIP: 0010:main+0x0/0x20\n"
    assert find_source_lines(kernel, log)[frame] == "mm/inner.c:9 mm/inner.c:14"
    shown = show_source_lines(kernel, log)
    assert f"? {frame} (mm/inner.c:9 mm/inner.c:14)\n" in shown
    assert "RIP: 0010:main+0x0/0x20 (init/other.c:10)\n" in shown


def test_functions_of_one_name_are_told_apart_by_size_or_not_at_all(kernel: Kernel) -> None:
    small, large = sorted(one.size for one in read_functions(kernel.folder / "vmlinux") if one.name == "twin")
    assert large - small > 64
    told = {size: find_source_lines(kernel, f"RIP: 0010:twin+0x0/{size:#x}\n") for size in (small, large)}
    assert [next(iter(lines.values())) for lines in told.values()] == ["mm/inner.c:4", "init/other.c:3"]
    assert find_source_lines(kernel, "RIP: 0010:twin+0x0/0x1\nRIP: 0010:nowhere+0x0/0x10\n") == {}


def test_a_module_has_its_own_file(kernel: Kernel, tmp_path: Path) -> None:
    modules = kernel.folder / "guest-modules"
    modules.mkdir()
    source = tmp_path / "linux/mm/inner.c"
    subprocess.run(["gcc", "-O2", "-g", "-c", "-o", modules / "cowpin.ko", source], check=True)
    log = "RIP: 0010:middle+0x0/0x20 [cowpin]\nRIP: 0010:middle+0x0/0x20 [absent]\n"
    assert find_source_lines(kernel, log) == {"middle+0x0/0x20 [cowpin]": "mm/inner.c:13"}


def test_without_debug_info_nothing_is_read(kernel: Kernel) -> None:
    config = replace(kernel.request.config, requests=())
    plain = replace(kernel, request=replace(kernel.request, config=config))
    assert show_source_lines(plain, "RIP: 0010:main+0x0/0x20\n") == "RIP: 0010:main+0x0/0x20\n"


@pytest.mark.parametrize("name", ["warning", "oops-panic", "arm64-oops", "kasan", "rcu-stall", "soft-lockup"])
def test_source_lines_change_no_report(name: str) -> None:
    log = read_log(name)
    places = find_code_places(log)
    assert places
    shown = add_source_lines(log, dict.fromkeys(places, "mm/a.c:1 mm/b.c:22"))
    assert shown.count("mm/b.c:22") >= len(places)
    before, after = parse_console(log), parse_console(shown)
    assert [(s.kind, s.fingerprint, s.frames) for s in after.splats] == [
        (s.kind, s.fingerprint, s.frames) for s in before.splats
    ]


def test_evidence_of_a_crash_has_source_lines() -> None:
    lines = {"handle_mm_fault+0x8c1/0x1270": "mm/memory.c:4567"}
    (verdict,) = judge(replace(GOOD, console=CONSOLE + WARNING, source_lines=lines))
    assert " handle_mm_fault+0x8c1/0x1270 (mm/memory.c:4567)\n" in verdict.evidence
