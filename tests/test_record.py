# SPDX-License-Identifier: GPL-2.0-or-later
"""A record is read back as it was written, an older one as far as it goes, and nothing else at all."""

import json
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.result.record import SCHEMA, load_result, load_run, save_result, save_run
from tests.records import make_run


def test_load_run_reads_what_save_run_wrote(tmp_path: Path) -> None:
    run = make_run()
    assert load_run(save_run(run, tmp_path)) == run


@pytest.mark.parametrize("schema", [1, SCHEMA - 1, SCHEMA + 1, None, "5", [5]])
def test_other_schemas_are_refused(tmp_path: Path, schema: object) -> None:
    path = save_run(make_run(), tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": schema}))
    with pytest.raises(UsageError, match="this version of cowbell reads schema 6") as raised:
        load_run(path)
    assert str(path) in str(raised.value)


def test_a_record_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = save_run(make_run(), tmp_path)
    whole = path.read_bytes().rstrip()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(UsageError, match="is not the record of a run"):
            load_run(path)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", b"[]", b"7", b'{"schema": 6, "jobs": {}}', b"[" * 100_000]
)
def test_garbage_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        load_run(path)
    assert load_result(path) is None


def test_a_result_cut_anywhere_is_none(tmp_path: Path) -> None:
    path = tmp_path / "test.json"
    (result, *_) = make_run().jobs[0].results
    save_result(result, path)
    whole = path.read_bytes().rstrip()
    assert load_result(path) == result
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        assert load_result(path) is None


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("started",), None),
        (("jobs", 0, "version"), ["6.1"]),
        (("jobs", 0, "tests"), {"test": "sub"}),
        (("jobs", 0, "results", 0, "console"), {"a": 1}),
        (("jobs", 0, "results", 0, "duration_s"), float("nan")),
        (("jobs", 0, "results", 0, "trial"), 1 << 63),
        (("jobs", 0, "results", 0, "taint_before"), "many"),
        (("jobs", 0, "results", 0, "weather"), "fine"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_with_its_place(
    tmp_path: Path, path: tuple[str | int, ...], value: object
) -> None:
    record = save_run(make_run(), tmp_path)
    told = json.loads(record.read_text())
    parent = told
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    record.write_text(json.dumps(told))
    with pytest.raises(UsageError, match="is not the record of a run: ") as raised:
        load_run(record)
    assert f" {'.'.join(map(str, path))}" in str(raised.value)
