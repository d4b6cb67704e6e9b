# SPDX-License-Identifier: GPL-2.0-or-later
"""Which input made the difference, and how long it took before."""

from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.plan import manifest
from orchestrator.plan.manifest import Manifest
from orchestrator.project.guesttest import GuestTest


def make_test(path: Path) -> GuestTest:
    return GuestTest(f"x.{path.stem}", path, "c", "id", "it works", "deterministic", 10)


@pytest.fixture
def test(tmp_path: Path) -> GuestTest:
    for name, text in {
        "lib/guesttest.h": '#include "pagestate.h"\n',
        "lib/pagestate.h": "",
        "lib/other.h": "",
        "x/one.c": '#include "guesttest.h"\n',
    }.items():
        file = tmp_path / "guest-tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return make_test(tmp_path / "guest-tests/x/one.c")


def test_files_of_a_test_follow_its_headers(test: GuestTest) -> None:
    names = ["guest-tests/lib/guesttest.h", "guest-tests/lib/pagestate.h", "guest-tests/x/one.c"]
    before = manifest.list_test_files(test)
    assert sorted(before) == names
    (test.path.parents[1] / "lib/pagestate.h").write_text("int x;\n")
    now = manifest.list_test_files(test)
    assert manifest.explain(now, before) == "guest-tests/lib/pagestate.h changed"


def test_new_gone_and_never_seen() -> None:
    assert manifest.explain({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == "b is new, c is gone"
    assert manifest.explain({"a": "1"}, {}) == ""
    assert manifest.explain({"a": "1"}, {"a": "1"}) == ""


def test_what_if(test: GuestTest) -> None:
    files = manifest.list_test_files(test)
    names = manifest.find_names([str(test.path)])
    changed = manifest.take_as_changed(files, names)
    assert manifest.explain(changed, files) == "guest-tests/x/one.c is taken as changed"
    manifest.raise_unknown(names, set(files))


def test_what_if_of_a_file_that_is_not_there_or_that_nothing_is_made_of(test: GuestTest) -> None:
    with pytest.raises(ExceptionGroup) as told:
        manifest.find_names(["/nonexistent", str(test.path), "/gone"])
    assert [error.where for error in told.value.exceptions if isinstance(error, UsageError)] == [
        "--what-if /nonexistent",
        "--what-if /gone",
    ]
    names = manifest.find_names([str(test.path.parents[1] / "lib/other.h")])
    with pytest.raises(ExceptionGroup) as told:
        manifest.raise_unknown(names, set(manifest.list_test_files(test)))
    assert "did you mean guest-tests/" in str(told.value.exceptions[0])


def test_time_is_known_when_every_test_has_run(test: GuestTest) -> None:
    other = make_test(test.path.with_name("two.c"))
    before = Manifest(test_s={"x.one": 1.5})
    assert before.expect_tests_s([test]) == 1.5
    assert before.expect_tests_s([test, other]) is None
