# SPDX-License-Identifier: GPL-2.0-or-later
"""What every test gets: a home of its own, and for real kernels a store that lasts from run to run."""

import os
from pathlib import Path

import pytest

# before any test moves the home: kernels are built once, and ccache is the user's
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
VARIABLES = ("ROW", "KERNEL", "SERIES", "TESTS", "ACCEL", "RUN", "ARCH", "MAKEFLAGS", "MAKELEVEL")


@pytest.fixture(scope="session")
def kernel_store_root() -> Path:
    return CACHE / "cowbell-tests"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    monkeypatch.setenv("COWBELL_STORE", str(tmp_path / "store"))
