# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments, their contradictions, and symbols that Kconfig dropped."""

import shutil
from pathlib import Path

import pytest

from orchestrator.errors import StageFailure, UsageError
from orchestrator.kernel.fragment import Fragment, load_file, load_fragments
from orchestrator.kernel.kconfig import (
    Config,
    SymbolState,
    compare_config,
    configure,
    make_config,
    parse_config,
)
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Version
from tests.conftest import FAKELINUX, ROOT

X86 = ARCHES["x86_64"]
V5_10 = Version.parse("5.10")


def load(folder: Path, **files: str) -> dict[str, Fragment]:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.config").write_text(f"#: about {name}\n{text}")
    return load_fragments(folder)


def merge(folder: Path, **files: str) -> Config:
    return make_config(list(files), load(folder, **files), X86, V5_10)


def told(raised: pytest.ExceptionInfo[ExceptionGroup[UsageError]]) -> list[str]:
    return [str(error) for error in raised.value.exceptions]


def test_fragment(tmp_path: Path) -> None:
    text = (
        "#: when     arch=x86_64 kernel>=5.0\n#: expect   STACKDEPOT=y KASAN_GENERIC  # selected\n"
        "#: optional KASAN_VMALLOC\n#: append   kasan_multi_shot\n# words\n\n"
        'CONFIG_KASAN=y\nCONFIG_KASAN_VMALLOC=y\n# CONFIG_SLUB is not set\nCONFIG_NAME="a b"\nCONFIG_OLD=n\n'
    )
    fragment = load(tmp_path, kasan=text)["kasan"]
    assert fragment.about == "kasan"
    assert fragment.when.text == "arch=x86_64 kernel>=5.0"
    assert fragment.append == "kasan_multi_shot"
    found = [(r.symbol, r.value, r.is_set, r.is_optional) for r in fragment.requests]
    assert found == [
        ("STACKDEPOT", "y", False, False),
        ("KASAN_GENERIC", "y", False, False),
        ("KASAN", "y", True, False),
        ("KASAN_VMALLOC", "y", True, True),
        ("SLUB", "n", True, False),
        ("NAME", '"a b"', True, False),
        ("OLD", "n", True, False),
    ]
    assert fragment.requests[2].where == f"{tmp_path}/kasan.config:8"


def test_every_faulty_line_of_every_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_text(
        "#: abuot what\nSWAP=y\nCONFIG_ FOO=y\n# CONFIG_BAR is unset\nCONFIG_BAZ=\n#: when kernel=5\n"
    )
    (tmp_path / "b.config").write_text("#: about b\nwords\n")
    with pytest.raises(ExceptionGroup) as raised:
        load_fragments(tmp_path)
    a, b = tmp_path / "a.config", tmp_path / "b.config"
    seen = [line.partition("\n")[0] for line in told(raised)]
    assert seen[:5] == [
        f"{a}:1: unknown header 'abuot'; did you mean about?",
        f"{a}:2: not understood: SWAP=y",
        f"{a}:3: not understood: CONFIG_ FOO=y",
        f"{a}:4: not understood: # CONFIG_BAR is unset",
        f"{a}:5: not understood: CONFIG_BAZ=",
    ]
    assert "kernel=5" in seen[5]
    assert seen[6:] == [f"{a}:1: missing '#: about' header", f"{b}:2: not understood: words"]


def test_wrong_condition_is_told_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        load(tmp_path, a="CONFIG_A=y\n#: when kernel=5\n")
    assert told(raised)[0].startswith(f"{tmp_path}/a.config:3: ")


def test_fragment_that_is_not_utf_8_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.config").write_bytes(b"#: about caf\xe9\n")
    with pytest.raises((UsageError, ExceptionGroup)):
        load_fragments(tmp_path)


def test_space_at_the_end_is_not_part_of_the_value(tmp_path: Path) -> None:
    """``y `` is no value: it would never survive, and the kernel would be blamed for it."""
    assert list_wrong(merge(tmp_path, a="CONFIG_SWAP=y \n"), "CONFIG_SWAP=y\n") == set()


def test_conflict_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        merge(tmp_path, a="CONFIG_SWAP=y\nCONFIG_KSM=y\n", b="# CONFIG_SWAP is not set\nCONFIG_KSM=m\n")
    first, second = told(raised)
    assert f"{tmp_path}/b.config:2: SWAP=n contradicts y in {tmp_path}/a.config:2" in first
    assert f"{tmp_path}/b.config:3: KSM=m contradicts y in {tmp_path}/a.config:3" in second
    assert "#: override SWAP" in first


def test_override_says_that_the_later_one_wins(tmp_path: Path) -> None:
    config = merge(tmp_path, a="CONFIG_NR_CPUS=8\n", b="#: override NR_CPUS\nCONFIG_NR_CPUS=64\n")
    assert config.render() == "CONFIG_NR_CPUS=64\n"


def test_override_works_in_the_later_one_only(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup):
        merge(tmp_path, a="#: override NR_CPUS\nCONFIG_NR_CPUS=8\n", b="CONFIG_NR_CPUS=64\n")


def test_fragment_that_does_not_hold_is_an_error(tmp_path: Path) -> None:
    """A row that requests 64 KiB pages must not run without them silently."""
    with pytest.raises(ExceptionGroup) as raised:
        merge(tmp_path, a="CONFIG_SWAP=y\n", b="#: when kernel>=6.0\n", c="#: when arch=aarch64\n")
    assert told(raised) == [
        "kconfig: fragment b needs kernel>=6.0, this is x86_64, 5.10.0",
        "kconfig: fragment c needs arch=aarch64, this is x86_64, 5.10.0",
    ]


def test_base_brings_the_architecture_s_fragment_along(tmp_path: Path) -> None:
    texts = {"base": "CONFIG_SMP=y\n", "cow": "CONFIG_SWAP=y\n"}
    for name in ARCHES:
        texts[name] = f"#: when arch={name}\n#: append {name}\nCONFIG_{name.upper()}=y\n"
    fragments = load(tmp_path, **texts)
    for arch in ARCHES.values():
        config = make_config(["base", "cow"], fragments, arch, V5_10)
        assert [r.symbol for r in config.requests] == ["SMP", arch.name.upper(), "SWAP"]
        assert config.append == arch.name
        # also where a row names those of several architectures
        assert make_config(["base", *ARCHES, "cow"], fragments, arch, V5_10).append == arch.name
    assert make_config(["cow"], fragments, X86, V5_10).append == ""


def test_symbol_that_is_not_everywhere(tmp_path: Path) -> None:
    text = (
        "#: only arch=x86_64 OLD SOFT  # no spare bit\n#: only kernel>=5.13 NEW  # since v5.13\n"
        "CONFIG_OLD=y\nCONFIG_NEW=y\nCONFIG_SWAP=y\n#: expect SOFT=y\n"
    )
    fragments = load(tmp_path, a=text)
    config = make_config(["a"], fragments, X86, V5_10)
    assert [r.symbol for r in config.requests] == ["OLD", "SWAP", "SOFT"]
    (new,) = config.unsupported
    assert (new.symbol, new.only.text, new.why_only) == ("NEW", "kernel>=5.13", "since v5.13")
    config = make_config(["a"], fragments, ARCHES["aarch64"], Version.parse("5.13"))
    assert [r.symbol for r in config.requests] == ["NEW", "SWAP"]
    assert [r.symbol for r in config.unsupported] == ["OLD", "SOFT"]


def test_faulty_bounds_at_once(tmp_path: Path) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        load(
            tmp_path,
            a="#: only arch=x86_64 SWAP\n#: only SWAP  # why\n#: only kernel>=5.0  # why\n"
            "#: only arch=z80 KSM  # why\n#: only arch=x86_64 KMS  # why\n#: override FROB\n"
            "CONFIG_SWAP=y\nCONFIG_KSM=y\n",
        )
    seen = [line.partition("\n")[0].removeprefix(f"{tmp_path}/a.config:") for line in told(raised)]
    assert seen == [
        "2: expected conditions, symbols and a reason",
        "3: expected conditions, symbols and a reason",
        "3: SWAP has two 'only' lines for the same architecture",
        "4: expected conditions, symbols and a reason",
        "5: there is no architecture z80, expected one of " + ", ".join(ARCHES),
        "6: only KMS: not requested by this fragment; did you mean KSM?",
        "7: override FROB: not requested by this fragment",
    ]


WHOLE = """#
# Automatically generated file; DO NOT EDIT.
# Linux/x86 6.9.0 Kernel Configuration
#
CONFIG_SMP=y
CONFIG_NR_CPUS=64
CONFIG_KASAN=y
# CONFIG_SWAP is not set
CONFIG_CC_VERSION_TEXT="gcc (GCC) 14"
"""


def test_whole_config_gives_way_to_fragments(tmp_path: Path) -> None:
    """Its symbols may be dropped, those of the fragments may not."""
    path = tmp_path / "my.config"
    path.write_text(WHOLE)
    whole = load_file(path, "./my.config")
    assert whole.is_whole and whole.name == "./my.config"
    fragments = load(tmp_path / "fragments", a="#: about a\nCONFIG_SWAP=y\nCONFIG_NR_CPUS=2\nCONFIG_SMP=y\n")
    for names in (["a", whole.name], [whole.name, "a"]):
        config = make_config(names, {**fragments, whole.name: whole}, X86, V5_10)
        found = {request.symbol: (request.value, request.is_optional) for request in config.requests}
        assert found == {
            "SMP": ("y", False),
            "NR_CPUS": ("2", False),
            "KASAN": ("y", True),
            "SWAP": ("y", False),
            "CC_VERSION_TEXT": ('"gcc (GCC) 14"', True),
        }


def test_file_of_the_command_line_that_is_a_fragment(tmp_path: Path) -> None:
    path = tmp_path / "my.config"
    path.write_text("#: append quiet\nCONFIG_KASAN=y\n")
    fragment = load_file(path, "./my.config")
    assert not fragment.is_whole and fragment.append == "quiet"
    assert not fragment.requests[0].is_optional
    for text, what in (("words\n", f"{path}:1: not understood: words"), ("# none\n", "sets no symbol")):
        path.write_text(text)
        with pytest.raises(ExceptionGroup) as raised:
            load_file(path, "./my.config")
        assert what in str(raised.value.exceptions[0])


def test_unknown_fragments_at_once(tmp_path: Path) -> None:
    fragments = load(tmp_path, kasan="", lockdep="")
    with pytest.raises(ExceptionGroup) as raised:
        make_config(["kasn", "kasan", "frob"], fragments, X86, V5_10)
    assert told(raised) == [
        "kconfig: there is no fragment kasn; did you mean kasan?",
        "kconfig: there is no fragment frob",
    ]


def test_identity_is_what_is_asked_of_kconfig(tmp_path: Path) -> None:
    one = merge(tmp_path / "1", a="CONFIG_SWAP=y\n")
    assert merge(tmp_path / "2", a="# why\nCONFIG_SWAP=y\n#: append quiet\n").config_id == one.config_id
    assert merge(tmp_path / "3", a="CONFIG_SWAP=m\n").config_id != one.config_id
    assert merge(tmp_path / "4", a="CONFIG_SWAP=y\n#: optional SWAP\n").config_id != one.config_id


def test_expectation_of_a_later_fragment_does_not_unset(tmp_path: Path) -> None:
    config = merge(tmp_path, a="CONFIG_SWAP=y\n", b="#: expect SWAP=y\n")
    assert config.render() == "CONFIG_SWAP=y\n"


def test_symbol_that_one_fragment_demands_is_not_optional(tmp_path: Path) -> None:
    config = merge(tmp_path, a="CONFIG_KSM=y\n", b="#: optional KSM\nCONFIG_KSM=y\n")
    assert list_wrong(config, "# CONFIG_KSM is not set\n") == {("KSM", "y", "n", SymbolState.DROPPED)}


def test_parse_config() -> None:
    text = '#\n# Automatically generated\n#\nCONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C="x y"\nCONFIG_D=8\n'
    assert parse_config(text) == {"A": "y", "B": "n", "C": '"x y"', "D": "8"}


def test_compare_config_takes_no_m_for_y(tmp_path: Path) -> None:
    text = "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=y\n#: optional D\nCONFIG_D=y\n#: expect E=m\n"
    config = merge(tmp_path, a=text)
    assert list_wrong(config, "CONFIG_A=y\nCONFIG_C=y\nCONFIG_E=m\n") == set()
    assert list_wrong(config, "CONFIG_A=m\nCONFIG_B=y\nCONFIG_E=y\n") == {
        ("A", "y", "m", SymbolState.CHANGED),
        ("B", "n", "y", SymbolState.CHANGED),
        ("C", "y", "n", SymbolState.DROPPED),
        ("E", "m", "y", SymbolState.CHANGED),
    }


def test_unsupported_is_no_error_and_says_why(tmp_path: Path) -> None:
    config = merge(tmp_path, a="#: only kernel>=5.13 NEW  # since v5.13\nCONFIG_NEW=y\nCONFIG_OLD=y\n")
    assert list_wrong(config, "CONFIG_OLD=y\n") == set()
    old, new = compare_config(config, "CONFIG_OLD=y\n")
    assert (old.state, old.reason) == (SymbolState.SURVIVED, "")
    assert (new.state, new.got, new.reason) == (
        SymbolState.UNSUPPORTED,
        "n",
        "only kernel>=5.13: since v5.13",
    )


def list_wrong(config: Config, text: str) -> set[tuple[str, str, str, SymbolState]]:
    wrong = [outcome for outcome in compare_config(config, text) if outcome.is_error]
    return {(o.request.symbol, o.request.value, o.got, o.state) for o in wrong}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return shutil.copytree(FAKELINUX, tmp_path / "kernel")


def run_kconfig(config: Config, kernel: Path) -> str:
    build_dir = kernel.parent / "build"
    build_dir.mkdir(exist_ok=True)
    return configure(config, kernel, build_dir, ["make", f"O={build_dir}"], {})


def test_configure(tmp_path: Path, kernel: Path) -> None:
    config = merge(
        tmp_path / "f", a="CONFIG_BLOCK=y\nCONFIG_SWAP=y\n#: expect MMU=y\n# CONFIG_KSM is not set\n"
    )
    text = run_kconfig(config, kernel)
    assert parse_config(text).items() >= {"BLOCK": "y", "SWAP": "y", "MMU": "y", "KSM": "n"}.items()


@pytest.mark.parametrize(
    ("text", "taken", "set_symbols"),
    [
        ("#: one-of KSM DEBUG_VM\n", "KSM", {"KSM"}),
        ("#: one-of FROB KSM\n", "KSM", {"KSM"}),
        # it is there, but what it depends on is not
        ("#: one-of SWAP FROB KSM DEBUG_VM\n", "KSM", {"KSM"}),
        # another line of the fragment has decided already
        ("#: one-of FROB KSM DEBUG_VM\nCONFIG_DEBUG_VM=y\n", "DEBUG_VM", {"DEBUG_VM"}),
        ("#: one-of FROB KSM\n#: only kernel>=6.0 FROB  # since v6.0\n", "KSM", {"KSM"}),
    ],
)
def test_first_alternative_that_the_kernel_offers(
    tmp_path: Path, kernel: Path, text: str, taken: str, set_symbols: set[str]
) -> None:
    config = merge(tmp_path / "f", a=text)
    made = run_kconfig(config, kernel)
    assert {name for name, value in parse_config(made).items() if value == "y"} == {"MMU", *set_symbols}
    outcome = compare_config(config, made)[0]
    assert (outcome.state, outcome.got, outcome.taken) == (SymbolState.SURVIVED, "y", taken)


def test_alternatives_of_which_none_survives(tmp_path: Path, kernel: Path) -> None:
    config = merge(tmp_path / "f", a="#: one-of SWAP FROB\nCONFIG_SMP=y\n")
    with pytest.raises(StageFailure) as raised:
        run_kconfig(config, kernel)
    assert raised.value.hint == (
        f"{tmp_path}/f/a.config:2: SWAP or FROB: requested y, got n: "
        "SWAP: it needs BLOCK (add CONFIG_BLOCK=y); FROB: there is no such symbol in this kernel"
    )


def test_alternatives_of_two_fragments(tmp_path: Path) -> None:
    """One that demands a symbol leaves no choice; other bounds are another config."""
    plain = merge(tmp_path / "1", a="CONFIG_KSM=y\n")
    both = merge(tmp_path / "2", a="#: one-of KSM SWAP\n", b="CONFIG_KSM=y\n")
    assert both.config_id == plain.config_id
    alone = merge(tmp_path / "3", a="#: one-of KSM SWAP\n")
    assert alone.config_id != plain.config_id
    bounded = merge(tmp_path / "4", a="#: one-of KSM SWAP\n#: only kernel>=6.0 SWAP  # since v6.0\n")
    assert bounded.config_id == plain.config_id
    with pytest.raises(ExceptionGroup) as raised:
        load(tmp_path / "5", a="#: one-of KSM\n")
    assert "a.config:2: expected at least two symbols" in told(raised)[0]


def test_symbol_that_a_newer_kernel_dropped_is_gone(tmp_path: Path) -> None:
    text = (
        "#: only kernel<6.15 SCHED  # always there since v6.15\n#: only kernel<=5.9.3 OLD  # why\n"
        "#: only kernel>=5.8 kernel<5.10 SHORT  # why\n#: only arch=x86_64 kernel>=6.0 NEW  # since v6.0\n"
        "#: only arch=aarch64 kernel<6.0 ARM  # why\n"
        "CONFIG_SCHED=y\nCONFIG_OLD=y\nCONFIG_SHORT=y\nCONFIG_NEW=y\nCONFIG_ARM=y\n"
    )
    outcomes = compare_config(merge(tmp_path, a=text), "CONFIG_SCHED=y\n")
    assert [(o.request.symbol, o.state, o.reason) for o in outcomes] == [
        ("SCHED", SymbolState.SURVIVED, ""),
        ("OLD", SymbolState.GONE, "gone after 5.9.3: why"),
        ("SHORT", SymbolState.GONE, "gone since 5.10: why"),
        ("NEW", SymbolState.UNSUPPORTED, "only arch=x86_64 kernel>=6.0: since v6.0"),
        ("ARM", SymbolState.UNSUPPORTED, "only arch=aarch64 kernel<6.0: why"),
    ]
    assert not [outcome for outcome in outcomes if outcome.is_error]


def test_bounds_of_each_architecture(tmp_path: Path) -> None:
    text = (
        "#: only arch=x86_64 kernel>=5.0 WP  # since v5.0\n"
        "#: only arch=aarch64 kernel>=6.10 WP  # since v6.10\nCONFIG_WP=y\n"
    )
    fragments = load(tmp_path, a=text)
    assert make_config(["a"], fragments, X86, V5_10).requests
    config = make_config(["a"], fragments, ARCHES["aarch64"], V5_10)
    (outcome,) = compare_config(config, "")
    assert outcome.state is SymbolState.UNSUPPORTED
    assert outcome.reason == (
        "only arch=x86_64 kernel>=5.0 or arch=aarch64 kernel>=6.10: since v5.0; since v6.10"
    )
    assert make_config(["a"], fragments, ARCHES["aarch64"], Version.parse("6.12")).requests


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    text = 'CONFIG_START=0x01000000\nCONFIG_CPUS=008\nCONFIG_NAME="08"\n'
    again = "CONFIG_START=0x1000000\nCONFIG_CPUS=8\n"
    config = merge(tmp_path, a=text, b=again)
    assert list_wrong(config, 'CONFIG_START=0x1000000\nCONFIG_CPUS=8\nCONFIG_NAME="08"\n') == set()
    assert list_wrong(config, 'CONFIG_START=0x1000\nCONFIG_CPUS=8\nCONFIG_NAME="8"\n') == {
        ("START", "0x1000000", "0x1000", SymbolState.CHANGED),
        ("NAME", '"08"', '"8"', SymbolState.CHANGED),
    }


def test_prose_may_name_symbols(tmp_path: Path) -> None:
    text = "# slow with CONFIG_KASAN=y\n# CONFIG_SWAP is what reclaim needs\n#CONFIG_KSM=y\nCONFIG_SMP=y\n"
    assert [request.symbol for request in load(tmp_path, a=text)["a"].requests] == ["SMP"]


@pytest.mark.parametrize(
    "line",
    ["# CONFIG_BAR is unset", "#CONFIG_BAR is not set", "# CONFIG_BAR not set.", "# CONFIG_BAR is Not Set"],
)
def test_misspelt_order_to_unset_is_no_prose(tmp_path: Path, line: str) -> None:
    with pytest.raises(ExceptionGroup) as raised:
        load(tmp_path, a=f"{line}\n")
    assert f"a.config:2: not understood: {line}" in told(raised)[0]


def test_unsetting_a_symbol_that_no_kconfig_file_has(tmp_path: Path, kernel: Path) -> None:
    """A typo; what only another architecture has is unset indeed."""
    (kernel / "arch/arm64").mkdir(parents=True)
    (kernel / "arch/arm64/Kconfig").write_text("config ARM64_FROB\n\tbool\n")
    config = merge(tmp_path / "1", a="# CONFIG_ARM64_FROB is not set\n# CONFIG_KSM is not set\n")
    run_kconfig(config, kernel)
    with pytest.raises(StageFailure) as raised:
        run_kconfig(merge(tmp_path / "2", a="# CONFIG_SWAPP is not set\n"), kernel)
    assert raised.value.hint == (
        f"{tmp_path}/2/a.config:2: SWAPP: requested n, got n: "
        "there is no such symbol in this kernel; did you mean SWAP?"
    )
    run_kconfig(merge(tmp_path / "3", a="#: optional SWAPP\n# CONFIG_SWAPP is not set\n"), kernel)


def test_dropped_symbols_are_named_with_line_requested_and_got(tmp_path: Path, kernel: Path) -> None:
    config = merge(
        tmp_path / "f",
        a="CONFIG_SMP=y\nCONFIG_SWAP=y\nCONFIG_FROBNICATE=y\n#: expect KSM=y\n"
        "#: optional DEBUG_FROB\nCONFIG_DEBUG_FROB=y\n",
    )
    with pytest.raises(StageFailure) as raised:
        run_kconfig(config, kernel)
    assert raised.value.stage == "kconfig"
    assert raised.value.what == "3 requested symbol(s) were dropped or changed"
    file = tmp_path / "f" / "a.config"
    assert [line.strip() for line in raised.value.hint.splitlines()] == [
        f"{file}:3: SWAP: requested y, got n: it needs BLOCK (add CONFIG_BLOCK=y)",
        f"{file}:4: FROBNICATE: requested y, got n: there is no such symbol in this kernel",
        f"{file}:5: KSM: requested y, got n: add CONFIG_KSM=y, nothing else sets it",
    ]
    assert not (tmp_path / "build" / ".config").exists()


def test_kconfig_that_does_not_parse_is_the_kernel_s_fault(tmp_path: Path, kernel: Path) -> None:
    (kernel / "FAIL").write_text("kconfig")
    with pytest.raises(StageFailure, match="kconfig|configure") as raised:
        run_kconfig(merge(tmp_path / "f", a="CONFIG_SMP=y\n"), kernel)
    assert "Kconfig:12: syntax error" in str(raised.value)


def test_shipped_fragments_merge() -> None:
    fragments = load_fragments(ROOT / "kconfigs")
    assert {"base", "x86_64", "cow"} <= set(fragments)
    for fragment in fragments.values():
        assert fragment.about
        assert fragment.requests or fragment.append
    config = make_config(["base", "x86_64", "cow"], fragments, X86, V5_10)
    assert "CONFIG_SMP=y" in config.render()
