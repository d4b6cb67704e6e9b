# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels of ``tests/fakelinux``: their configs and their builds."""

from pathlib import Path

from orchestrator.kernel import fragment
from orchestrator.kernel.build import BuildRequest, Kernel, build_kernel, find_toolchain
from orchestrator.kernel.kconfig import Config, make_config
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Version
from orchestrator.source.repository import Source
from orchestrator.store.store import Store
from tests.conftest import QuietProgress

X86 = ARCHES["x86_64"]
# a source that is not read
SOURCE = Source("s", "fake-5.10", "", Version.parse("5.10.226"), "b", "c", "t")


def write_config(
    folder: Path, src: Source, text: str = "CONFIG_PVH=y\nCONFIG_BLOCK=y\nCONFIG_SWAP=y\n"
) -> Config:
    """The config of one fragment, which is written to a folder."""
    folder.mkdir(exist_ok=True)
    (folder / "a.config").write_text(f"#: about a\n{text}")
    return make_config(["a"], fragment.load_fragments(folder), X86, src.version)


def request_build(src: Source, config: Config) -> BuildRequest:
    return BuildRequest(src, config, X86, find_toolchain(X86))


def build(src: Source, config: Config, store: Store, progress: QuietProgress, limit_s: float = 60) -> Kernel:
    return build_kernel(request_build(src, config), store, progress, limit_s=limit_s)
