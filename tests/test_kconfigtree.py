# SPDX-License-Identifier: GPL-2.0-or-later
"""Why Kconfig did not do as asked: each reason names what would."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.kernels.kconfigtree import explain_symbols, make_environment

KCONFIG = """
config MODULES
	bool "Enable loadable module support"
	modules

config HAVE_SOFT_DIRTY
	bool

config ARCH_HAS_DMA
	def_bool y

config CRYPTO
	bool "Cryptographic API"

config CRYPTO_LZO
	bool "LZO"
	depends on CRYPTO

config CRYPTO_ZSTD
	bool "ZSTD"

config ZSMALLOC
	bool "Memory allocator for compressed pages"
	depends on MMU_NOTIFIER && !TINY

config MMU_NOTIFIER
	bool

config KVM
	bool "Virtualization"
	select MMU_NOTIFIER

config TINY
	bool "Smallest"

config ZRAM
	tristate "Compressed RAM block device"
	depends on ZSMALLOC && (CRYPTO_LZO || CRYPTO_ZSTD)

config SOFT_DIRTY
	bool "Track memory changes"
	depends on HAVE_SOFT_DIRTY

config EXPERT_ONLY
	bool "For experts" if CRYPTO

config NOT_HERE
	bool "Needs another architecture"
	depends on S390

config NR_CPUS
	int "Maximum number of CPUs"
	range 2 512
	default 64

config NAME
	string "A name"
	default "none"

config FOUND
	bool "What the compiler has"
	depends on $(shell,test "$(CC)" = has-it && echo y || echo n)

choice
	prompt "Page size"
	default PAGES_4K

config PAGES_4K
	bool "4 KiB"

config PAGES_64K
	bool "64 KiB"

endchoice
"""

Explain = Callable[..., str]


@pytest.fixture
def explain(tmp_path: Path) -> Explain:
    """``explain(symbol, wanted, *lines)``: the reason, with a ``.config`` of these lines."""
    (tmp_path / "Kconfig").write_text(KCONFIG)
    (tmp_path / "arch/s390").mkdir(parents=True)
    (tmp_path / "arch/s390/Kconfig").write_text("config S390\n\tdef_bool y\n")

    def call(symbol: str, wanted: str, *lines: str, cc: str = "gcc") -> str:
        config = tmp_path / "config"
        config.write_text("\n".join(lines) + "\n")
        environment = make_environment(tmp_path, "5.10.262", ["ARCH=x86_64", f"CC=ccache {cc}"])
        return explain_symbols({symbol: wanted}, config, environment)[symbol]

    return call


@pytest.mark.parametrize(
    ("symbol", "wanted", "lines", "reason"),
    [
        ("CRYPTO_LZP", "y", [], "there is no such symbol in 5.10.262; did you mean CRYPTO_LZO?"),
        ("S390", "y", [], "no symbol of this architecture: it is defined in arch/s390/Kconfig"),
        ("CRYPTO_LZO", "y", [], "it needs CRYPTO (add CONFIG_CRYPTO=y)"),
        ("EXPERT_ONLY", "y", [], "it needs CRYPTO (add CONFIG_CRYPTO=y)"),
        (
            "ZRAM",
            "y",
            [],
            "it needs ZSMALLOC (add CONFIG_ZSMALLOC=y; ZSMALLOC needs MMU_NOTIFIER, which KVM would select)"
            " and CRYPTO_LZO || CRYPTO_ZSTD (add CONFIG_CRYPTO_ZSTD=y)",
        ),
        ("ZSMALLOC", "y", ["CONFIG_KVM=y", "CONFIG_TINY=y"], "it needs TINY unset (it is y)"),
        ("SOFT_DIRTY", "y", [], "it needs HAVE_SOFT_DIRTY, which this architecture does not have"),
        ("NOT_HERE", "y", [], "it needs S390, which is no symbol of this architecture"),
        ("FOUND", "y", [], "it needs what this compiler or host does not have"),
        (
            "MMU_NOTIFIER",
            "y",
            [],
            "it has no prompt, so it can not be set: ask for one of KVM",
        ),
        ("HAVE_SOFT_DIRTY", "y", [], "it has no prompt, so it can not be set: its default holds"),
        ("ARCH_HAS_DMA", "n", [], "it has no prompt, so it can not be unset: its default holds"),
        ("MMU_NOTIFIER", "n", ["CONFIG_KVM=y"], "it is selected by KVM: leave that out"),
        ("PAGES_64K", "y", [], "its choice went to PAGES_4K: ask for one of PAGES_4K, PAGES_64K only"),
        ("PAGES_4K", "n", [], "it is what its choice has chosen: ask for another of PAGES_4K, PAGES_64K"),
        ("NR_CPUS", "9999", [], "out of range: 2 to 512 is allowed"),
        ("NR_CPUS", "8", [], "add CONFIG_NR_CPUS=8, nothing else sets it"),
        ("CRYPTO", "n", ["CONFIG_CRYPTO=y"], "add '# CONFIG_CRYPTO is not set'"),
        ("NR_CPUS", "y", [], "it is int, y is no value of it"),
        ("NAME", "y", [], "it is string, y is no value of it"),
        ("CRYPTO", "8", [], "it is bool, 8 is no value of it"),
        ("ZRAM", "m", [], "modules are off: add CONFIG_MODULES=y"),
        ("CRYPTO", "m", ["CONFIG_MODULES=y"], "it is bool, m is no value of it"),
        ("CRYPTO", "y", [], "add CONFIG_CRYPTO=y, nothing else sets it"),
    ],
)
def test_reason(explain: Explain, symbol: str, wanted: str, lines: list[str], reason: str) -> None:
    assert explain(symbol, wanted, *lines) == reason


def test_reason_goes_with_the_compiler(explain: Explain) -> None:
    assert explain("FOUND", "y", cc="has-it") == "add CONFIG_FOUND=y, nothing else sets it"


def test_our_environment_is_left_as_it_was(explain: Explain) -> None:
    before = dict(os.environ)
    explain("CRYPTO", "y")
    assert dict(os.environ) == before


def test_tree_that_is_not_understood(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("frobnicate\n")
    (tmp_path / "config").write_text("")
    environment = make_environment(tmp_path, "9.0", ["ARCH=x86_64"])
    told = explain_symbols({"A": "y"}, tmp_path / "config", environment)
    assert told["A"].startswith("no reason known, its Kconfig files can not be read: Kconfig:1")
