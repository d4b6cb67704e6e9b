# SPDX-License-Identifier: GPL-2.0-or-later
"""The two readers of a declaration agree, and the outcomes of real tests come out as KTAP says."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.project.guesttest import GuestTest, load_tests, parse_params, select_tests
from tests.guestprograms import GUEST_TESTS, LIB, make_argv, run_test, write_test

TESTS = load_tests(GUEST_TESTS)

GOOD_C = """#include "guesttest.h"
static void run(void) { gt_pass("fine"); }
GUEST_TEST = {
	.summary   = "says \\"hello\\" \\\\ \u00e4",	/* a comment */
	.kind      = "race",
	.timeout_s = 7,
	.run       = run,
};
"""
GOOD_PY = """from guesttest import GuestTest, gt_pass
def run(): gt_pass("fine")
TEST = GuestTest(
    summary="says \\"hello\\"",
    kind="race",
    timeout_s=7,
    run=run,
)
if __name__ == "__main__":
    TEST.main()
"""
# What a test does when asked: one program shows every outcome.
ACTS_C = """#include "guesttest.h"
static void run(void)
{
	const char *act = getenv("ACT");
	pid_t pid;

	if (!strcmp(act, "pass")) gt_pass("fine");
	if (!strcmp(act, "fail")) gt_check(1 + 1 == 3, "%d and %d", 1, 1);
	if (!strcmp(act, "bytes")) gt_check_bytes("abcd", "abXY", 4, "letters");
	if (!strcmp(act, "broken")) gt_broken("no\\ndisk");
	if (!strcmp(act, "skip")) gt_skip("no %s", "uffd");
	if (!strcmp(act, "signal")) abort();
	if (!strcmp(act, "exit")) exit(0);
	if (!strcmp(act, "hang")) pause();
	if (!strcmp(act, "helper")) {
		if (!(pid = gt_fork())) gt_fail("seen in a helper");
		gt_reap(pid);
	}
}
GUEST_TEST = {
	.summary = "acts",
	.kind = "deterministic",
	.timeout_s = 1,
	.run = run,
};
"""
ACTS_PY = """import ctypes, os, time
from guesttest import *
def run():
    act = os.environ["ACT"]
    if act == "pass": gt_pass("fine")
    if act == "fail": gt_check(3, 2, "1 and 1")
    if act == "broken": gt_broken("no\\ndisk")
    if act == "skip": gt_skip("no uffd")
    if act == "signal": os.abort()
    if act == "exit": os._exit(0)
    if act == "hang": time.sleep(9)
    if act == "error": 1 / 0
    if act == "helper": gt_reap(gt_fork(lambda: gt_fail("seen in a helper")))
TEST = GuestTest(summary="acts", kind="deterministic", timeout_s=1, run=run)
if __name__ == "__main__":
    TEST.main()
"""
PARAMS_C = """#include "guesttest.h"
static int left_behind;
static void run(void)
{
	gt_check(!left_behind++, "a subtest starts clean");
	if (!strcmp(gt_param("page"), "thp") && !strcmp(gt_param("when"), "pre")) *(volatile char *)NULL = 1;
	if (!strcmp(gt_param("page"), "thp")) gt_fail("thp");
	if (!strcmp(gt_param("page"), "none")) exit(0);
	gt_pass("%s %s", gt_param("when"), gt_param("page"));
}
GUEST_TEST = {
	.summary = "params",
	.kind = "deterministic",
	.timeout_s = 1,
	.params = "when: pre post; page: small thp none",
	.run = run,
};
"""
PARAMS_PY = """import os
from guesttest import *
def run():
    if gt_param("page") == "thp" and gt_param("when") == "pre": os.kill(os.getpid(), 11)
    if gt_param("page") == "thp": gt_fail("thp")
    if gt_param("page") == "none": os._exit(0)
    gt_pass(gt_param("when") + " " + gt_param("page"))
TEST = GuestTest(summary="params", kind="deterministic", timeout_s=1,
                 params="when: pre post; page: small thp none", run=run)
if __name__ == "__main__":
    TEST.main()
"""


def messages(root: Path) -> list[str]:
    """Every error, as file name:line: what."""
    with pytest.raises(ExceptionGroup) as caught:
        load_tests(root)
    errors = [error for error in caught.value.exceptions if isinstance(error, UsageError)]
    assert len(errors) == len(caught.value.exceptions)
    return [f"{error.where.rpartition('/')[2]}: {error.what}" for error in errors]


@pytest.mark.parametrize("test", TESTS, ids=lambda test: test.id)
def test_test_describes_itself_as_the_host_reads_it(test: GuestTest, tmp_path: Path) -> None:
    status, lines = run_test([*make_argv(test, tmp_path), "--describe"], GT_ID=test.id)
    assert status == 0
    assert json.loads("\n".join(lines)) == test.describe()


def test_every_test_names_what_it_needs_and_covers() -> None:
    assert {test.language for test in TESTS} == {"c", "python"}
    assert all(test.contract and test.mechanism and test.detects for test in TESTS)


@pytest.fixture(scope="module", params=["c", "py"])
def acts(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("acts")
    text = ACTS_C if request.param == "c" else ACTS_PY
    return make_argv(write_test(folder, f"acts.{request.param}", text), folder)


@pytest.mark.parametrize(
    ("act", "status", "result"),
    [
        ("pass", 0, ["# fine", "ok 1 family.acts"]),
        ("broken", 4, ["not ok 1 family.acts # ERROR no disk"]),
        ("skip", 0, ["ok 1 family.acts # SKIP no uffd"]),
        ("nothing", 4, ["not ok 1 family.acts # ERROR run() came to no outcome"]),
        ("hang", 1, ["not ok 1 family.acts # TIMEOUT"]),
        ("signal", -6, []),
        ("exit", 0, []),
    ],
)
def test_outcome(acts: list[str], act: str, status: int, result: list[str]) -> None:
    assert run_test(acts, ACT=act) == (status, ["KTAP version 1", "1..1", *result])


def test_failure_says_expected_and_got(acts: list[str]) -> None:
    status, lines = run_test(acts, ACT="fail")
    assert (status, lines[-1]) == (1, "not ok 1 family.acts")
    assert lines[2].startswith("# ")
    assert "expected: " in lines[2]
    assert "got: " in lines[2]


def test_helper_does_not_write_a_result_line(acts: list[str]) -> None:
    _, lines = run_test(acts, ACT="helper")
    assert lines[2] == "# helper: seen in a helper"
    assert [line for line in lines if "ok 1" in line] == [lines[-1]]
    assert lines[-1] == "not ok 1 family.acts"


def test_wrong_bytes_are_counted(tmp_path: Path) -> None:
    argv = make_argv(write_test(tmp_path, "acts.c", ACTS_C), tmp_path)
    assert run_test(argv, ACT="bytes")[1][2] == (
        "# letters: 2 of 4 bytes wrong; at offset 2 expected: 0x63, got: 0x58"
    )


def test_timeout_is_multiplied(acts: list[str]) -> None:
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run(
            acts,
            env={**os.environ, "PYTHONPATH": str(LIB), "ACT": "hang", "GT_TIMEOUT_MUL": "50"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=1.5,
        )


@pytest.mark.parametrize(("suffix", "text"), [("c", PARAMS_C), ("py", PARAMS_PY)])
def test_each_subtest_is_alone(suffix: str, text: str, tmp_path: Path) -> None:
    test = write_test(tmp_path, f"sub.{suffix}", text)
    status, lines = run_test(make_argv(test, tmp_path))
    assert (status, lines[:2]) == (1, ["KTAP version 1", "1..6"])
    results = [line for line in lines[2:] if not line.startswith("#")]
    assert results == [
        "ok 1 family.sub[when=pre,page=small]",
        "not ok 2 family.sub[when=pre,page=thp] # ERROR killed by signal 11",
        "not ok 3 family.sub[when=pre,page=none] # ERROR exited with status 0 and no outcome",
        "ok 4 family.sub[when=post,page=small]",
        "not ok 5 family.sub[when=post,page=thp]",
        "not ok 6 family.sub[when=post,page=none] # ERROR exited with status 0 and no outcome",
    ]
    names = [line.partition(" # ")[0].split()[-1] for line in results]
    assert tuple(names) == test.subtests


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("min_kernel", '"99.1"', "needs kernel >= 99.1, this is "),
        ("cpus", "4096", "needs 4096 CPUs"),
        ("memory_mib", "1000000000", "needs 1000000000 MiB of memory"),
    ],
)
def test_unmet_requirement_is_a_skip(field: str, value: str, reason: str, tmp_path: Path) -> None:
    c = write_test(tmp_path, "c.c", GOOD_C.replace("	.kind", f"	.{field} = {value},\n	.kind"))
    py = write_test(tmp_path, "p.py", GOOD_PY.replace("    kind", f"    {field}={value},\n    kind"))
    for test in (c, py):
        status, lines = run_test(make_argv(test, tmp_path))
        assert status == 0
        assert lines[2].startswith(f"ok 1 {test.id} # SKIP {reason}")


def test_bad_declarations_are_all_reported_with_file_and_line(tmp_path: Path) -> None:
    folder = tmp_path / "family"
    folder.mkdir()
    texts = {
        "a.c": GOOD_C.replace(".kind ", ".knd  "),
        "b.c": GOOD_C.replace("= 7", "= 3 + 4"),
        "c.c": GOOD_C.replace("	.kind", '	.summary = "again",\n	.kind'),
        "d.c": GOOD_C.replace("= 7", "= SEVEN").replace('"race"', '"rare"'),
        "e.c": GOOD_C + "static int more;\n",
        "f.c": "int main(void) { return 0; }\n",
        "g.c": GOOD_C.replace("= 7", '= "7"'),
        "h.c": GOOD_C.replace("	.run       = run,\n", "#ifdef X\n"),
        "i.c": GOOD_C.replace("GUEST_TEST", "/*\nGUEST_TEST = {\n*/\nGUEST_TEST").replace("= 7", "= 0"),
        "j.py": GOOD_PY.replace("=7", "=3 + 4").replace("    run=run", "    run=lambda: None"),
        "k.py": GOOD_PY.replace("    kind=", "    kinds="),
        "l.py": GOOD_PY.replace("    TEST.main()", "    pass"),
        "m.py": "def run(:\n",
        "n.py": GOOD_PY.replace('    kind="race"', '    params="page small",\n    min_kernel="new"'),
        "a.py": GOOD_PY,
        "Bad_Name.c": GOOD_C,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    (folder / "o.c").write_bytes(b"\n\xff\n")
    found = messages(tmp_path)
    assert sorted(found) == sorted(
        [
            "Bad_Name.c: family.Bad_Name is not a test id: use lower case letters, digits and -",
            "a.c:3: missing field kind",
            "a.c:5: unknown field knd, is it kind?",
            "b.c:6: not `.field = literal,`: .timeout_s = 3 + 4,",
            "b.c:3: missing field timeout_s",
            "c.c:5: summary is declared twice",
            "d.c:5: kind: expected deterministic or race, got 'rare'",
            "d.c:6: timeout_s: expected a string, decimal number, true or false, got SEVEN",
            "e.c:9: the declaration must be last in the file",
            "f.c:1: no line `GUEST_TEST = {`",
            "g.c:6: timeout_s: expected int, got '7'",
            "h.c:7: not `.field = literal,`: #ifdef X",
            "h.c:3: missing field run",
            "i.c:9: timeout_s: expected at least 1, got 0",
            "j.py:6: timeout_s: expected a string, number, True or False, got 3 + 4",
            "j.py:7: run: expected the name of a function, got lambda: None",
            "k.py:3: missing field kind",
            "k.py:5: unknown field kinds, is it kind?",
            'l.py:9: expected at the end: if __name__ == "__main__": TEST.main()',
            "m.py:1: not Python: invalid syntax",
            "n.py:3: missing field kind",
            "n.py:5: params: expected NAME: VALUE..., got 'page small'",
            "n.py:6: min_kernel: expected a version like 5.10, got 'new'",
            "o.c:2: is not UTF-8 text",
        ]
    )


def test_same_id_twice_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "family").mkdir()
    (tmp_path / "family" / "a.c").write_text(GOOD_C)
    (tmp_path / "family" / "a.py").write_text(GOOD_PY)
    assert messages(tmp_path) == ["a.py: family.a is also a.c"]


def test_content_id_follows_what_is_included(tmp_path: Path) -> None:
    lib = tmp_path / "lib"
    lib.mkdir()
    (lib / "x.h").write_text('#include "y.h"\n')
    (lib / "y.h").write_text('#include "x.h"\n#include <stdio.h>\n')
    (lib / "other.h").write_text("1")
    (lib / "m.py").write_text("from n import N\n")
    (lib / "n.py").write_text("N = 1\n")

    def ids() -> tuple[str, str]:
        c = write_test(tmp_path, "a.c", '#include "x.h"\n' + GOOD_C)
        return c.content_id, write_test(tmp_path, "b.py", "import m\n" + GOOD_PY).content_id

    before = ids()
    (lib / "other.h").write_text("2")
    assert ids() == before
    (lib / "y.h").write_text("2")
    assert (ids()[0] != before[0], ids()[1] == before[1]) == (True, True)
    (lib / "n.py").write_text("N = 2\n")
    assert ids()[1] != before[1]
    assert write_test(tmp_path, "a.c", '#include "x.h"\n' + GOOD_C + "\n").content_id != ids()[0]


def test_select_tests() -> None:
    assert select_tests(TESTS, ["*"]) == TESTS
    assert [test.id for test in select_tests(TESTS, ["odirect.rd-mp*", "vmsplice.child-th?"])] == [
        "odirect.rd-mprotect",
        "vmsplice.child-thp",
    ]
    with pytest.raises(ExceptionGroup) as caught:
        select_tests(TESTS, ["odirect.rd-mprotext", "[a-z]*"])
    first, second = caught.value.exceptions
    assert isinstance(first, UsageError)
    assert "odirect.rd-mprotect" in first.hint
    assert "[a-z]*" in str(second)


def test_parse_params() -> None:
    assert parse_params("") == ()
    assert parse_params("page: small thp; when: pre") == (("page", ("small", "thp")), ("when", ("pre",)))
    for wrong in ("page", "page:", "page: a a", "page: a; page: b", ": a", "page: A", ";"):
        with pytest.raises(ValueError, match="."):
            parse_params(wrong)
