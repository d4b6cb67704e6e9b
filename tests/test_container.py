# SPDX-License-Identifier: GPL-2.0-or-later
"""What GitLab's jobs run in: an image that is made of what the project says elsewhere, without privileges."""

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli import doctor
from orchestrator.guest.rootfs import make_rootfs
from orchestrator.project.arch import ARCHES
from orchestrator.source.debian import make_source_line
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress

FILE = (ROOT / "ci/Containerfile").read_text()
# newer than the host of most tests: its compiler, its Python and its QEMU, too
SUITE = "trixie"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


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


def make_podman(folder: Path) -> dict[str, str]:
    """The environment of a podman with images and volumes of its own, and with low limits."""
    # podman's own are more than a process without CAP_SYS_RESOURCE may set
    limits = ["nofile=4096:4096", "nproc=4096:4096"]
    (folder / "containers.conf").write_text(
        f"[containers]\nnetns = 'host'\ndefault_ulimits = {limits}\n[engine]\nruntime = 'runc'\n"
    )
    (folder / "storage.conf").write_text(
        f"[storage]\ndriver = 'overlay'\ngraphroot = '{folder}/images'\nrunroot = '{folder}/run'\n"
    )
    return os.environ | {
        "CONTAINERS_CONF": str(folder / "containers.conf"),
        "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
        "BUILDAH_ISOLATION": "chroot",
    }


def make_base(folder: Path) -> Path:
    """The base of the image: what a registry offers, with the mirrors and the certificates of this host."""
    lines = [make_source_line(suite) for suite in (SUITE, f"{SUITE}-security")]
    own = {Path("/etc/pip.conf"): "etc/pip.conf", CERTIFICATES: "usr/local/share/ca-certificates/host.crt"}
    copies = [
        f"--customize-hook=install -D -m 644 {source} \"$1/{target}\""
        for source, target in own.items() if source.exists()
    ]  # fmt: skip
    base = folder / "base.tar"
    subprocess.run(["mmdebstrap", "--variant=minbase", "--quiet", *copies, SUITE, base, *lines], check=True)
    return base


@pytest.mark.kernel
def test_readme_on_other_hosts(tmp_path: Path) -> None:
    """README's image and its demo; then the first command of a checkout, as a developer on Debian 13.

    With the plain kernel alone: a second one would show nothing more, and costs minutes.
    """
    env, checkout = make_podman(tmp_path), tmp_path / "checkout"
    build, run = (
        shlex.split(line)
        for line in (ROOT / "README.md").read_text().splitlines()
        if line.startswith("podman ")
    )
    subprocess.run(["git", "clone", "-q", ROOT, checkout], check=True)

    def podman(words: list[str]) -> subprocess.CompletedProcess[str]:
        assert words[0] == "podman"
        return subprocess.run(words, env=env, cwd=checkout, capture_output=True, text=True, check=False)

    try:
        made = podman(["podman", "import", str(make_base(tmp_path)), "debian"])
        assert made.returncode == 0, made.stderr
        made = podman([*build[:2], "--build-arg", "BASE=localhost/debian", *build[2:]])
        assert made.returncode == 0, made.stdout[-4000:] + made.stderr[-4000:]
        demo = podman([*run, "SERIES=none"])
        assert demo.returncode == 0, demo.stdout + demo.stderr
        assert "12 verdicts: 8 pass, 4 failed as expected" in demo.stdout
        at = run.index("cowbell")
        options = ["-v", f"{checkout}:/home/cowbell/checkout:U", "-w", "/home/cowbell/checkout"]
        check = podman([*run[:at], *options, "cowbell", "make", "check", "ARGS=SERIES=none"])
        assert check.returncode == 0, check.stdout + check.stderr
        assert "12 verdicts: 8 pass, 4 failed as expected" in check.stdout
        # the kernels are those of the first command
        assert " build " not in check.stderr
    finally:
        podman(["podman", "system", "reset", "--force"])
        shutil.rmtree(checkout, ignore_errors=True)
