# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian packages without touching the machine's package state.

The mirrors and the keyring are those of the machine's own apt configuration; lists and downloads live in a
private apt root inside the store, so no privileges are needed.
"""

import re
from pathlib import Path

from orchestrator.ground import command
from orchestrator.ground.errors import InfraError
from orchestrator.ground.store import Store

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


def find_mirror(suite: str) -> str:
    """URI of the machine's mirror for a suite; security suites have a mirror of their own."""
    label, folder = ("Debian-Security", "debian-security") if "-security" in suite else ("Debian", "debian")
    listed = command.run(
        [command.find_tool("apt-get", "apt"), "indextargets", "Created-By: Packages"], check=False
    ).output
    for block in listed.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        uri = fields.get("Repo-URI", "")
        # before the first apt-get update apt knows no label, and the mirror's folder has to do
        if fields.get("Label") == label or ("Label" not in fields and Path(uri).name == folder):
            return uri
    # where its lists were removed, as in a container's image, it tells only what it would ask for
    asked = command.run([command.find_tool("apt-get", "apt"), "--print-uris", "update"], check=False).output
    for uri in re.findall(r"^'(\S+)/dists/[^/]+/InRelease'", asked, re.M):
        if Path(uri).name == folder:
            return str(uri)
    raise InfraError(
        f"this machine's apt has no {label} mirror, so {suite} can not be had",
        hint="add one to /etc/apt/sources.list.d, or choose another KERNEL=",
    )


def make_source_line(suite: str) -> str:
    """The one-line apt source of a suite's main component."""
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    return f"deb {signed}{find_mirror(suite)} {suite} main"


def download_package(store: Store, package: str, suite: str, target: Path) -> Path:
    """Fetch a suite's newest version of a package into ``target``; returns the ``.deb``.

    Raises ``InfraError`` when the mirror does not carry it or can not be reached.
    """
    root = store.path("apt", suite)
    for folder in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    (root / "sources.list").write_text(make_source_line(suite) + "\n")
    options = [
        f"-o=Dir::Etc::sourcelist={root}/sources.list",
        "-o=Dir::Etc::sourceparts=/dev/null",
        f"-o=Dir::State={root}",
        f"-o=Dir::State::status={root}/status",
        f"-o=Dir::Cache={root}/cache",
        "-o=APT::Sandbox::User=",
        "-o=Acquire::Retries=2",
        "-q",
    ]
    apt = command.find_tool("apt-get", "apt")
    deadline = command.Deadline.after(900)
    try:
        with store.lock(f"apt-{suite}"):
            command.run([apt, *options, "-o=APT::Update::Error-Mode=any", "update"], deadline=deadline)
            command.run([apt, *options, "download", package], cwd=target, deadline=deadline)
    except InfraError as error:
        raise InfraError(
            f"{package} can not be had from {suite} at this machine's mirror",
            hint=f"KERNEL=debian-6.1 may be carried where this is not; what apt said:\n{error.hint}",
        ) from error
    return next(target.glob(f"{package}_*.deb"))
