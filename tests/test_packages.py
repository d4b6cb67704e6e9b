# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages of each distribution, and the command for a host, by faked os-release files."""

import ast
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli import doctor
from orchestrator.kernel.hostneeds import _NEEDS
from orchestrator.process import packages
from orchestrator.process.packages import find_host, load_table, make_install_command
from orchestrator.project.arch import ARCHES
from orchestrator.run.selftests import _PACKAGES
from tests.conftest import ROOT, cowbell

# as the distributions ship them, without the lines that nobody reads here
RELEASES = {
    "debian-12": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\nID=debian\n',
    "debian-13": 'PRETTY_NAME="Debian GNU/Linux 13 (trixie)"\nVERSION_ID="13"\nID=debian\n',
    "debian-sid": 'PRETTY_NAME="Debian GNU/Linux forky/sid"\nID=debian\n',
    "ubuntu": 'PRETTY_NAME="Ubuntu 24.04.3 LTS"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n',
    "mint": 'PRETTY_NAME="Linux Mint 22"\nID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_ID="22"\n',
    "fedora": 'PRETTY_NAME="Fedora Linux 42 (Workstation Edition)"\nID=fedora\nVERSION_ID=42\n',
    "rocky": 'PRETTY_NAME="Rocky Linux 9.5"\nID="rocky"\nID_LIKE="rhel centos fedora"\nVERSION_ID="9.5"\n',
    "arch": 'PRETTY_NAME="Arch Linux"\nID=arch\n',
    "tumbleweed": 'PRETTY_NAME="openSUSE Tumbleweed"\nID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n',
    "leap": 'PRETTY_NAME="openSUSE Leap 15.6"\nID="opensuse-leap"\nID_LIKE="suse opensuse"\n',
    "gentoo": "PRETTY_NAME='Gentoo Linux'\nID='gentoo'\n",
    "none": "",
}
COMMANDS = {
    "debian-12": "apt-get install --no-install-recommends libelf-dev qemu-system-misc",
    "debian-13": "apt-get install --no-install-recommends libelf-dev qemu-system-riscv",
    "debian-sid": "apt-get install --no-install-recommends libelf-dev qemu-system-riscv",
    "ubuntu": "apt-get install --no-install-recommends libelf-dev qemu-system-misc",
    "mint": "apt-get install --no-install-recommends libelf-dev qemu-system-misc",
    "fedora": "dnf install --setopt=install_weak_deps=False elfutils-libelf-devel qemu-system-riscv",
    "rocky": "dnf install --setopt=install_weak_deps=False elfutils-libelf-devel qemu-system-riscv",
    "arch": "pacman -S --needed libelf qemu-system-riscv",
    "tumbleweed": "zypper install --no-recommends libelf-devel qemu-extra",
    "leap": "zypper install --no-recommends libelf-devel qemu-extra",
}
LACK = {"fedora": "mmdebstrap", "rocky": "mmdebstrap", "arch": "genext2fs", "tumbleweed": "genext2fs"}


def write_release(name: str, folder: Path) -> Path:
    path = folder / "os-release"
    path.write_text(RELEASES[name])
    return path


def run_setup(release: Path, folder: Path, word: str = "") -> subprocess.CompletedProcess[str]:
    """ci/setup without root, on a machine that has no package and no Python that can make .venv."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    fakes = dict.fromkeys(("dpkg-query", "rpm", "pacman", "sudo", "python3"), "exit 1") | {"id": "echo 1000"}
    for name, text in fakes.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    # a checkout without .venv
    for part in ("ci/setup", packages.TABLE.relative_to(ROOT)):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / part, folder / part)
    return subprocess.run(
        ["sh", folder / "ci/setup", *([word] if word else [])],
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "OS_RELEASE": str(release)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_of_each_distribution(name: str, tmp_path: Path) -> None:
    host = find_host([tmp_path / "nowhere", write_release(name, tmp_path)])
    assert host.name in RELEASES[name]
    assert make_install_command(["qemu-system-misc", "libelf-dev"], host) == COMMANDS[name]


@pytest.mark.parametrize("name", LACK)
def test_what_a_distribution_lacks_is_said(name: str, tmp_path: Path) -> None:
    host = find_host([write_release(name, tmp_path)])
    first, second = make_install_command(["bc", LACK[name]], host).splitlines()
    assert first.endswith(" bc")
    assert f"{host.name} has no package of {LACK[name]}; the container image has everything" in second
    assert "install" not in make_install_command([LACK[name]], host)


@pytest.mark.parametrize("name", ["gentoo", "none"])
def test_an_unknown_distribution_is_told_what_debian_calls_them(name: str, tmp_path: Path) -> None:
    host = find_host([write_release(name, tmp_path)])
    told = make_install_command(["bc", "libelf-dev"], host)
    assert "packages of Debian: bc libelf-dev" in told
    assert f"names on {'Gentoo Linux' if name == 'gentoo' else 'this host'} are not known" in told
    assert "apt-get" not in told
    assert find_host([tmp_path / "nowhere"]) == packages.Host("this host", "")


@pytest.mark.parametrize("name", RELEASES)
@pytest.mark.parametrize("word", ["", "dev", "image"])
def test_setup_and_doctor_name_the_same_packages(name: str, word: str, tmp_path: Path) -> None:
    release = write_release(name, tmp_path)
    sets = {"": {"always"}, "dev": {"always", "image", "dev"}, "image": {"always", "image"}}[word]
    _, known = load_table()
    wanted = [package for package, of in known.items() if of.setup in sets]
    said = make_install_command(wanted, find_host([release]))
    done = run_setup(release, tmp_path, word)
    assert done.returncode != 0
    if name in COMMANDS:
        (line,) = [line for line in done.stderr.splitlines() if line.startswith("    sudo ")]
        command, *_ = said.splitlines()
        assert sorted(set(line.removeprefix("    sudo ").split())) == sorted(set(command.split()))
    else:
        assert "sudo" not in done.stderr
        assert f"are not known; Debian's are: {' '.join(wanted)}" in done.stderr
    missing = said.partition("has no package of ")[2].partition(";")[0].split(", ")
    assert all(f" {package}" in done.stderr for package in missing if package)
    assert ("docs/other-hosts.md" in done.stderr) == ("docs/other-hosts.md" in said)


def test_doctor_tells_the_command_of_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "OS_RELEASE", (write_release("fedora", tmp_path),))
    tools = doctor._ALWAYS.items()
    missing = [doctor.HostFinding(need, ("demo",), False, package) for need, package in tools]
    text = doctor.render(missing)
    assert "dnf install --setopt=install_weak_deps=False bc binutils bison" in text
    assert "Fedora Linux 42 (Workstation Edition) has no package of mmdebstrap;" in text
    assert "cannot run: demo" in text


def test_every_package_that_the_code_names_is_in_the_table() -> None:
    commands, known = load_table()
    named = {*doctor._ALWAYS.values(), *doctor._HEADERS.values(), *_PACKAGES.values()}
    named |= {package for package, _ in _NEEDS.values()}
    for arch in ARCHES.values():
        named |= {arch.qemu_package, *arch.cross_packages.split()}
    for path in (ROOT / "orchestrator").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("find_tool"):
                word = node.args[1]
                if isinstance(word, ast.Constant) and isinstance(word.value, str):
                    named.add(word.value)
    assert named - set(known) == set()
    # and every line has a name, or none, for each distribution
    assert all(set(of.names) == set(commands) for of in known.values())
    assert {of.setup for of in known.values()} == {"always", "image", "dev", "hint"}


def test_no_command_is_written_anywhere_else() -> None:
    wrong = [
        path.name for path in (ROOT / "orchestrator").rglob("*.py") if "apt-get install" in path.read_text()
    ]
    assert wrong == []


def test_the_command_line_tells_it_too() -> None:
    done = cowbell("doctor", "ROW=demo", PATH="/nonexistent")
    assert make_install_command(["make", "mmdebstrap"]).partition(" make")[0] in done.stdout
