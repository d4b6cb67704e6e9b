# SPDX-License-Identifier: GPL-2.0-or-later
"""KTAP streams and what the parser makes of them; above all that nothing missing ever looks like a pass."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.parse.ktap import Ktap, KtapParser, KtapResult, Rate, parse_ktap
from orchestrator.status import Status
from tests.conftest import LOGS

FAST = settings(max_examples=150, deadline=None, database=None)


def stream(*lines: str) -> Ktap:
    return parse_ktap("".join(f"{line}\n" for line in lines))


def statuses(ktap: Ktap) -> dict[str, Status]:
    return {name: result.status for name, result in ktap.flatten()}


def test_flat_stream() -> None:
    ktap = stream(
        "KTAP version 1", "1..2", "# page size 4096", "ok 1 - first", "not ok 2 - second # lost bytes"
    )
    assert ktap == Ktap(
        "KTAP version 1",
        2,
        (
            KtapResult(1, "first", ok=True, diagnostics=("page size 4096",)),
            KtapResult(2, "second", ok=False, reason="lost bytes"),
        ),
        (),
    )
    assert ktap.is_complete


@pytest.mark.parametrize("version", ["KTAP version 1", "TAP version 13", "TAP version 14"])
def test_versions(version: str) -> None:
    ktap = stream(version, "1..1", "ok 1 x")
    assert ktap.is_complete
    assert ktap.version == version


@pytest.mark.parametrize(
    ("line", "status", "reason"),
    [
        ("ok 1 - x", Status.PASS, ""),
        ("not ok 1 - x", Status.FAIL, ""),
        ("ok 1 - x # SKIP no hugetlb", Status.SKIP, "no hugetlb"),
        ("not ok 1 - x # SKIP no hugetlb", Status.SKIP, "no hugetlb"),
        ("ok 1 - x # skipped: no hugetlb", Status.SKIP, "no hugetlb"),
        ("ok 1 - x # XFAIL known", Status.XFAIL, "known"),
        ("not ok 1 - x # XFAIL known", Status.XFAIL, "known"),
        ("not ok 1 - x # TODO later", Status.XFAIL, "later"),
        ("ok 1 - x # TODO later", Status.XPASS, "later"),
        ("not ok 1 - x # TIMEOUT 45 seconds", Status.TIMEOUT, "45 seconds"),
        ("ok 1 - x # TIMEOUT 45 seconds", Status.TIMEOUT, "45 seconds"),
        ("not ok 1 - x # ERROR mmap: ENOMEM", Status.BROKEN, "mmap: ENOMEM"),
        ("ok 1 - x # ERROR", Status.BROKEN, ""),
        ("not ok 1 - x # errors are many", Status.FAIL, "errors are many"),
        ("ok 1 - x # 12 rounds", Status.PASS, "12 rounds"),
    ],
)
def test_directives(line: str, status: Status, reason: str) -> None:
    (result,) = stream("KTAP version 1", "1..1", line).results
    assert (result.name, result.status, result.reason) == ("x", status, reason)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("ok 1", ""),
        ("ok 1 -", ""),
        ("ok 1 # SKIP x", ""),
        ("ok 1 a - b", "a - b"),
        (r"ok 1 - page \# 3", "page # 3"),
        ("ok 1 - C#3", "C#3"),
        ("ok 1 - x\r", "x"),
    ],
)
def test_names(line: str, name: str) -> None:
    assert stream("TAP version 14", "1..1", line).results[0].name == name


@pytest.mark.parametrize("indent", ["  ", "    "])
def test_subtests(indent: str) -> None:
    ktap = stream(
        "KTAP version 1",
        "1..2",
        f"{indent}KTAP version 1",
        f"{indent}# Subtest: outer",
        f"{indent}1..2",
        f"{indent * 2}KTAP version 1",
        f"{indent * 2}1..1",
        f"{indent * 2}# deep",
        f"{indent * 2}not ok 1 - inner",
        f"{indent}not ok 1 - middle",
        f"{indent}ok 2 - beside",
        "# outer: pass:1 fail:1",
        "not ok 1 - outer",
        "ok 2 - last",
    )
    assert ktap.problems == ()
    assert statuses(ktap) == {
        "outer/middle/inner": Status.FAIL,
        "outer/beside": Status.PASS,
        "last": Status.PASS,
    }
    assert ktap.results[0].diagnostics == ("outer: pass:1 fail:1",)
    assert ktap.results[0].subtests[0].subtests[0].diagnostics == ("deep",)


def test_tap14_subtests_named_before_they_are_indented() -> None:
    ktap = stream("TAP version 14", "1..1", "# Subtest: a", "    ok 1 - b", "    1..1", "ok 1 - a")
    assert ktap.problems == ()
    assert statuses(ktap) == {"a/b": Status.PASS}


def test_trailing_plan_is_tap_but_not_ktap() -> None:
    assert stream("TAP version 13", "ok 1 - a", "ok 2 - b", "1..2").is_complete
    assert not stream("KTAP version 1", "ok 1 - a", "1..1").is_complete
    assert not stream("TAP version 13", "ok 1 - a", "1..2", "ok 2 - b").is_complete


def test_a_failure_that_no_subtest_explains_is_a_leaf() -> None:
    ktap = stream("KTAP version 1", "1..1", "  1..1", "  ok 1 - a", "not ok 1 - b")
    assert statuses(ktap) == {"b/a": Status.PASS, "b": Status.FAIL}


def test_all_skipped() -> None:
    ktap = stream("TAP version 13", "1..0 # SKIP not on arm64")
    assert ktap.is_complete
    assert (ktap.plan, ktap.skip, ktap.results) == (0, "not on arm64", ())


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], "no version line"),
        (["1..1", "ok 1"], "no version line"),
        (["KTAP version 9", "1..1", "ok 1"], "unknown version: KTAP version 9"),
        (["KTAP version 1", "ok 1"], "no plan"),
        (["KTAP version 1", "1..0"], "plan 1..0 without a reason"),
        (["KTAP version 1", "1..3", "ok 1", "ok 2"], "plan says 3, got 2 results"),
        (["KTAP version 1", "1..2", "ok 1", "ok 1"], "line 4: duplicate test number 1"),
        (["KTAP version 1", "1..2", "not ok 1 a", "ok 2 a"], "line 4: duplicate test name a"),
        (["KTAP version 1", "1..1", "ok 1", "ok 2"], "line 4: result after end: number 2, plan 1..1"),
        (["KTAP version 1", "1..2", "ok 2", "ok 1"], "line 3: line out of sequence: number 2, expected 1"),
        (["KTAP version 1", "1..1", "1..2", "ok 1"], "line 3: second plan"),
        (["KTAP version 1", "1..1", "ok 1", "KTAP version 1"], "line 4: second version line"),
        (["KTAP version 1", "1..2", "ok 1", "Bail out! no memory"], "Bail out! no memory"),
        (["KTAP version 1", "1..1", "  1..2", "  ok 1", "ok 1 a"], "plan says 2, got 1 results"),
        (["KTAP version 1", "1..1", "  1..1", "  not ok 1", "ok 1"], "is ok, but one of its subtests failed"),
        (["KTAP version 1", "1..1", "  # Subtest: a", "  1..1", "  ok 1 b"], "subtests of a without"),
    ],
)  # fmt: skip
def test_problems(lines: list[str], problem: str) -> None:
    ktap = stream(*lines)
    assert problem in "\n".join(ktap.problems)
    assert not ktap.is_complete


def test_subtests_cut_off_are_kept() -> None:
    ktap = stream("KTAP version 1", "1..1", "  # Subtest: a", "  1..2", "  ok 1 - b")
    assert statuses(ktap) == {"a/b": Status.PASS, "a": Status.BROKEN}


def test_a_line_without_its_end_is_not_believed() -> None:
    ktap = parse_ktap("KTAP version 1\n1..1\nok 1 - x # SK")
    assert ktap.problems == ("the last line is truncated",)


def test_unknown_lines_are_diagnostics() -> None:
    ktap = stream(
        "KTAP version 1", "1..1", "okay then", "ok, fine", "  1 .. 2", "Segmentation fault", "ok 1 - x"
    )
    assert ktap.is_complete
    assert ktap.results[0].diagnostics == ("okay then", "ok, fine", "1 .. 2", "Segmentation fault")


def test_depth_and_size_are_bounded() -> None:
    deep = stream("KTAP version 1", "1..1", *(f"{'  ' * depth}ok 1 - x" for depth in range(1, 500)))
    assert not deep.is_complete
    assert list(deep.flatten())
    long = stream("KTAP version 1", "1..1", *("noise" for _ in range(10_000)), "ok 1 - x")
    assert len(long.results[0].diagnostics) == 500


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(LOGS.glob("*.expected.json")) if "ktap" in json.loads(path.read_text())],
    ids=lambda path: path.name.split(".")[0],
)
def test_recorded(path: Path) -> None:
    expected = json.loads(path.read_text())["ktap"]
    ktap = parse_ktap(path.with_name(path.name.replace(".expected.json", ".log")).read_text())
    assert {
        "version": ktap.version,
        "plan": ktap.plan,
        "problems": list(ktap.problems),
        "leaves": {name: str(status) for name, status in statuses(ktap).items()},
    } == expected


WORDS = st.text("abc-", min_size=1, max_size=6)


@st.composite
def passing_streams(draw: st.DrawFn) -> tuple[str, int]:
    """A complete stream whose every result is PASS, and the number of its top results."""
    count = draw(st.integers(1, 12))
    lines = [draw(st.sampled_from(["KTAP version 1", "TAP version 13"])), f"1..{count}"]
    for number in range(1, count + 1):
        inner = draw(st.integers(0, 2))
        if inner:
            lines += [f"  1..{inner}", *(f"  ok {index} - s{index}" for index in range(1, inner + 1))]
        lines += [f"# {word}" for word in draw(st.lists(WORDS, max_size=2))]
        lines.append(f"ok {number} - {draw(WORDS)}{number}")
    return "".join(f"{line}\n" for line in lines), count


@FAST
@given(passing_streams(), st.data())
def test_no_prefix_of_a_passing_stream_passes(passing: tuple[str, int], data: st.DataObject) -> None:
    text, count = passing
    whole = parse_ktap(text)
    assert whole.is_complete
    assert all(status is Status.PASS for status in statuses(whole).values())
    part = parse_ktap(text[: data.draw(st.integers(0, len(text)))])
    if part.is_complete:
        assert len(part.results) == part.plan == count


LINES = st.one_of(
    st.text(max_size=30),
    st.builds(
        "".join,
        st.tuples(
            st.sampled_from(["", "  ", "    ", "\t", "      "]),
            st.sampled_from(
                ["ok ", "not ok ", "1..", "KTAP version ", "# Subtest: ", "# ", "Bail out!", "---"]
            ),
            st.sampled_from(["1", "2", "3", "0", "99999999999999999999", "x", ""]),
            st.sampled_from(["", " - a", " # SKIP", " a # TODO b", " # TIMEOUT", " \\# #", "\r", "\x00"]),
        ),
    ),
)


@FAST
@given(st.lists(LINES, max_size=25))
def test_arbitrary_text(lines: list[str]) -> None:
    text = "\n".join(lines)
    ktap = parse_ktap(text)
    leaves = list(ktap.flatten())
    assert len(leaves) >= len(ktap.results)
    parser = KtapParser()
    for line in text.split("\n"):
        parser.feed(f"{line}\n")
    assert replace(parser.end(is_cut=bool(lines and text.split("\n")[-1])), problems=()) == replace(
        ktap, problems=()
    )
    assert not ktap.is_complete or (ktap.plan is not None and len(ktap.results) == ktap.plan)


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("rate: 3 of 1800 tries", Rate(3, 1800)),
        ("rate: 0 of 7 tries", Rate(0, 7)),
        ("a rate: 3 of 1800 tries", None),
        ("rate: -1 of 7 tries", None),
        ("rate: 3 of many tries", None),
        ("rate: 3 of 1800 tries, about", None),
    ],
)
def test_rate(text: str, rate: Rate | None) -> None:
    (result,) = stream("KTAP version 1", "1..1", f"# {text}", "# no pin is left behind", "ok 1 x").results
    assert result.rate == rate


def test_each_subtest_has_its_own_rate() -> None:
    lines = ("# rate: 1 of 5 tries", "not ok 1 a", "# rate: 0 of 9 tries", "ok 2 b", "ok 3 c")
    assert [result.rate for result in stream("KTAP version 1", "1..3", *lines).results] == [
        Rate(1, 5), Rate(0, 9), None,
    ]  # fmt: skip
