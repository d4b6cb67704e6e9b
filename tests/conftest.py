# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test gets: a home of its own, and for real kernels a store that lasts from run to run.

The rest make do with the programs of ``tests/bin`` and the small kernel of ``tests/fakelinux``.
"""

import contextlib
import difflib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.cli.variables import VARIABLES
from orchestrator.guest.vng import FRAGMENT
from orchestrator.plan.declarations import load_declarations
from orchestrator.project.selftest import FRAGMENT as SELFTEST_FRAGMENT
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source
from orchestrator.source.series import Series, load_series
from orchestrator.source.tree import DebianTree
from orchestrator.status import Status
from orchestrator.store.store import Store

ROOT = Path(__file__).parents[1]
BIN = Path(__file__).with_name("bin")
LOGS = Path(__file__).with_name("logs")
FAKELINUX = Path(__file__).with_name("fakelinux")
FAKE_TREE = DebianTree("fake-5.10", "linux-source-5.10", "bullseye-security")
TWO_SUITES = replace(FAKE_TREE, suite="bullseye-security bookworm")
# before any test moves the home: kernels are built once, and ccache is the user's
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
OWN_RESULTS = ("test_aarch64", "test_container", "test_debug", "test_guestsetup", "test_snapshot")
# a shell that starts a test run behind its back has it ignore ^C, and all that is started would ignore it
signal.signal(signal.SIGINT, signal.default_int_handler)


# before xdist reads the groups
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Two tests with a kernel at a time: one builds while the other's guest is waited for.

    Those of the second group keep guests out of the store's results, where the others look for some.
    """
    for item in items:
        if item.get_closest_marker("kernel"):
            group = "kernel-2" if item.path.stem in OWN_RESULTS else "kernel"
            item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(wrapper=True)
def pytest_report_teststatus(
    report: pytest.TestReport | pytest.CollectReport,
) -> Generator[None, tuple[str, str, str] | None, tuple[str, str, str] | None]:
    """A test with a kernel takes minutes: it has a line with the time, so that a log cut short says where."""
    status = yield
    if status and status[1] and "kernel" in getattr(report, "keywords", ()):
        at = time.strftime("%H:%M:%S")
        name = report.nodeid.removesuffix("@kernel-2").removesuffix("@kernel")
        return status[0], f"\n{at} {status[1]} {name}\n", status[2]
    return status


@pytest.fixture(scope="session")
def kernel_store_root() -> Path:
    return CACHE / "cowbell-tests"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "MAKEFLAGS", "MAKELEVEL"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("COWBELL_STORE", str(tmp_path / "store"))


@pytest.fixture
def home(own_home: None, tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture(scope="session")
def setup_kconfig() -> tuple[str, ...]:
    """For guest setup, vng and selftests: their tests share one kernel, as a build takes minutes."""
    rows = load_declarations(ROOT).rows.values()
    (found,) = {row.kconfig for row in rows if row.name.startswith("x86_64-")}
    return (*found, FRAGMENT, SELFTEST_FRAGMENT)


@pytest.fixture(scope="session")
def kernel_store(kernel_store_root: Path) -> Store:
    return Store(kernel_store_root)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@dataclass
class QuietProgress:
    """A ``Progress`` that keeps what it is told."""

    stages: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[int, int | None, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    verdicts: list[tuple[Status, str]] = field(default_factory=list)

    def stage(self, name: str, subject: str) -> None:
        self.stages.append((name, subject))

    def count(self, done: int, about: int | None, unit: str) -> None:
        self.counts.append((done, about, unit))

    def verdict(self, status: Status, text: str) -> None:
        self.verdicts.append((status, text))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def detail(self, text: str) -> None:
        pass

    def command(self, line: str) -> None:
        pass

    def expect(self, seconds: float) -> None:
        pass

    def for_job(self, name: str) -> "QuietProgress":
        return self

    def end_job(self, name: str, outcome: str) -> None:
        pass

    def overall(self, done: int, total: int, left_s: float | None) -> None:
        pass


@pytest.fixture
def progress() -> QuietProgress:
    return QuietProgress()


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The programs of ``tests/bin`` come before the machine's."""
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    return BIN


@pytest.fixture(scope="session")
def fake_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``tests/fakelinux`` the way Debian ships kernel sources: an archive inside a package."""
    return make_package(tmp_path_factory.mktemp("package"), "5.10.226-1")


def make_package(folder: Path, version: str) -> Path:
    """A package of ``tests/fakelinux`` in a version, which the kernel of any but the first has in it."""
    tree = folder / FAKE_TREE.package
    shutil.copytree(FAKELINUX, tree)
    # what a kernel ships may match what it ignores
    (tree / ".gitignore").write_text("*.awk\n")
    if version != "5.10.226-1":
        with (tree / "init/main.c").open("a") as file:
            file.write(f'\nconst char debian_version[] __attribute__((used)) = "{version}";\n')
    content = folder / "content"
    for name in ("DEBIAN", "usr/src"):
        (content / name).mkdir(parents=True)
    (content / "DEBIAN/control").write_text(
        f"Package: {FAKE_TREE.package}\nVersion: {version}\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: a kernel of three files\n"
    )
    archive = content / f"usr/src/{FAKE_TREE.package}.tar.xz"
    subprocess.run(["tar", "-C", folder, "-cJf", archive, tree.name], check=True)
    package = folder / f"{FAKE_TREE.package}_{version.replace(':', '%3a')}_all.deb"
    subprocess.run(
        ["dpkg-deb", "-b", "--root-owner-group", content, package], check=True, capture_output=True
    )
    return package


@dataclass(frozen=True)
class Mirror:
    """What the fake apt-get serves, and what it was asked."""

    folder: Path
    log: Path

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    @property
    def verbs(self) -> list[str]:
        """The last word of each call that needs the network: update, or PACKAGE=VERSION."""
        return [line.split()[-1] for line in self.asked if "indextargets" not in line]

    def add(self, version: str, suite: str = FAKE_TREE.suite) -> None:
        """Serve a version in a suite; its content is what its version says."""
        folder = self.folder.parent / suite
        folder.mkdir(exist_ok=True)
        made = self.log.parent / "packages" / version
        if not made.exists():
            make_package(made, version)
        (package,) = made.glob("*.deb")
        (folder / package.name).symlink_to(package)

    def remove(self, version: str, suite: str = FAKE_TREE.suite) -> None:
        (package,) = (self.folder.parent / suite).glob(f"*_{version}_*.deb")
        package.unlink()

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Nothing can be updated or downloaded meanwhile."""
        switch = self.log.with_name("no-network")
        switch.touch()
        yield
        switch.unlink()


@pytest.fixture
def mirror(home: Path, fakes: Path, fake_package: Path) -> Mirror:
    folder = home / "mirror" / FAKE_TREE.suite
    folder.mkdir(parents=True)
    (folder / fake_package.name).symlink_to(fake_package)
    return Mirror(folder, home / "apt.log")


@pytest.fixture
def base(mirror: Mirror, store: Store, progress: QuietProgress) -> Source:
    """The fetched tree of ``fake_package``, without a series."""
    return fetch_tree(FAKE_TREE, store, progress)


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkout that ``tests/gitserver.py`` describes; to be read, and cloned to be changed."""
    from tests.gitserver import make_history

    place = tmp_path_factory.mktemp("history") / "linux"
    make_history(place)
    return place


MakeSeries = Callable[..., Series]


@pytest.fixture
def make_series(tmp_path: Path) -> MakeSeries:
    """``make_series(name, {file: (old, new)}, ...)``: a loaded series, a patch a mapping.

    An empty ``old`` adds the file; otherwise the first ``old`` in the file becomes ``new``. Every patch is
    made against the tree as it comes.
    """

    def make(name: str, *patches: Mapping[str, tuple[str, str]], when: str = "") -> Series:
        folder = tmp_path / "patches" / name
        folder.mkdir(parents=True)
        files = []
        for number, edits in enumerate(patches, 1):
            files.append(f"{number:04}-{name}.patch")
            (folder / files[-1]).write_text(render_patch(f"{name} {number}", edits))
        (folder / "series").write_text("\n".join(files) + "\n")
        listed = "".join(f"  - file: {file}\n" for file in files)
        head = f"title: {name}\nwhen: {when or 'kernel>=5.0'}\n"
        (folder / "series.yaml").write_text(f"{head}patches:\n{listed}")
        return load_series(folder)

    return make


def render_patch(subject: str, edits: Mapping[str, tuple[str, str]]) -> str:
    """A mail as ``git am`` takes it."""
    text = (
        f"From {'0' * 40} Mon Sep 17 00:00:00 2001\nFrom: A Developer <a@example.org>\n"
        f"Date: Mon, 5 Jan 2015 10:00:00 +0000\nSubject: [PATCH] {subject}\n\nBecause.\n---\n"
    )
    for path, (old, new) in edits.items():
        before = (FAKELINUX / path).read_text() if old else ""
        assert old in before
        after = before.replace(old, new, 1) if old else new
        text += f"diff --git a/{path} b/{path}\n" + ("" if old else "new file mode 100644\n")
        text += "".join(
            difflib.unified_diff(
                before.splitlines(keepends=True),
                after.splitlines(keepends=True),
                f"a/{path}" if old else "/dev/null",
                f"b/{path}",
            )
        )
    return text + "-- \n2.39.5\n"


def is_running(pid: int) -> bool:
    """Whether a process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def find_processes(word: str) -> list[int]:
    """Live processes with a word in their argv."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (place / "cmdline").read_bytes() and is_running(int(place.name)):
                found.append(int(place.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_for(condition: Callable[[], object], limit_s: float = 60.0) -> None:
    """Until a condition holds; a test that waits in vain fails."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def read_log(name: str) -> str:
    """A recorded console log of ``tests/logs``."""
    return (LOGS / f"{name}.log").read_bytes().decode(errors="replace")


def cowbell(
    *words: str, cwd: Path = ROOT, stdin: str | None = None, **env: str
) -> subprocess.CompletedProcess[str]:
    """Run the command, with the variables of ``env`` added to the environment."""
    return _run_cowbell(words, cwd, env, limit_s=300, stdin=stdin)


def cowbell_with_store(store: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a store, and with time to build kernels."""
    return _run_cowbell(words, ROOT, {"COWBELL_STORE": str(store)}, limit_s=4000)


def _run_cowbell(
    words: Sequence[str], cwd: Path, env: dict[str, str], limit_s: float, stdin: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "orchestrator", *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        capture_output=True,
        text=True,
        input=stdin,
        timeout=limit_s,
        check=False,
    )


@contextlib.contextmanager
def start_python(script: str, *words: object, **env: str) -> Iterator[subprocess.Popen[str]]:
    """A Python of its own that imports Cowbell and these helpers; killed, -9, when the block is left."""
    with subprocess.Popen(
        [sys.executable, "-c", script, *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().rstrip("\n")
