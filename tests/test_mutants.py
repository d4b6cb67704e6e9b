# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutants: where they are put, what each does when it is switched on, and what becomes of them."""

import subprocess
from collections import Counter
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.mutants.measure import Choice, choose_sites
from orchestrator.mutants.operators import Site, mutate
from orchestrator.mutants.page import render_html
from orchestrator.mutants.score import (
    Measurement,
    MutantResult,
    State,
    compute_score,
    draw_sample,
    find_state,
    render,
)
from orchestrator.mutants.sweep import Outcome, decide
from orchestrator.parse.csource import list_functions, replace_code
from orchestrator.project.mutants import load_mutants, load_written
from orchestrator.status import Status
from tests.conftest import ROOT

# the switch, as the kernel has it, for a program
SWITCH = """\
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#define likely(x) (x)
#define VM_BUG_ON(x) do { if (x) abort(); } while (0)
#define FOLL_A 1
#define FOLL_B 2
static int number;
#define mutant(n) (number == (n))
#define mutant_true(n, c) ({ bool _m = (c); if (!__builtin_constant_p(_m) && mutant(n)) _m = true; _m; })
#define mutant_false(n, c) ({ bool _m = (c); if (!__builtin_constant_p(_m) && mutant(n)) _m = false; _m; })
static int locked, dirty;
static void spin_lock(int *l) { ++*l; }
static void spin_unlock(int *l) { --*l; }
static int pte_mkdirty(int pte) { return pte | 4; }
static void set_pte(int *place, int pte) { *place = pte; }
struct page { int flags; };
"""
SOURCE = """\
static int other(int a)
{
\tif (a)
\t\treturn 1;
\treturn 0;
}

static int work(struct page *page, int a, int b)
{
\tint pte = 1, i;

\tspin_lock(&locked);
\tVM_BUG_ON(a == 77);
\tif (likely(a && b > 2))
\t\tset_pte(&dirty, pte_mkdirty(pte));
\telse
\t\tdirty = 9;
\tfor (i = 0; i < 3; i++)
\t\tpage->flags |= FOLL_A | FOLL_B;
\tspin_unlock(&locked);
\treturn dirty;
}
"""
MAIN = """
int main(int argc, char **argv)
{
\tstruct page page = { 8 };
\tint result;

\tnumber = atoi(argv[1]);
\tresult = work(&page, atoi(argv[2]), atoi(argv[3]));
\tprintf("%d %d %d\\n", result, page.flags, locked);
\treturn 0;
}
"""


def make_sites() -> tuple[str, list[Site]]:
    text, sites = mutate("mm/a.c", SOURCE.encode(), ["wo*"], 1)
    return text.decode(), sites


def test_sites_are_those_of_the_functions_by_operator() -> None:
    _, sites = make_sites()
    assert {site.function for site in sites} == {"work"}
    assert [site.number for site in sites] == list(range(1, len(sites) + 1))
    assert Counter(site.operator for site in sites) == {
        "drop-pair": 1, "if-never": 1, "if-always": 1, "drop-operand": 2, "off-by-one": 1, "drop-call": 1,
        "drop-maker": 1, "drop-assignment": 1, "drop-flag": 1,
    }  # fmt: skip
    by_name = {site.name: site for site in sites}
    assert (by_name["mm/a.c:work:drop-maker:8"].line, by_name["mm/a.c:work:drop-maker:8"].code) == (
        15,
        "pte_mkdirty(pte)",
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mutants")
    text, _ = make_sites()
    (folder / "a.c").write_text(SWITCH + text + MAIN)
    subprocess.run(["gcc", "-O2", "-w", "-o", folder / "a", folder / "a.c"], check=True)
    return folder / "a"


@pytest.mark.parametrize(
    ("name", "given", "without", "with_it"),
    [
        ("drop-pair:5", "1 3", "5 11 0", "5 11 0"),
        ("if-never:7", "1 3", "5 11 0", "9 11 0"),
        ("if-always:7", "0 0", "9 11 0", "5 11 0"),
        ("drop-operand:7", "0 3", "9 11 0", "5 11 0"),
        ("drop-operand:7.2", "1 0", "9 11 0", "5 11 0"),
        ("off-by-one:7", "1 2", "9 11 0", "5 11 0"),
        ("drop-maker:8", "1 3", "5 11 0", "1 11 0"),
        ("drop-call:8", "1 3", "5 11 0", "0 11 0"),
        ("drop-assignment:12", "1 3", "5 11 0", "5 8 0"),
        ("drop-flag:12", "1 3", "5 11 0", "5 9 0"),
    ],
)
def test_a_mutant_does_its_mistake_only_when_it_is_on(
    program: Path, name: str, given: str, without: str, with_it: str
) -> None:
    _, sites = make_sites()
    (site,) = [site for site in sites if site.name.endswith(f":{name}")]
    for number, expected in ((0, without), (site.number, with_it)):
        done = subprocess.run(
            [program, str(number), *given.split()], capture_output=True, text=True, check=True
        )
        assert done.stdout == f"{expected}\n"


def test_code_that_does_not_parse_or_is_a_label_stays_as_it_is() -> None:
    source = (
        b"int f(int a)\n{\n\tswitch (a) {\n\tcase A | FOLL_B:\n\t\treturn 1;\n\t}\n"
        b"\tfor_each(a) if (a { }\n\twhile (a && !done)\n\t\ta--;\n"
        b"\tstatic int b = sizeof(a | FOLL_C);\n\treturn 0;\n}\n"
    )
    text, sites = mutate("a.c", source, ["f"], 1)
    assert (text, sites) == (source, [])


def test_functions_are_found_in_conditional_parts() -> None:
    source = b"#ifdef A\nstatic int *f(void)\n{\n}\n#else\nint g(int a);\n#endif\nint h(void)\n{\n}\n"
    assert list_functions(source) == ["f", "h"]


def make_site(number: int, file: str = "mm/a.c") -> Site:
    return Site(number, f"{file}:f:drop-call:{number}", number, "call()")


def test_a_sample_has_its_share_of_each_file_and_is_always_the_same() -> None:
    sites = [make_site(n) for n in range(90)] + [make_site(n, "mm/b.c") for n in range(90, 120)]
    drawn = draw_sample(sites, 40)
    assert Counter(site.file for site in drawn) == {"mm/a.c": 30, "mm/b.c": 10}
    assert drawn == draw_sample(sites, 40) != draw_sample(sites, 40, seed=2)
    assert draw_sample(sites, 500) == sites


PASSED = Outcome("odirect.rd-fork", "1", Status.PASS, "")
KILLED = Outcome("vmsplice.oom", "1", Status.FAIL, "a byte is wrong")
TIMED_OUT = Outcome("vmsplice.oom", "1", Status.TIMEOUT, "it did not end")


@pytest.mark.parametrize(
    ("outcomes", "is_reached", "is_missing", "is_equivalent", "state"),
    [
        ([PASSED, KILLED], True, False, False, State.KILLED),
        # a proof that a test refutes is none
        ([KILLED], True, False, True, State.KILLED),
        ([PASSED], True, False, True, State.EQUIVALENT),
        ([], False, False, False, State.UNREACHED),
        ([PASSED], True, True, False, State.PENDING),
        ([PASSED, TIMED_OUT], True, False, False, State.BROKEN),
        ([PASSED], True, False, False, State.ALIVE),
    ],
)
def test_state_of_a_mutant(
    outcomes: list[Outcome], is_reached: bool, is_missing: bool, is_equivalent: bool, state: State
) -> None:
    assert (
        find_state(outcomes, is_reached=is_reached, is_missing=is_missing, is_equivalent=is_equivalent)
        is state
    )


BROKEN = Outcome("vmsplice.oom", "1", Status.BROKEN, "no memory")
PASSED_THEN = Outcome("vmsplice.oom", "1", Status.PASS, "")
STALLED = Outcome("vmsplice.oom", "1", Status.CRASH, "rcu: INFO: rcu_sched self-detected stall on CPU")
CRASHED = Outcome("vmsplice.oom", "1", Status.CRASH, "BUG", is_certain=True)


@pytest.mark.parametrize(
    ("runs", "decided"),
    [
        ([], None),
        ([PASSED_THEN], PASSED_THEN),
        ([KILLED], None),
        ([KILLED, CRASHED], CRASHED),
        ([CRASHED], CRASHED),
        ([STALLED], None),
        ([STALLED, KILLED], KILLED),
        # failed once: by chance
        ([KILLED, PASSED_THEN], None),
        ([KILLED, PASSED_THEN, PASSED_THEN], PASSED_THEN),
        ([KILLED, PASSED_THEN, KILLED], KILLED),
        ([BROKEN, TIMED_OUT], TIMED_OUT),
        ([BROKEN, KILLED, PASSED_THEN], None),
        ([BROKEN, KILLED, PASSED_THEN, KILLED], KILLED),
    ],
)
def test_what_the_host_may_have_caused_must_happen_twice(
    runs: list[Outcome], decided: Outcome | None
) -> None:
    assert decide(runs) == decided


def test_score_counts_kills_among_all_that_are_not_equivalent() -> None:
    states = [
        *[State.KILLED] * 6,
        State.ALIVE,
        State.BROKEN,
        State.UNREACHED,
        State.EQUIVALENT,
        State.PENDING,
    ]
    results = [
        MutantResult(make_site(n), state, (KILLED,) if state is State.KILLED else ())
        for n, state in enumerate(states)
    ]
    score = compute_score(results)
    assert (score.killed, score.total) == (6, 9)
    low, high = score.interval
    assert 0.29 < low < 0.31 and 0.92 < high < 0.93
    text = render(Measurement("debian-5.10 5.10.262", "0" * 40, tuple(results), 20, 30, ("vmsplice.oom",)))
    assert "score: 6 of 9 killed, 67 % (30 to 93 %)" in text
    assert "     6  vmsplice.oom" in text
    assert "mm/a.c:f:drop-call:6 (line 6): call()" in text


def test_a_word_that_names_no_mutant_is_an_error() -> None:
    sites = [make_site(1), make_site(2)]
    assert choose_sites(sites, Choice(("mm/a.c:f:*:2",))) == [sites[1]]
    with pytest.raises(UsageError, match="no mutant of this kernel is named mm/b.c"):
        choose_sites(sites, Choice(("mm/b.c:*",)))


def test_declared_functions_and_proofs_are_read() -> None:
    spec = load_mutants(ROOT / "ci/mutants.yaml")
    assert "do_wp_page" in spec.functions["mm/memory.c"]


def test_code_is_replaced_whatever_its_white_space() -> None:
    text, line = replace_code(
        SOURCE.encode(), "work", "set_pte(&dirty,\n  pte_mkdirty(pte));", "if (!M) stop();"
    )
    assert b"\t\tif (!M) stop();\n\telse" in text
    assert line == 15


def test_other_code_stays_on_its_line() -> None:
    text, _ = replace_code(SOURCE.encode(), "work", "else dirty = 9;", "else\n\n\ndirty = 8;")
    assert b"\telse dirty = 8;\n\n\tfor" in text
    assert text.count(b"\n") == SOURCE.count("\n")


@pytest.mark.parametrize(
    ("function", "code", "what"),
    [
        ("nowhere", "x", "there is no function nowhere"),
        ("work", "set_pte(0);", r"the code is in work 0 times: set_pte\(0\);"),
        ("work", "pte", "the code is in work 4 times"),
    ],
)
def test_code_that_is_not_there_once_is_an_error(function: str, code: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        replace_code(SOURCE.encode(), function, code, "x")


def test_what_is_written_by_hand_is_not_mutated_again() -> None:
    source = b"int f(int a)\n{\n\tif (a && !mutant(3))\n\t\tg(a);\n\treturn 0;\n}\n"
    _, sites = mutate("a.c", source, ["f"], 1)
    assert [site.name for site in sites] == ["a.c:f:drop-operand:3", "a.c:f:drop-call:4"]


def test_wrong_mutants_written_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "mutants.yaml"
    change = "{file: mm/a.c, function: f, code: a, becomes: b}"
    text = f"mutants:\n  - {{name: a, rule: b, loses: c, changes: [{change}]}}\n  - {{name: b, rule: c}}\n"
    file.write_text(text)
    with pytest.raises(ExceptionGroup) as raised:
        load_written(file)
    assert [str(error) for error in raised.value.exceptions] == [
        f"{file}:2: mutants[0].changes[0]: expected MUTANT in becomes: whether the mutant is on",
        f"{file}:3: mutants[1]: missing loses, changes",
    ]


def test_the_written_mutants_have_names_of_their_own() -> None:
    written = [mutant for file in (ROOT / "patches/mutants").glob("*.yaml") for mutant in load_written(file)]
    assert len({mutant.name for mutant in written}) == len(written) >= 40


def test_page_shows_each_mutant_with_its_state() -> None:
    results = (
        MutantResult(make_site(1), State.KILLED, (PASSED, KILLED)),
        MutantResult(make_site(2, "mm/<b>.c"), State.ALIVE, (PASSED,)),
    )
    page = render_html(Measurement("debian-5.10 5.10.262", "0" * 40, results, 20, 30, ("vmsplice.oom",)))
    assert "1 of 2 killed: 50 %" in page
    assert '<tr id="mm/a.c:f:drop-call:1" data-state="killed">' in page
    assert "a byte is wrong" in page
    assert "<b>" not in page
