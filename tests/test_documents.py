# SPDX-License-Identifier: GPL-2.0-or-later
"""Execute every command of the documents, section by section, and compare the output.

In a fenced ``console`` block the output is compared; ``...`` stands for any text. Of a command in an ``sh``
block only the exit status counts. It must be 0. A command inside a sentence is run with ``-n``.

``python -m tests.test_documents`` writes docs/targets.md, docs/glossary.md and the modules of docs/design.md
"""

import ast
import itertools
import os
import re
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.cli.glossary import render_terms
from orchestrator.cli.reference import render_reference
from tests.conftest import BIN, ROOT
from tests.layers import LAYERS, MODULES, PACKAGE, find_path

DESIGN = ROOT / "docs/design.md"
TARGETS = ROOT / "docs/targets.md"
GLOSSARY = ROOT / "docs/glossary.md"
DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted(DESIGN.parent.glob("*.md"))),
)  # fmt: skip

# These commands are run with an option that does everything except the work; all others as written.
INSTEAD: Mapping[str, Mapping[str, str]] = {
    "-n": {
        "make check": "sets up the machine; the test ROW=demo of README is its second half",
        "make test": "runs these tests",
        "make test ARGS=\"-m 'not kernel'\"": "runs these tests",
        "make bench": "takes a quarter of an hour",
        "make picture": "needs a stored run of the row demo",
        "cowbell test ROW=demo KERNEL=~/linux": "builds kernels",
        "cowbell test ROW=demo KERNEL=~/linux:main~1 SERIES=none": "builds a kernel",
        "cowbell test ROW=demo KERNEL=~/linux DIRTY=1": "builds kernels",
        "cowbell test ROW=demo KERNEL=debian-6.1:6.1.170-3 SERIES=none": "builds a kernel",
        "cowbell test ROW=demo SERIES=~/fix.mbox KERNEL=~/linux:main~1": "builds kernels",
        "cowbell test ROW=x86_64-raid5 SERIES=none": "builds a kernel",
        "cowbell test ROW=x86_64-raid5": "builds kernels",
        "cowbell test ROW=x86_64-zram,x86_64-integrity": "builds kernels",
        "cowbell test ROW=x86_64-hugetlbfs TESTS='vmsplice.child-huge*'": "builds kernels",
        "cowbell test ROW=x86_64-numa SERIES=none": "builds a kernel",
        "cowbell test ROW=aarch64-64k": "builds kernels",
        "cowbell test ROW=x86_64-swap KERNEL=debian-6.12 SERIES=none TESTS='kselftest/mm/*'": "it builds",
        "cowbell test ROW=demo BOOT=vng": "tests/test_vng.py runs it",
        "cowbell series-matrix SERIES=cow KERNEL=debian-5.10": "takes an hour",
        "cowbell bisect ROW=demo TESTS=odirect.rd-mprotect KERNEL=~/linux GOOD=main~1 BAD=main": "builds",
        "cowbell test ROW=demo TESTS=./repro.c KERNEL=~/linux:main~1 SERIES=none": "builds a kernel",
        "cowbell test ROW=demo TESTS=./repro.c,fork.basic-cow REPEAT=20": "takes some minutes",
        "cowbell bisect ROW=demo TESTS=./repro.c KERNEL=~/linux GOOD=main~1 BAD=main": "builds",
        "cowbell test ROW=demo SERIES=none TESTS=./repro.c -- -n 5": "as the first one",
        "cowbell test ROW=demo SERIES=none TESTS=./double-free CONFIG+=MODULES=y,MODULE_UNLOAD=y,"
        "SLUB_DEBUG=y APPEND+=slub_debug=FZ": "builds a kernel",
        "cowbell coverage ROW=coverage": "builds a kernel",
        "cowbell test ROW=demo SERIES=none TESTS=fork.basic-cow TRACE=function_graph:do_wp_page": (
            "builds a kernel; tests/test_debug.py records on one"
        ),
        "cowbell test KERNEL=debian-image-6.12": "tests/test_kernel.py tests an image of Debian",
        "cowbell test KERNEL=debian-image-6.12 ARCH=aarch64": "as the one before",
        "cowbell test KERNEL=debian-image-7.3:7.3.4-1~bpo13+1": "the mirror may not have it any more",
        "cowbell test KERNEL=debian-image-6.1:6.1.190-1": "the mirror may not have it any more",
        "cowbell test KERNEL=debian-image-6.1:6.1.192-1": "the mirror may not have it any more",
        "cowbell test ROW=point-releases": "the mirror may not have these versions any more",
        "cowbell gc SIZE=10G": "removes what other tests have built",
        "cowbell worktree SERIES=cow KERNEL=debian-5.10": "tests/test_refresh.py does it to a smaller tree",
    },
    "-p": {
        "cowbell bisect ROW=demo TESTS=odirect.rd-mprotect KERNEL=debian-6.1 GOOD=6.1.192-1 BAD=6.1.170-3": (
            "builds kernels, and the mirror may not have these versions any more"
        ),
        "cowbell bisect ROW=released TESTS=vmsplice.child-thp KERNEL=debian-image GOOD=6.1.192 "
        "BAD=5.10.262": "takes long, and the mirror may not have these versions any more",
        "cowbell diff debian-image-6.1:6.1.190-1 debian-image-6.1:6.1.192-1": "needs results of both",
        "cowbell test KERNEL=/boot/vmlinuz-$(uname -r)": "the machine may have none",
        "cowbell test KERNEL=~/build-6.12": "needs a build folder",
        "cowbell test KERNEL=~/Downloads/bzImage MODULES=~/Downloads/lib/modules/6.12.0": "needs an image",
        "cowbell refresh SERIES=cow KERNEL=debian-5.10": "tests/test_refresh.py does it to a smaller tree",
    },
}
# sections that boot the demo's kernels, or need its source
KERNEL = {
    "README.md: First run",
    "docs/bisect.md: Choose what to bisect",
    "docs/command.md: Common calls",
    "docs/debian-versions.md: Test a version",
    "docs/debug.md: Look at the memory of a guest",
    "docs/debug.md: See the source lines of a splat",
    "docs/extend.md: Add a fragment",
    "docs/extend.md: Add a row",
    "docs/extend.md: Add rows in your own folder",
    "docs/history.md: Show and compare",
    "docs/kselftest.md: The config",
    "docs/mutants.md: List what no test reaches",
    "docs/mutants.md: Measure the tests with mutants",
    "docs/prebuilt.md: Prebuilt kernels",
    "docs/quickstart.md: Quick start",
    "docs/read-a-report.md: Find out why a test fails",
    "docs/read-a-report.md: Look at the evidence",
    "docs/read-a-report.md: Use the results in scripts",
    "docs/reproducers.md: Run a reproducer that you got by mail",
    "docs/test-a-kernel.md: Check the config first",
    "docs/test-a-kernel.md: Choose tests",
    "docs/test-a-kernel.md: Open a shell in the guest",
    "docs/test-a-series.md: See what each patch changes",
    "docs/what-a-pass-covers.md: Code that the tests execute",
    "docs/what-a-pass-covers.md: Mistakes that the tests notice",
    "docs/write-a-test.md: A test in your own folder",
    "docs/write-a-test.md: A test with a child process",
}


@dataclass(frozen=True)
class Command:
    """As it is typed; ``expected`` is None where its output is not in the document.

    ``option`` is one that it is given because of where it stands.
    """

    where: str
    text: str
    expected: str | None
    option: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def read_commands(name: str) -> dict[str, list[Command]]:
    """By section of a document, in their order."""
    found: dict[str, list[Command]] = {}
    section, kind, block, start, indent = "", "", "", 0, ""
    for number, line in enumerate((ROOT / name).read_text().splitlines(), 1):
        where = f"{name}:{number}"
        if not kind and (match := re.match(r"#+ (.*)", line)):
            section = f"{name}: {match[1]}"
        elif match := re.match(r"( *)```(\w*)$", line):
            if kind:
                found.setdefault(section, []).extend(read_block(kind, block, f"{name}:{start}"))
            # a block in a list is indented as its item
            kind, block, start, indent = "" if kind else match[2] or "text", "", number + 1, match[1]
        elif kind:
            block += line.removeprefix(indent) + "\n"
        else:
            spans = re.findall(r"`((?:cowbell|make) [^`[]+)`", line)
            found.setdefault(section, []).extend(Command(where, span, None, "-n") for span in spans)
    return {section: commands for section, commands in found.items() if commands}


def read_block(kind: str, block: str, where: str) -> Iterator[Command]:
    if kind == "sh":
        # a command may be several lines, as a here document is
        for text in re.findall(r"(?:.*<<'EOF'.*\n(?:.*\n)*?EOF\n|.+\n)", block):
            yield Command(where, re.sub(r"\s{2,}# .*\n$", "", text).strip(), None)
    elif kind == "console":
        for entry in re.split(r"^\$ ", block, flags=re.M)[1:]:
            match = re.match(r".*\n(?:>.*\n)*", entry)
            assert match, where
            text = re.sub(r"^> ?", "", match[0], flags=re.M).strip()
            yield Command(where, text, entry[match.end() :])


SECTIONS = {section: commands for name in DOCUMENTS for section, commands in read_commands(name).items()}


def change(command: Command) -> str:
    """A command as it is run here."""
    option = next((option for option, texts in INSTEAD.items() if command.text in texts), command.option)
    return command.text.replace(" ", f" {option} ", 1) if option else command.text


def is_like(printed: str, expected: str) -> bool:
    """Whether a text is as the document has it; runs of spaces are one, and lines of nothing are none."""
    pattern = ""
    for line in expected.splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        elif line.strip():
            pattern += ".*".join(map(re.escape, " ".join(line.split()).split("..."))) + "\n"
    lines = (" ".join(line.split()) for line in printed.splitlines())
    return re.fullmatch(pattern, "".join(f"{line}\n" for line in lines if line)) is not None


@pytest.fixture
def reader(home: Path, tmp_path: Path, history: Path) -> Path:
    """Somebody who reads in a checkout, with an installed command, a kernel, a mail and a folder at home."""
    checkout = tmp_path / "cowbell"
    listed = ["git", "ls-files", "-co", "--exclude-standard"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in done.stdout.splitlines():
        if (ROOT / name).is_file():
            (checkout / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, checkout / name)
    command = checkout / ".venv/bin/cowbell"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nPYTHONPATH={checkout} exec {sys.executable} -m orchestrator "$@"\n')
    command.chmod(0o755)
    subprocess.run(["git", "clone", "-q", history, home / "linux"], check=True)
    mail = ["git", "-C", str(home / "linux"), "format-patch", "--stdout", "-1"]
    row = re.search(r"  - name: demo\n.*?(?=\n\n)", (ROOT / "ci/matrix.yaml").read_text(), re.S)
    assert row
    (home / "project/ci").mkdir(parents=True)
    (home / "project/ci/matrix.yaml").write_text(f"rows:\n{row[0].replace('demo', 'mine', 1)}\n")
    (home / "fix.mbox").write_bytes(subprocess.run(mail, check=True, capture_output=True).stdout)
    return checkout


@pytest.fixture
def kernels(kernel_store_root: Path, tmp_path: Path, reader: Path) -> Path:
    """A store with everything that the tests have built, and with the run of README's first command."""
    store = tmp_path / "kernels"
    store.mkdir()
    for kind in (
        "accel", "apt", "ccache", "configs", "downloads", "git", "jobs", "kernels", "locks",
        "objects", "probe", "programs", "results", "rootfs", "scratch", "trees",
    ):  # fmt: skip
        (kernel_store_root / kind).mkdir(parents=True, exist_ok=True)
        (store / kind).symlink_to(kernel_store_root / kind)
    first = [str(reader / ".venv/bin/cowbell"), "-s", "test", "ROW=demo"]
    env = os.environ | {"COWBELL_STORE": str(store)}
    subprocess.run(first, cwd=reader, env=env, check=True, capture_output=True)
    return store


@pytest.mark.parametrize(
    "section",
    [pytest.param(name, marks=[pytest.mark.kernel] if name in KERNEL else []) for name in SECTIONS],
)
def test_commands_of_a_section(section: str, reader: Path, request: pytest.FixtureRequest) -> None:
    commands = SECTIONS[section]
    env = os.environ | {"COLUMNS": "160"}
    if section in KERNEL:
        env["COWBELL_STORE"] = str(request.getfixturevalue("kernels"))
        env["PATH"] = f"{reader}/.venv/bin:{env['PATH']}"
    else:
        # nothing is fetched where nobody expects it
        env["PATH"] = f"{reader}/.venv/bin:{BIN}:{env['PATH']}"
    mark = "-- what was printed --"
    script = ""
    for command in commands:
        script += f"{change(command)}\nstatus=$?; echo '{mark}' $status; (exit $status)\n"
    done = subprocess.run(
        ["bash", "-c", f"exec 2>&1 < /dev/null\n{script}"],
        cwd=reader,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    *printed, rest = re.split(rf"^{mark} (\d+)\n", done.stdout, flags=re.M)
    assert not rest, rest
    assert len(printed) == 2 * len(commands), done.stdout
    for command, text, status in zip(commands, printed[::2], printed[1::2], strict=True):
        assert status == "0", f"{command}\nexit status {status}\n{text}"
        if command.expected is not None and change(command) == command.text:
            assert is_like(text, command.expected), f"{command}\n{text}\nis not like\n{command.expected}"


def test_what_is_not_run_as_written_is_in_a_document() -> None:
    written = {command.text for commands in SECTIONS.values() for command in commands}
    assert not {text for commands in INSTEAD.values() for text in commands} - written
    assert not KERNEL - set(SECTIONS)


def test_output_that_is_unlike() -> None:
    assert is_like("a  b\n\nmore\nc\n", "a b\n...\nc\n")
    assert is_like("0.3 s, done\n", "... s, done\n")
    for expected in ("a b\nc\n", "a\n...\nc\n", "...\nd\n", "a b\n...\n...\nc\nd\n", ""):
        assert not is_like("a b\nmore\nc\n", expected)


def render_map() -> str:
    """A line per package and module, layer by layer: the first sentence of each docstring."""
    lines = []
    for package in itertools.chain(*LAYERS):
        names = [name for name in MODULES if name.startswith(f"{package}.")]
        told = PACKAGE / package / "__init__.py" if names else find_path(package)
        if not (what := find_sentence(told)):
            continue
        lines += ["", f"**`{package}{'/' if names else ''}`**: {what}", *([""] if names else [])]
        for name in names:
            line = f"- `{name.rpartition('.')[2]}`: {find_sentence(find_path(name))}"
            lines.append(textwrap.fill(line, 110, subsequent_indent="  "))
    return "\n".join(lines) + "\n"


def find_sentence(path: Path) -> str:
    """The first of a module's docstring; empty when it has none."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = re.split(r"(?<=[.?])\s+(?=[A-Z])", " ".join(text.split("\n\n")[0].split()))[0]
    return first.replace("``", "`")


MAP = re.compile(r"(?<=<!-- generated -->\n).*?(?=<!-- end -->)", re.S)


def test_design_lists_every_module() -> None:
    (found,) = MAP.findall(DESIGN.read_text())
    assert found == render_map(), "python -m tests.test_documents writes it"


def test_targets_page_is_what_the_targets_declare() -> None:
    (found,) = MAP.findall(TARGETS.read_text())
    assert found == render_reference(), "python -m tests.test_documents writes it"


def test_glossary_has_the_terms_that_explain_knows() -> None:
    (found,) = MAP.findall(GLOSSARY.read_text())
    assert found == render_terms(), "python -m tests.test_documents writes it"


def list_anchors(path: Path) -> set[str]:
    """The headings of a page as GitLab and GitHub make links of them."""
    headings = re.findall(r"^#+ (.*)", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading).lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_links_lead_to_a_page_and_a_heading(name: str) -> None:
    page = ROOT / name
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", page.read_text()):
        place = page.parent / target if target else page
        assert place.is_file(), f"{name}: {target}"
        assert not anchor or anchor in list_anchors(place), f"{name}: {target}#{anchor}"


def test_readme_links_to_every_page() -> None:
    text = (ROOT / "README.md").read_text()
    assert [name for name in DOCUMENTS[1:] if f"({name}" not in text] == []


@pytest.mark.parametrize(("name", "most"), [("README.md", 150), ("CONTRIBUTING.md", 120)])
def test_first_pages_stay_short(name: str, most: int) -> None:
    assert len((ROOT / name).read_text().splitlines()) <= most


if __name__ == "__main__":
    DESIGN.write_text(MAP.sub(lambda _: render_map(), DESIGN.read_text()))
    GLOSSARY.write_text(MAP.sub(lambda _: render_terms(), GLOSSARY.read_text()))
    TARGETS.write_text(MAP.sub(lambda _: render_reference(), TARGETS.read_text()))
