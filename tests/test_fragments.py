# SPDX-License-Identifier: GPL-2.0-or-later
"""The shipped fragments: what each of them asks for is what a kernel gets, on the trees that Debian ships."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure
from orchestrator.kernel.build import find_toolchain
from orchestrator.kernel.configcheck import open_kconfig_tree
from orchestrator.kernel.fragment import Fragment, load_fragments
from orchestrator.kernel.kconfig import configure, make_config, report_config
from orchestrator.project.arch import ARCHES, Arch
from orchestrator.project.condition import Version
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.tree import load_trees
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress

FRAGMENTS = load_fragments(ROOT / "kconfigs")
ALONE = [name for name in FRAGMENTS if name not in ("base", "cow", *ARCHES)]


def is_for(fragment: Fragment, arch: Arch, version: Version) -> bool:
    return fragment.when.holds(arch.name, version)


@pytest.mark.parametrize("name", FRAGMENTS)
def test_every_fragment_asks_for_something_once(name: str) -> None:
    fragment = FRAGMENTS[name]
    symbols = [request.symbol for request in fragment.requests]
    assert symbols
    assert len(symbols) == len(set(symbols))


@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
def test_fragments_compose(arch: Arch) -> None:
    """All at once, apart from a second page size: those that contradict each other say so, with override."""
    version = Version.parse("6.12")
    names = [n for n in ALONE if is_for(FRAGMENTS[n], arch, version) and n != "aarch64-16k"]
    config = make_config(["base", "cow", *names], FRAGMENTS, arch, version)
    values = {request.symbol: request.value for request in config.requests}
    assert values["SWAP"] == "n", "noswap comes after cow"
    assert values["KSM"] == "y"


def test_every_architecture_has_its_fragment() -> None:
    assert set(ARCHES) <= set(FRAGMENTS)


# what Debian ships: with each new one a test breaks here, and no user's run
TREES = [name for name in load_trees(ROOT / "patches/trees.yaml") if re.fullmatch(r"debian-\d+\.\d+", name)]
# they contradict cow or the other size of pages, not each other
APART = ("aarch64-16k", "nosoftdirty", "noswap")


@pytest.mark.kernel
@pytest.mark.parametrize("tree", TREES)
def test_every_fragment_holds_on_every_tree(tree: str, kernel_store: Store, tmp_path: Path) -> None:
    """All at once, but for those that contradict others. Kconfig is all that runs, twice an architecture."""
    src = fetch_tree(load_trees(ROOT / "patches/trees.yaml")[tree], kernel_store, QuietProgress())
    lost: list[str] = []
    with open_kconfig_tree(src, kernel_store) as folder:
        for arch in ARCHES.values():
            fit = [name for name in FRAGMENTS if is_for(FRAGMENTS[name], arch, src.version)]
            if arch.name not in fit:
                continue
            make = ["make", *find_toolchain(arch).make_words, f"O={tmp_path}"]
            together = ("base", "cow", *(name for name in fit if name in ALONE and name not in APART))
            for names in (together, ("base", *(name for name in fit if name in APART))):
                config = make_config(names, FRAGMENTS, arch, src.version)
                try:
                    configure(config, folder, tmp_path, make, {})
                except StageFailure as failure:
                    lost.append(f"{arch.name} {','.join(names)}: {failure}")
    assert not lost, "\n".join(lost)


@pytest.mark.kernel
@pytest.mark.parametrize("arch", ARCHES.values(), ids=ARCHES)
@pytest.mark.parametrize("tree", [TREES[0], TREES[-1]])
def test_no_fragment_needs_another(tree: str, arch: Arch, kernel_store: Store, tmp_path: Path) -> None:
    """Each on top of base and cow, on the oldest and the newest tree."""
    src = fetch_tree(load_trees(ROOT / "patches/trees.yaml")[tree], kernel_store, QuietProgress())
    if not is_for(FRAGMENTS[arch.name], arch, src.version):
        pytest.skip(f"{arch.name} is {FRAGMENTS[arch.name].when.text}")
    words = find_toolchain(arch).make_words
    lost: list[str] = []
    with open_kconfig_tree(src, kernel_store) as folder:
        for name in ALONE:
            if is_for(FRAGMENTS[name], arch, src.version):
                config = make_config(["base", "cow", name], FRAGMENTS, arch, src.version)
                outcomes = report_config(config, folder, tmp_path, words)
                assert {outcome.request for outcome in outcomes} == {*config.requests, *config.unsupported}
                lost += [f"{name}: {outcome}" for outcome in outcomes if outcome.is_error]
    assert not lost, "\n".join(lost)


def test_virtme_fragment_is_what_its_command_makes(tmp_path: Path) -> None:
    """Made anew when virtme-ng is: a newer one may ask for more."""
    for name in ("ci", "kconfigs"):
        (tmp_path / name).mkdir()
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    script = tmp_path / "ci/virtme-config"
    script.write_text((ROOT / "ci/virtme-config").read_text())
    script.chmod(0o755)
    subprocess.run([script], check=True)
    made = (tmp_path / "kconfigs/virtme.config").read_text().splitlines()
    kept = (ROOT / "kconfigs/virtme.config").read_text().splitlines()
    assert [line for line in made if "virtme-ng 1." not in line] == [
        line for line in kept if "virtme-ng 1." not in line
    ]
