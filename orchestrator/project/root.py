# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the files that Cowbell reads: the built-in ones and those of a user overlay."""

from pathlib import Path

from orchestrator.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
# in an installed package the project's files are in data/, in a checkout they lie beside the package
IS_CHECKOUT = not (_PACKAGE / "data").is_dir()
SHIPPED = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "data"

# a folder that has one of these is somebody's project
_MARKS = (
    "ci/expectations.yaml",
    "ci/known-splats.yaml",
    "ci/matrix.yaml",
    "guest-tests",
    "kconfigs",
    "patches/trees.yaml",
    "patches/*/series.yaml",
)


def is_project(folder: Path) -> bool:
    """Whether a folder has anything that Cowbell reads."""
    return any(any(folder.glob(mark)) for mark in _MARKS)


def list_layers(root: Path, shipped: Path = SHIPPED) -> tuple[Path, ...]:
    """The folders whose files are read: what is shipped, then the user's own, whose names win."""
    return (shipped,) if root == shipped else (shipped, root)


def find_root(asked: Path | None) -> Path:
    """The user's own folder: ``-C``, or the first upwards from here; if there is none, what is shipped.

    Raises ``UsageError`` when the folder that was asked for is nobody's project.
    """
    here = asked or Path.cwd()
    for folder in [here] if asked else [here, *here.parents]:
        if is_project(folder):
            return folder.resolve()
    if asked:
        raise UsageError(
            "has nothing of a project's: no ci/matrix.yaml, guest-tests/, kconfigs/ or patches/",
            where=str(here),
            hint="without -C it is looked for from the current folder upwards",
        )
    return SHIPPED
