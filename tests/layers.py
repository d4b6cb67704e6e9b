# SPDX-License-Identifier: GPL-2.0-or-later
"""The packages and modules of Cowbell, and the layers that they form."""

from pathlib import Path

from tests.conftest import ROOT

PACKAGE = ROOT / "orchestrator"
# a package imports only from itself and from the layers above it in this list
LAYERS = (
    ("errors", "status"), ("process",), ("store",), ("parse",), ("project",), ("source",), ("kernel",),
    ("guest",), ("result",), ("run",), ("history",), ("report",), ("plan",), ("pipeline",),
    ("bisect", "coverage", "gitlab", "mutants"), ("cli",), ("__main__",),
)  # fmt: skip
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem != "__init__"
)


def find_path(name: str) -> Path:
    return PACKAGE.joinpath(*name.split(".")).with_suffix(".py")
