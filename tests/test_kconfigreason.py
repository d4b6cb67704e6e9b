# SPDX-License-Identifier: GPL-2.0-or-later
"""Why Kconfig did not do as asked: each reason names what would."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.kernel.kconfigreason import _Kconfig, explain_symbols, make_environment

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

config LTO_CLANG
	bool
	transitional
	help
		Its new name is LTO.

config BUS
	tristate "Bus"

config PEER
	tristate "Peer"

config CARD
	tristate "Card"
	depends on BUS if PEER

config BOTH
	tristate "Both"
	depends on (BUS) if PEER && !CRYPTO # said so

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
        ("S390", "y", [], "not a symbol of this architecture: it is defined in arch/s390/Kconfig"),
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
        ("NOT_HERE", "y", [], "it needs S390, which is not a symbol of this architecture"),
        ("FOUND", "y", [], "it needs support by the compiler or host"),
        (
            "MMU_NOTIFIER",
            "y",
            [],
            "it has no prompt, so it cannot be set: request one of KVM",
        ),
        ("HAVE_SOFT_DIRTY", "y", [], "it has no prompt, so it cannot be set: its default applies"),
        ("ARCH_HAS_DMA", "n", [], "it has no prompt, so it cannot be unset: its default applies"),
        ("MMU_NOTIFIER", "n", ["CONFIG_KVM=y"], "it is selected by KVM: remove that"),
        ("PAGES_64K", "y", [], "its choice selected PAGES_4K: request only one of PAGES_4K, PAGES_64K"),
        ("PAGES_4K", "n", [], "it is selected by its choice: request another one of PAGES_4K, PAGES_64K"),
        ("NR_CPUS", "9999", [], "out of range: 2 to 512 is allowed"),
        ("NR_CPUS", "8", [], "add CONFIG_NR_CPUS=8, nothing else sets it"),
        ("CRYPTO", "n", ["CONFIG_CRYPTO=y"], "add '# CONFIG_CRYPTO is not set'"),
        ("NR_CPUS", "y", [], "it is int, y is not a valid value"),
        ("NAME", "y", [], "it is string, y is not a valid value"),
        ("CRYPTO", "8", [], "it is bool, 8 is not a valid value"),
        ("ZRAM", "m", [], "modules are off: add CONFIG_MODULES=y"),
        ("CRYPTO", "m", ["CONFIG_MODULES=y"], "it is bool, m is not a valid value"),
        ("CRYPTO", "y", [], "add CONFIG_CRYPTO=y, nothing else sets it"),
        ("LTO_CLANG", "y", [], "it has no prompt, so it cannot be set: its default applies"),
        # BUS || PEER = n
        ("CARD", "y", [], "add CONFIG_CARD=y, nothing else sets it"),
        ("CARD", "y", ["CONFIG_PEER=y"], "it needs BUS || PEER = n (add CONFIG_BUS=y)"),
        ("CARD", "m", ["CONFIG_MODULES=y", "CONFIG_PEER=m"], "it needs BUS || PEER = n (add CONFIG_BUS=y)"),
        ("CARD", "y", ["CONFIG_PEER=y", "CONFIG_BUS=y"], "add CONFIG_CARD=y, nothing else sets it"),
        ("BOTH", "y", ["CONFIG_PEER=y", "CONFIG_CRYPTO=y"], "add CONFIG_BOTH=y, nothing else sets it"),
        ("BOTH", "y", ["CONFIG_PEER=y"], "it needs BUS || PEER = n || CRYPTO = y (add CONFIG_BUS=y)"),
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


def test_conditional_dependencies_are_those_of_the_kernel(tmp_path: Path) -> None:
    """Every value of three tristates, by the truth table of ``X || Y = n``: one of ``m`` is no ``n``."""
    names = ("X", "Y", "Z")
    head = "".join(f'config {name}\n\ttristate "{name}"\n\n' for name in names)
    conditions: dict[str, Callable[[int, int], int]] = {
        "Y": lambda y, z: y,
        "Y && Z": min,
        "Y || Z": max,
        "!Y": lambda y, z: 2 - y,
    }
    body = "".join(
        f'config C{number}\n\ttristate "C"\n\tdepends on X if {condition}\n\n'
        for number, condition in enumerate(conditions)
    )
    (tmp_path / "Kconfig").write_text(f"config MODULES\n\tdef_bool y\n\tmodules\n\n{head}{body}")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        kconf = _Kconfig("Kconfig", warn=False)
    for values in itertools.product(range(3), repeat=3):
        for name, value in zip(names, values, strict=True):
            kconf.syms[name].set_value(value)
        x, y, z = values
        for number, value_of in enumerate(conditions.values()):
            wanted = x if value_of(y, z) else 2
            assert kconf.syms[f"C{number}"].visibility == wanted, (number, values)


def test_tree_with_an_invented_keyword(tmp_path: Path) -> None:
    """The next kernel may have one: what its Kconfig files say of a symbol is quoted then."""
    (tmp_path / "mm").mkdir()
    (tmp_path / "arch/x86").mkdir(parents=True)
    (tmp_path / "arch/s390").mkdir()
    (tmp_path / "Kconfig").write_text('source "mm/Kconfig"\n')
    (tmp_path / "mm/Kconfig").write_text(
        'config SWAP\n\tbool "Swap" # of pages\n\tdepends on BLOCK \\\n\t\t&& MMU\n\n\tfrobnicate BLOCK\n'
        '\thelp\n\t  depends on nothing\n\nconfig SWAPFILE\n\tbool\n\nmenuconfig NUMA\n\tbool "NUMA"\n'
    )
    (tmp_path / "arch/x86/Kconfig").write_text("config NUMA\n\tdepends on SMP\n")
    (tmp_path / "arch/s390/Kconfig").write_text("config NUMA\n\tdef_bool y\n\nconfig S390\n\tdef_bool y\n")
    (tmp_path / "config").write_text("")
    environment = make_environment(tmp_path, "9.0", ["ARCH=x86_64"])
    wanted = {"SWAP": "y", "NUMA": "y", "S390": "y", "FROB": "y"}
    told = explain_symbols(wanted, tmp_path / "config", environment)
    assert [line.strip() for line in told["SWAP"].splitlines()[:-1]] == [
        "see its definition:",
        "mm/Kconfig:1:",
        "config SWAP",
        'bool "Swap" # of pages',
        "depends on BLOCK \\",
        "&& MMU",
        "frobnicate BLOCK",
    ]
    assert "Kconfiglib cannot parse this tree: mm/Kconfig:6" in told["SWAP"].splitlines()[-1]
    assert "arch/x86/Kconfig:1:" in told["NUMA"]
    assert "mm/Kconfig:13:" in told["NUMA"]
    assert "s390" not in told["NUMA"]
    assert told["S390"] == "not a symbol of this architecture: it is defined in arch/s390/Kconfig:4"
    assert told["FROB"] == "there is no such symbol in 9.0"


def test_tree_that_is_not_understood(tmp_path: Path) -> None:
    (tmp_path / "Kconfig").write_text("frobnicate\n")
    (tmp_path / "config").write_text("")
    environment = make_environment(tmp_path, "9.0", ["ARCH=x86_64"])
    told = explain_symbols({"A": "y"}, tmp_path / "config", environment)
    assert told["A"].startswith("there is no such symbol in 9.0\n")
    assert "Kconfiglib cannot parse this tree: Kconfig:1" in told["A"]
