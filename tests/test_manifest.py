# SPDX-License-Identifier: GPL-2.0-or-later
"""Which input made the difference, and how long it took before."""

from pathlib import Path

import pytest

from orchestrator.project.guesttest import GuestCase
from orchestrator.errors import UsageError
from orchestrator.plan import manifest
from orchestrator.plan.manifest import Manifest


def make_case(path: Path) -> GuestCase:
    return GuestCase(f"x.{path.stem}", path, "c", "id", "it works", "deterministic", 10)


@pytest.fixture
def case(tmp_path: Path) -> GuestCase:
    for name, text in {
        "lib/guesttest.h": '#include "pagestate.h"\n',
        "lib/pagestate.h": "",
        "lib/other.h": "",
        "x/one.c": '#include "guesttest.h"\n',
    }.items():
        file = tmp_path / "guest-tests" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return make_case(tmp_path / "guest-tests/x/one.c")


def test_files_of_a_case_follow_its_headers(case: GuestCase) -> None:
    names = ["guest-tests/lib/guesttest.h", "guest-tests/lib/pagestate.h", "guest-tests/x/one.c"]
    before = manifest.list_case_files(case)
    assert sorted(before) == names
    (case.path.parents[1] / "lib/pagestate.h").write_text("int x;\n")
    now = manifest.list_case_files(case)
    assert manifest.explain(now, before) == "guest-tests/lib/pagestate.h changed"


def test_new_gone_and_never_seen() -> None:
    assert manifest.explain({"a": "1", "b": "2"}, {"a": "1", "c": "3"}) == "b is new, c is gone"
    assert manifest.explain({"a": "1"}, {}) == ""
    assert manifest.explain({"a": "1"}, {"a": "1"}) == ""


def test_what_if(case: GuestCase) -> None:
    files = manifest.list_case_files(case)
    names = manifest.find_names([str(case.path)])
    changed = manifest.take_as_changed(files, names)
    assert manifest.explain(changed, files) == "guest-tests/x/one.c is taken as changed"
    manifest.raise_unknown(names, set(files))


def test_what_if_of_a_file_that_is_not_there_or_that_nothing_is_made_of(case: GuestCase) -> None:
    with pytest.raises(ExceptionGroup) as told:
        manifest.find_names(["/nonexistent", str(case.path), "/gone"])
    assert [error.where for error in told.value.exceptions if isinstance(error, UsageError)] == [
        "--what-if /nonexistent",
        "--what-if /gone",
    ]
    names = manifest.find_names([str(case.path.parents[1] / "lib/other.h")])
    with pytest.raises(ExceptionGroup) as told:
        manifest.raise_unknown(names, set(manifest.list_case_files(case)))
    assert "did you mean guest-tests/" in str(told.value.exceptions[0])


def test_time_is_known_when_every_case_has_run(case: GuestCase) -> None:
    other = make_case(case.path.with_name("two.c"))
    before = Manifest(case_s={"x.one": 1.5})
    assert before.expect_cases_s([case]) == 1.5
    assert before.expect_cases_s([case, other]) is None
