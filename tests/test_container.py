# SPDX-License-Identifier: GPL-2.0-or-later
"""What GitLab's jobs run in: an image that is made of what the project says elsewhere, without privileges."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli import doctor
from orchestrator.guest.rootfs import make_rootfs
from orchestrator.project.arch import ARCHES
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress

FILE = (ROOT / "ci/Containerfile").read_text()


def list_packages(word: str, tmp_path: Path) -> set[str]:
    """What ci/setup would install on a machine that has nothing: a dpkg-query that knows no package."""
    bin_dir = tmp_path / "bin"
    bin_dir.mkdir(exist_ok=True)
    for name, text in {"dpkg-query": "exit 1", "id": "echo 1000", "sudo": "exit 1"}.items():
        (bin_dir / name).write_text(f"#!/bin/sh\n{text}\n")
        (bin_dir / name).chmod(0o755)
    done = subprocess.run(
        [ROOT / "ci/setup", *([word] if word else [])],
        env=os.environ | {"PATH": f"{bin_dir}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "apt-get install" in line]
    return set(line.split("--no-install-recommends")[1].split())


def test_an_image_has_what_every_row_needs(tmp_path: Path) -> None:
    """The doctor's list and the table's are kept by hand: neither may lack what the other has."""
    image = list_packages("image", tmp_path)
    needed = {*doctor._ALWAYS.values(), *doctor._HEADERS.values(), "debian-archive-keyring", "ccache"}
    for arch in ARCHES.values():
        needed |= {arch.qemu_package, *(() if arch.is_native else arch.cross_packages.split())}
    always = {"util-linux", "libc6-dev-amd64-cross", "gcc-x86-64-linux-gnu"}
    assert needed - always - image == {"binutils"} - image
    assert list_packages("", tmp_path) <= image | {"python3-venv"}
    assert image - {"ca-certificates"} <= list_packages("dev", tmp_path)


def test_the_image_is_made_of_the_project(tmp_path: Path) -> None:
    """No second list of packages, nothing of a developer's folder, no privileged user at work."""
    assert re.search(r"^ARG BASE=debian:bookworm-slim\nFROM \$\{BASE\}$", FILE, re.M)
    assert "ci/setup image" in FILE
    assert "apt-get" not in FILE
    assert '"/tmp/cowbell[ci]"' in FILE
    assert re.search(r"^USER cowbell$", FILE, re.M)
    assert not re.search(r"^(ENTRYPOINT|CMD)", FILE, re.M)
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", ".venv", "tests"} <= set(ignored)


def list_files(image: Path) -> set[str]:
    """Files with mode and owner; what dpkg knows is of no use in a guest."""
    found = set()
    pending = ["/"]
    while pending:
        folder = pending.pop()
        done = subprocess.run(
            ["/usr/sbin/debugfs", "-R", f"ls -p {folder}", image], capture_output=True, text=True, check=True
        )
        # an entry of no inode is a free one
        for line in filter(None, done.stdout.splitlines()):
            _, _, mode, user, group, name, size, *_ = line.split("/")
            path = f"{folder}{name}"
            if name in (".", "..", "lost+found", "dpkg", "lib32", "libx32"):
                continue
            found.add(f"{path} {mode} {user}:{group} {size}")
            if mode.startswith("04"):
                pending.append(f"{path}/")
    return found


@pytest.mark.kernel
def test_a_root_image_is_the_same_without_privileges(
    tmp_path: Path, kernel_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    arch = ARCHES["x86_64"]
    roots = make_rootfs(arch, kernel_store, QuietProgress())
    # as for somebody who may not even chroot
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    theirs = make_rootfs(arch, Store(tmp_path / "store"), QuietProgress())
    assert theirs.rootfs_id == roots.rootfs_id
    one, other = list_files(roots.image), list_files(theirs.image)
    assert len(one) > 1000
    # nobody who made it owns anything
    owners = [{line.split()[2] for line in lines} for lines in (one, other)]
    assert owners[0] == owners[1] and "0:0" in owners[0]
    # packages may have become newer in between
    names = [{line.split()[0] for line in lines} for lines in (one, other)]
    assert names[0] == names[1]
