# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the files that Cowbell reads: the built-in ones and those of a user overlay."""

from pathlib import Path

from orchestrator.errors import UsageError

_PACKAGE = Path(__file__).resolve().parents[1]
# in an installed package the built-in files are in data/, in a checkout beside the package
IS_CHECKOUT = not (_PACKAGE / "data").is_dir()
SHIPPED = _PACKAGE.parent if IS_CHECKOUT else _PACKAGE / "data"

# the library of the tests
LIB = SHIPPED / "guest-tests" / "lib"

# a folder with one of these is a user overlay
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
    """Whether a folder has any file that Cowbell reads."""
    return any(any(folder.glob(mark)) for mark in _MARKS)


def list_layers(root: Path, shipped: Path = SHIPPED) -> tuple[Path, ...]:
    """The folders to read: the built-in files, then the user overlay, whose entries replace those."""
    return (shipped,) if root == shipped else (shipped, root)


def find_root(chosen: Path | None) -> Path:
    """The user overlay: ``-C``, or the first parent folder that is one; otherwise the built-in files.

    Raises ``UsageError`` if the folder of ``-C`` is not an overlay.
    """
    try:
        here = chosen or Path.cwd()
    except FileNotFoundError:
        raise UsageError("the current folder was removed", hint="cd to another one") from None
    for folder in [here] if chosen else [here, *here.parents]:
        if is_project(folder):
            return folder.resolve()
    if chosen:
        raise UsageError(
            "is not an overlay: it has no ci/matrix.yaml, guest-tests/, kconfigs/ or patches/",
            where=str(here),
            hint="without -C, the current folder and its parents are searched",
        )
    return SHIPPED
