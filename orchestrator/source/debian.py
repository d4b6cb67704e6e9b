# SPDX-License-Identifier: GPL-2.0-or-later
"""Downloads Debian packages, and lists their versions, without touching the package state of the host.

The mirrors and the keyring are those of the host's apt configuration. Package lists and downloads are in
private apt roots inside the store, one per suite, so no privileges are needed. A suite may be written
``SUITE@ARCH`` (as ``trixie@arm64``) for the packages of an architecture of Debian that is not the host's.
"""

import contextlib
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.process import command
from orchestrator.store.store import Store

KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# package lists younger than this are used as they are
FRESH_S = 3600.0
# and those of this age are what the mirror has now
CURRENT_S = 60.0
VERSION = re.compile(r"(?:\d+:)?\d[A-Za-z0-9.+~-]*")
# packages since trixie have no files in /bin and /lib and need the links
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh")
# the same without root, with the package of Debian instead of a generated one
_MERGED = "usr-is-merged"
_LINKS = 'cd "$1" && for dir in bin sbin lib lib64; do mkdir -p usr/$dir && ln -s usr/$dir $dir; done'
_UPDATE_S = 300.0
_DOWNLOAD_S = 900.0


class UnavailableError(InfraError):
    """The mirror does not have a package, or a file that it lists."""


@dataclass(frozen=True, slots=True)
class Offer:
    """A version of a package that the mirror offers, and the suites that have it."""

    version: str
    suites: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Offers:
    """The versions of a package, newest first.

    ``errors`` has the suites whose lists could not be updated; older lists of them are used if there are any.
    """

    versions: tuple[Offer, ...]
    errors: Mapping[str, InfraError]

    def find(self, version: str) -> Offer | None:
        return next((offer for offer in self.versions if offer.version == version), None)


def find_mirror(suite: str) -> str:
    """The URI of the host's mirror for a suite; security suites have a separate mirror."""
    label, folder = ("Debian-Security", "debian-security") if "-security" in suite else ("Debian", "debian")
    listed = command.run(
        [command.find_tool("apt-get", "apt"), "indextargets", "Created-By: Packages"], check=False
    ).output
    for block in listed.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
        uri = fields.get("Repo-URI", "")
        # before the first apt-get update there is no label: use the folder name of the mirror
        if fields.get("Label") == label or ("Label" not in fields and Path(uri).name == folder):
            return uri
    # without package lists, as in container images, apt only prints the URIs it would fetch
    printed = command.run([command.find_tool("apt-get", "apt"), "--print-uris", "update"], check=False).output
    for uri in re.findall(r"^'(\S+)/dists/[^/]+/InRelease'", printed, re.M):
        if Path(uri).name == folder:
            return str(uri)
    raise InfraError(
        f"apt on this host has no {label} mirror, so {suite} is not available",
        hint="add one to /etc/apt/sources.list.d, or choose another KERNEL=",
    )


def make_source_line(suite: str) -> str:
    """The one-line apt source of a suite's main component."""
    signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
    return f"deb {signed}{find_mirror(suite)} {suite} main"


def make_key(version: str) -> tuple[object, ...]:
    """Sorts versions as dpkg does: ``7.3~rc7-1`` before ``7.3-1``, ``7.3.4-1~bpo13+1`` before ``7.3.4-1``."""
    epoch, colon, rest = version.partition(":")
    upstream, dash, revision = (rest if colon else version).rpartition("-")
    parts = (upstream, revision) if dash else (revision, "")
    return (int(epoch) if colon else 0, *map(_make_part_key, parts))


def _make_part_key(text: str) -> tuple[object, ...]:
    """Alternating text and numbers. ``~`` sorts before the end of the text, letters before the rest."""

    def weigh(character: str) -> int:
        return -1 if character == "~" else ord(character) + (0 if character.isalpha() else 256)

    pairs = re.findall(r"(\D*)(\d*)", text)
    return tuple(((*map(weigh, words), 0), int(digits or 0)) for words, digits in pairs)


def unpack_packages(
    suite: str, arch: str, packages: Sequence[str], target: Path, *options: str, kind: str = "directory"
) -> None:
    """Unpack packages and all that they depend on into a folder, or into an image of a file system ``kind``.

    ``arch`` is Debian's name of the architecture, ``options`` are for mmdebstrap. No package is configured or
    run, which works without root and for a foreign architecture.
    """
    is_root = os.geteuid() == 0
    command.run(
        [
            command.find_tool("mmdebstrap", "mmdebstrap"),
            *([] if is_root else ["--mode=chrootless"]),
            "--variant=extract",
            f"--format={kind}",
            f"--architectures={arch}",
            f"--include={','.join(packages if is_root else (*packages, _MERGED))}",
            f"--setup-hook={_MERGED_USR if is_root else _LINKS}",
            *options,
            suite,
            str(target),
            make_source_line(suite),
        ],
        deadline=command.Deadline.after(_DOWNLOAD_S),
    )


def find_offers(store: Store, package: str, suites: Sequence[str], *, max_age_s: float = FRESH_S) -> Offers:
    """The versions of a package that the mirror offers, from lists that are at most ``max_age_s`` old."""
    errors = update_lists(store, suites, max_age_s=max_age_s)
    return Offers(read_offers(store, package, suites), errors)


def update_lists(store: Store, suites: Iterable[str], *, max_age_s: float = FRESH_S) -> dict[str, InfraError]:
    """Update the package lists of suites that are older than ``max_age_s``, all at once.

    Returns the error of each suite that could not be updated.
    """
    errors: dict[str, InfraError] = {}
    deadline = command.Deadline.after(_UPDATE_S)
    started: dict[str, tuple[list[str], command.Process]] = {}
    with contextlib.ExitStack() as stack:
        # lock in the same order in all processes to avoid deadlocks
        for suite in sorted(set(suites)):
            root = _find_root(store, suite)
            if _is_fresh(root, max_age_s):
                continue
            stack.enter_context(store.lock(f"apt-{suite}"))
            # another process may have updated them meanwhile
            if _is_fresh(root, max_age_s):
                continue
            try:
                _make_root(root, suite)
            except InfraError as error:
                errors[suite] = error
                continue
            argv = [*_make_argv("apt-get", root), "-o=APT::Update::Error-Mode=any", "update"]
            (root / "update.log").unlink(missing_ok=True)
            process = stack.enter_context(command.start(argv, output=root / "update.log"))
            started[suite] = argv, process
        for suite, (argv, process) in started.items():
            root = _find_root(store, suite)
            is_over = command.wait(process, deadline.remaining_s())
            if is_over and process.returncode == 0:
                (root / "updated").touch()
                continue
            text = (root / "update.log").read_text(errors="replace")
            lines = text.splitlines()[-command.TAIL_LINES :]
            done = command.Completed(tuple(argv), process.returncode or 0, text, 0.0, 0.0)
            what = f"the package lists of {suite} cannot be updated from this host's mirror"
            why = "output of apt" if is_over else f"it did not end within {_UPDATE_S:.0f} s"
            errors[suite] = command.find_host_error(done, lines) or InfraError(
                what, hint="\n  ".join([f"{why}:", *lines])
            )
    return errors


def read_age(store: Store, suite: str) -> float:
    """When the lists of a suite were updated, in Unix time; 0 if never."""
    stamp = _find_root(store, suite) / "updated"
    return stamp.stat().st_mtime if stamp.exists() else 0.0


def list_names(store: Store, prefix: str, suite: str) -> list[str]:
    """The packages of a suite whose names have a prefix, in the lists that were updated last."""
    root = _find_root(store, suite)
    if not read_age(store, suite):
        return []
    return command.run([*_make_argv("apt-cache", root), "pkgnames", prefix], check=False).output.split()


def list_versions(store: Store, packages: Sequence[str], suite: str) -> list[tuple[str, str]]:
    """The versions of some packages in a suite, as (package, version); no network is used."""
    root = _find_root(store, suite)
    if not packages or not read_age(store, suite):
        return []
    listed = command.run([*_make_argv("apt-cache", root), "madison", *packages], check=False).output
    lines = [[field.strip() for field in line.split(" | ")] for line in listed.splitlines()]
    return [(line[0], line[1]) for line in lines if len(line) == 3 and line[0] in packages]


def read_offers(store: Store, package: str, suites: Iterable[str]) -> tuple[Offer, ...]:
    """The versions in the lists that were updated last, newest first; no network is used."""
    found: dict[str, list[str]] = {}
    for suite in dict.fromkeys(suites):
        for _, version in list_versions(store, [package], suite):
            found.setdefault(version, []).append(suite)
    # a version may be listed more than once
    return tuple(
        Offer(version, tuple(dict.fromkeys(found[version])))
        for version in sorted(found, key=make_key, reverse=True)
    )


def download_package(store: Store, package: str, offer: Offer, target: Path) -> Path:
    """Download a version of a package into ``target``; returns the ``.deb``.

    Raises ``UnavailableError`` if the mirror does not have the file, ``InfraError`` if the download fails.
    """
    argv = _make_argv("apt-get", _find_root(store, offer.suites[0]))
    deadline = command.Deadline.after(_DOWNLOAD_S)
    try:
        command.run([*argv, "download", f"{package}={offer.version}"], cwd=target, deadline=deadline)
    except InfraError as error:
        kind = UnavailableError if "404  Not Found" in error.hint else InfraError
        raise kind(
            f"{package} {offer.version} cannot be downloaded from this host's mirror ({offer.suites[0]})",
            hint=f"output of apt:\n{error.hint}",
        ) from error
    return next(target.glob(f"{make_file_name(package, offer.version)}_*.deb"))


def make_file_name(package: str, version: str) -> str:
    """A package's file name up to its architecture; apt quotes the colon of an epoch in it."""
    return f"{package}_{version.replace(':', '%3a')}"


def _find_root(store: Store, suite: str) -> Path:
    return store.path("apt", suite)


def _is_fresh(root: Path, max_age_s: float) -> bool:
    stamp = root / "updated"
    return stamp.exists() and time.time() - stamp.stat().st_mtime < max_age_s


def _make_root(root: Path, suite: str) -> None:
    for folder in ("lists/partial", "cache/archives/partial", "etc/apt.conf.d"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "status").touch()
    (root / "sources.list").write_text(make_source_line(suite.partition("@")[0]) + "\n")


def _make_argv(tool: str, root: Path) -> list[str]:
    """An apt command that uses only a private root."""
    arch = root.name.partition("@")[2]
    return [
        command.find_tool(tool, "apt"),
        f"-o=Dir::Etc::sourcelist={root}/sources.list",
        "-o=Dir::Etc::sourceparts=/dev/null",
        f"-o=Dir::State={root}",
        f"-o=Dir::State::status={root}/status",
        f"-o=Dir::Cache={root}/cache",
        *([f"-o=APT::Architecture={arch}", f"-o=APT::Architectures={arch}"] if arch else []),
        "-o=APT::Sandbox::User=",
        "-o=Acquire::Retries=2",
        "-q",
    ]
