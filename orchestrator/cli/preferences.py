# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a user's default variables from ``cowbell.yaml`` in the configuration directory."""

import os
from pathlib import Path

import yaml

from orchestrator.cli.variables import VARIABLES, Setting
from orchestrator.errors import UsageError
from orchestrator.project.yamlfile import Reading, load_document, record, scalar
from orchestrator.store.store import find_home

_read_text = scalar(str)


def find_path() -> Path:
    """``~/.config/cowbell.yaml`` (XDG Base Directory)."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or find_home() / ".config") / "cowbell.yaml"


def load_preferences(path: Path) -> dict[str, Setting]:
    """The variables that are set there; none when there is no file.

    Raises ``UsageError`` with file and line for each unknown name and each value that is not text.
    """
    try:
        if not path.exists():
            return {}
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=str(path)) from None
    found: dict[str, Setting] = load_document(
        path, record(dict, {}, {name: _read_setting for name in VARIABLES})
    )
    return {name: setting for name, setting in found.items() if name in VARIABLES}


def _read_setting(reading: Reading, node: yaml.Node, path: str) -> Setting:
    place = reading.place(node, "")
    return Setting(_read_text(reading, node, path), f"{place.file}:{place.line}")
