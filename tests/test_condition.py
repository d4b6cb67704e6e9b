# SPDX-License-Identifier: GPL-2.0-or-later
"""When a declaration holds."""

import pytest

from orchestrator.project import condition
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Condition, Version


@pytest.fixture(autouse=True)
def two_arches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(condition, "ARCHES", {**ARCHES, "aarch64": ARCHES["x86_64"]})


def test_versions_are_numbers() -> None:
    texts = ["5.9", "5.10", "5.10.1", "v5.15", "5.15.138", "6.1", "6.12"]
    versions = [Version.parse(text) for text in texts]
    assert versions == sorted(versions)
    assert len(set(versions)) == len(texts)
    assert Version.parse("5.19") == Version.parse("v5.19.0")
    assert str(Version.parse("v5.10.262")) == "5.10.262"


@pytest.mark.parametrize("text", ["5", "5.", "5.15-rc1", "five", "5.10.1.2", "", " 5.10", "5.10\n"])
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match="expected a kernel version like 5.15"):
        Version.parse(text)


@pytest.mark.parametrize(
    ("text", "arch", "version", "holds"),
    [
        ("", "x86_64", "5.10", True),
        ("kernel>=5.0", "x86_64", "5.0", True),
        ("kernel>=5.0", "x86_64", "4.19.300", False),
        ("kernel<5.19", "x86_64", "5.18.99", True),
        ("kernel<5.19", "x86_64", "5.19", False),
        ("kernel<=5.10", "x86_64", "5.10.0", True),
        ("kernel<=5.10", "x86_64", "5.10.1", False),
        ("kernel>5.10", "x86_64", "5.10", False),
        ("kernel>5.10", "x86_64", "5.10.1", True),
        ("kernel>=5.9 kernel<5.19", "x86_64", "5.10.226", True),
        ("kernel>=5.9 kernel<5.19", "x86_64", "6.1", False),
        ("kernel>=5.9 kernel<5.19", "x86_64", "5.8", False),
        ("arch=x86_64", "aarch64", "5.10", False),
        ("arch=x86_64,aarch64", "aarch64", "5.10", True),
        ("arch=x86_64,aarch64 kernel<5.0", "aarch64", "5.10", False),
        ("kernel<6.1.191 or kernel>=6.2 kernel<6.12.11", "x86_64", "6.1.190", True),
        ("kernel<6.1.191 or kernel>=6.2 kernel<6.12.11", "x86_64", "6.1.191", False),
        ("kernel<6.1.191 or kernel>=6.2 kernel<6.12.11", "x86_64", "6.12.10", True),
        ("kernel<6.1.191 or kernel>=6.2 kernel<6.12.11", "x86_64", "6.12.11", False),
        ("arch=aarch64 or kernel<5.0", "x86_64", "5.10", False),
        ("arch=aarch64 or kernel<5.0", "aarch64", "5.10", True),
    ],
)
def test_condition_holds(text: str, arch: str, version: str, *, holds: bool) -> None:
    assert Condition.parse(text).holds(arch, Version.parse(version)) is holds


def test_every_word_must_hold() -> None:
    both = Condition.parse("arch=x86_64 arch=aarch64")
    assert not both.holds("x86_64", Version.parse("5.10"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("kernel=5.10", "'kernel=5.10'"),
        ("arch>=x86_64", "'arch>=x86_64'"),
        ("kernel>=5.0 memory>=2G", "'memory>=2G'"),
        ("kernel >= 5.0", "'kernel'"),
        ("kernel>=", "'kernel>='"),
        ("kernel>=5", "expected a kernel version"),
        ("kernel>=5.15-rc1", "'5.15-rc1'"),
        ("kernel>=5.15 or", "either side of 'or'"),
        ("or kernel>=5.15", "either side of 'or'"),
        ("kernel>=5.15 or memory>=2G", "'memory>=2G'"),
    ],
)
def test_word_that_is_not_understood_is_named(text: str, told: str) -> None:
    with pytest.raises(ValueError, match="expected") as raised:
        Condition.parse(text)
    assert told in str(raised.value)


def test_alternatives_hold_for_any_architecture() -> None:
    either = Condition.parse("kernel<6.1.191 or kernel>=6.2 kernel<6.12.11")
    assert [either.holds_for(Version.parse(text)) for text in ("6.1.190", "6.1.191", "6.12.1", "6.13")] == [
        True,
        False,
        True,
        False,
    ]


def test_architecture_that_does_not_exist_is_refused() -> None:
    """``arch=amd64`` would never hold, and its symbols would be dropped silently."""
    with pytest.raises(ValueError, match="amd64"):
        Condition.parse("arch=amd64")


def test_one_of_several_conditions() -> None:
    """Each architecture may have its own version range."""
    both = Condition.parse("arch=x86_64 kernel>=5.19").either(Condition.parse("arch=aarch64 kernel>=6.10"))
    assert both.text == "arch=x86_64 kernel>=5.19 or arch=aarch64 kernel>=6.10"
    held = [both.holds(arch, Version.parse("6.1")) for arch in ("x86_64", "aarch64", "riscv64")]
    assert held == [True, False, False]
    assert both.holds("aarch64", Version.parse("6.12"))


@pytest.mark.parametrize(
    ("text", "version", "told"),
    [
        ("kernel<7.0", "7.0", "since 7.0"),
        ("kernel<7.0", "6.19", ""),
        ("kernel<5.10.3", "7.0", "since 5.10.3"),
        ("kernel<=6.12", "6.12.1", "after 6.12"),
        ("kernel<=6.12", "6.12", ""),
        ("kernel>=5.13 kernel<6.15", "5.10", ""),
        ("kernel>=5.13 kernel<6.15", "7.0", "since 6.15"),
        ("arch=aarch64 kernel<6.15", "7.0", ""),
    ],
)
def test_end_of_what_older_kernels_have(text: str, version: str, told: str) -> None:
    assert Condition.parse(text).describe_end("x86_64", Version.parse(version)) == told
