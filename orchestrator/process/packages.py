# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the distribution of this host, and the command that installs packages there.

The code names packages as Debian 12 does; ``packages.txt`` has the names of the other distributions.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).with_name("packages.txt")
OS_RELEASE = (Path("/etc/os-release"), Path("/usr/lib/os-release"))
_CONTAINER = "the container image has everything: see docs/other-hosts.md"


@dataclass(frozen=True, slots=True)
class Package:
    """Names by column of the table, empty where a distribution lacks it, and when ci/setup installs it."""

    names: Mapping[str, tuple[str, ...]]
    setup: str


@dataclass(frozen=True, slots=True)
class Host:
    """The distribution of a host: its own name, and its column of the table, empty if there is none."""

    name: str
    column: str


@functools.cache
def load_table() -> tuple[Mapping[str, str], Mapping[str, Package]]:
    """The commands that install packages, by column, and the packages by their name in Debian 12."""
    commands: dict[str, str] = {}
    columns: list[str] = []
    packages: dict[str, Package] = {}
    for line in TABLE.read_text().splitlines():
        match line.split():
            case []:
                pass
            case [first, *_] if first.startswith("#"):
                pass
            case ["install", column, *words]:
                commands[column] = " ".join(words)
            case ["columns", *columns, _]:
                pass
            case [key, *cells, setup]:
                texts = [key, *cells]
                names = {
                    column: () if text == "-" else tuple((key if text == "=" else text).split(","))
                    for column, text in zip(columns, texts, strict=True)
                }
                packages[key] = Package(names, setup)
    return commands, packages


def find_host(files: Iterable[Path] = ()) -> Host:
    """The host by its os-release: by ``ID`` and ``VERSION_ID``, else by what it is like."""
    path = next((path for path in files or OS_RELEASE if path.is_file()), None)
    text = path.read_text(errors="replace") if path else ""
    fields: dict[str, str] = dict(re.findall(r"^(\w+)=[\"']?(.*?)[\"']?$", text, re.M))
    name = fields.get("ID", "")
    commands, _ = load_table()
    words = [f"{name}-{fields.get('VERSION_ID', '')}", name, *fields.get("ID_LIKE", "").split()]
    column = next((word for word in words if word in commands), "")
    return Host(fields.get("PRETTY_NAME") or fields.get("NAME") or "this host", column)


def make_install_command(packages: Iterable[str], host: Host | None = None) -> str:
    """The command that installs packages, named as in Debian 12; where it cannot do that, the reason.

    A package that the table does not have, such as a version of a compiler, keeps its name.
    """
    host = host or find_host()
    commands, known = load_table()
    wanted = list(dict.fromkeys(packages))
    if not host.column:
        return (
            f"install the equivalent of these packages of Debian: {' '.join(wanted)}\n"
            f"  their names on {host.name} are not known; {_CONTAINER}"
        )
    names = {name: known[name].names[host.column] if name in known else (name,) for name in wanted}
    there = sorted({each for found in names.values() for each in found})
    lines = [f"{commands[host.column]} {' '.join(there)}"] if there else []
    if missing := sorted(name for name, found in names.items() if not found):
        lines.append(f"{host.name} has no package of {', '.join(missing)}; {_CONTAINER}")
    return "\n  ".join(lines)
