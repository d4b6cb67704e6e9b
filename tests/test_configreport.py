# SPDX-License-Identifier: GPL-2.0-or-later
"""``cowbell config`` and ``cowbell gc``, and the variables ARCH, CONFIG, CC and LLVM."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import FAKE_TREE, ROOT, Mirror, cowbell
from tests.schema import read_product

MATRIX = """\
rows:
  - name: small
    about: the kernel of three files
    arch: x86_64
    tree: fake-5.10
    kconfig: [base]
    guest: {cpus: 1, memory: 1G}
    tests: ["*"]
    limits: {build: 1m, boot: 1s}
    variants: [{name: plain}]
"""


@pytest.fixture
def project(tmp_path: Path, mirror: Mirror) -> Path:
    folder = tmp_path / "project"
    for name in ("ci", "kconfigs", "patches"):
        (folder / name).mkdir(parents=True)
    (folder / "ci/matrix.yaml").write_text(MATRIX)
    tree = f"{{debian: {FAKE_TREE.package}, suite: {FAKE_TREE.suite}}}"
    (folder / "patches/trees.yaml").write_text(f"trees:\n  fake-5.10: {tree}\n")
    shutil.copytree(ROOT / "guest-tests", folder / "guest-tests")
    (folder / "kconfigs/base.config").write_text("#: about base\nCONFIG_SMP=y\nCONFIG_PVH=y\n")
    # in the place of the one that is shipped
    (folder / "kconfigs/x86_64.config").write_text("#: about nothing that this kernel has not\n")
    (folder / "kconfigs/swap.config").write_text(
        "#: about swap\n#: only kernel>=6.0 NEW  # since v6.0\n#: optional KSN\n"
        "CONFIG_SWAP=y\nCONFIG_KSN=y\nCONFIG_NEW=y\n"
    )
    return folder


def run_cowbell(project: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return cowbell("-s", "-C", str(project), *words)


def test_config_tells_every_symbol_and_why(project: Path) -> None:
    done = run_cowbell(project, "config", "CONFIG=base,swap")
    assert done.returncode == 1, "SWAP was dropped"
    first, *lines = [line.strip() for line in done.stdout.splitlines()]
    assert first == "small/plain: fake-5.10 5.10.226, x86_64: 2 survived, 2 dropped, 1 unsupported"
    file = project / "kconfigs/swap.config"
    assert lines == [
        f"survived    SMP=y  # {project}/kconfigs/base.config:2",
        f"survived    PVH=y  # {project}/kconfigs/base.config:3",
        f"ERROR dropped     SWAP=y, got n  # {file}:4",
        "it needs BLOCK (add CONFIG_BLOCK=y)",
        f"dropped     KSN=y, got n  # {file}:5",
        "there is no such symbol in this kernel; did you mean KSM?",
        f"unsupported NEW=y, got n  # {file}:6",
        "only kernel>=6.0: since v6.0",
    ]
    assert not list(project.rglob("*.o"))


def test_config_names_the_alternative_and_what_is_gone(project: Path) -> None:
    file = project / "kconfigs/base.config"
    file.write_text(
        "#: about base\n#: only kernel<5.0 OLD  # nobody needs it\n#: one-of NEW KSM\nCONFIG_OLD=y\n"
    )
    done = run_cowbell(project, "config")
    assert done.returncode == 0, done.stderr
    assert [line.strip() for line in done.stdout.splitlines()] == [
        "small/plain: fake-5.10 5.10.226, x86_64: 1 survived, 1 gone",
        f"survived    KSM=y  # {file}:3",
        "the first of NEW, KSM that this kernel has",
        f"gone        OLD=y, got n  # {file}:4",
        "gone since 5.0: nobody needs it",
    ]
    (report,) = read_product(run_cowbell(project, "config", "--json").stdout)["kernels"]
    assert [(s["symbol"], s["taken"], s["state"]) for s in report["symbols"]] == [
        ("NEW", "KSM", "survived"),
        ("OLD", "", "gone"),
    ]


def test_config_of_the_row_as_json(project: Path) -> None:
    done = run_cowbell(project, "config", "--json")
    assert done.returncode == 0, done.stderr
    (report,) = read_product(done.stdout)["kernels"]
    assert (report["job"], report["arch"], report["kernel"]) == (
        "small/plain",
        "x86_64",
        "fake-5.10 5.10.226",
    )
    assert [(s["symbol"], s["got"], s["state"]) for s in report["symbols"]] == [
        ("SMP", "y", "survived"),
        ("PVH", "y", "survived"),
    ]


def test_wrong_words_at_once(project: Path) -> None:
    done = run_cowbell(project, "config", "CONFIG=bsae", "ARCH=mips", "KERNEL=fake-5.1")
    assert done.returncode == 2
    for text in (
        "ARCH: there is no architecture mips",
        "there are: x86_64, aarch64",
        "CONFIG: there is no fragment bsae; did you mean base?",
        "KERNEL: there is no kernel fake-5.1",
    ):
        assert text in done.stderr
    done = run_cowbell(project, "gc", "build", "SIZE=20", "LLVM=14")
    assert done.returncode == 2
    for text in (
        "SIZE: expected size like 2G, got 20",
        "LLVM: expected 1, a suffix such as -15, or a folder such as /opt/llvm/bin/, got 14",
        "gc: cannot be combined with other targets",
    ):
        assert text in done.stderr


GENERATED = "Automatically generated file; DO NOT EDIT."


def test_fragments_and_symbols_are_added_to_those_of_the_row(project: Path) -> None:
    """They are requests like those of files: checked, part of the id, and the last one counts."""
    words = ("CONFIG+=swap", "CONFIG+=CONFIG_PVH=n,KSM=y")
    done = run_cowbell(project, "config", "--json", *words)
    assert done.returncode == 1
    (report,) = read_product(done.stdout)["kernels"]
    found = {s["symbol"]: (s["requested"], s["where"]) for s in report["symbols"]}
    assert found["SMP"][1].endswith("base.config:2")
    assert found["SWAP"][1].endswith("swap.config:4")
    assert found["PVH"] == ("n", "CONFIG+=CONFIG_PVH=n")
    assert found["KSM"] == ("y", "CONFIG+=KSM=y")
    plain = run_cowbell(project, "build")
    more = run_cowbell(project, "build", "CONFIG+=PVH=n")
    assert (plain.returncode, more.returncode) == (0, 0), more.stderr
    assert plain.stdout != more.stdout
    (project / "my own.config").write_text(f"#\n# {GENERATED}\n# CONFIG_PVH is not set\nCONFIG_NO_SUCH=y\n")
    done = run_cowbell(project, "config", "--json", f"CONFIG+={project}/my own.config")
    (report,) = read_product(done.stdout)["kernels"]
    states = {s["symbol"]: s["state"] for s in report["symbols"]}
    assert done.returncode == 0 and states["NO_SUCH"] == "dropped", done.stderr
    wrong = run_cowbell(project, "build", "CONFIG+=./none.config", "CONFIG+=bsae")
    assert wrong.returncode == 2 and "none.config: cannot be read" in wrong.stderr
    wrong = run_cowbell(project, "build", "CONFIG+=bsae", "CONFIG+=x y=")
    assert wrong.returncode == 2
    assert "CONFIG+: there is no fragment bsae; did you mean base?" in wrong.stderr
    assert "CONFIG+: there is no fragment y=" in wrong.stderr


def test_settings_of_the_kernel_makefiles(project: Path) -> None:
    """A kernel developer has them exported."""
    for arch in ("x86", "x86_64"):
        done = cowbell("-s", "-C", str(project), "-n", "build", ARCH=arch)
        assert (done.returncode, done.stderr) == (0, "")
    for llvm in ("-15", "/opt/llvm/bin/", "1", "0"):
        told = cowbell("-C", str(project), "-p", "--json", LLVM=llvm)
        assert read_product(told.stdout)["variables"]["LLVM"] == {"value": llvm, "origin": "environment"}


def test_compiler_of_choice_is_another_kernel(project: Path) -> None:
    plain = run_cowbell(project, "build")
    assert plain.returncode == 0, plain.stderr
    assert run_cowbell(project, "build").stdout == plain.stdout
    other = run_cowbell(project, "build", "CC=cc")
    assert other.returncode == 0, other.stderr
    assert other.stdout != plain.stdout
    missing = run_cowbell(project, "build", "CC=gcc-99")
    assert missing.returncode == 3
    assert "gcc-99 is not installed" in missing.stderr
    assert "apt-get install --no-install-recommends gcc-99" in missing.stderr


def test_gc(project: Path) -> None:
    built = run_cowbell(project, "build")
    assert built.returncode == 0, built.stderr
    image = Path(built.stdout.strip())
    (image.parent / "filler").write_bytes(os.urandom(2 << 20))
    done = run_cowbell(project, "gc", "-n", "SIZE=1M")
    assert done.returncode == 0
    assert str(image.parent) in done.stdout
    assert image.exists()
    assert run_cowbell(project, "gc").stdout.count("\n") == 1, "20 GB are enough"
    found = read_product(run_cowbell(project, "gc", "SIZE=1M", "--json").stdout)
    assert str(image.parent) in [entry["path"] for entry in found["removed"]]
    assert found["after"] < found["before"]
    assert not image.exists()
    again = run_cowbell(project, "build")
    assert again.returncode == 0, again.stderr
    assert image.exists()
