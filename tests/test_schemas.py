# SPDX-License-Identifier: GPL-2.0-or-later
"""Every kind of --json is what its published schema says, and the schemas can say no."""

import json

import jsonschema
import pytest

from orchestrator.cli.registry import list_products
from orchestrator.cli.schemas import make_schema
from tests.conftest import cowbell
from tests.schema import read_product

# the others need a tree: they are read where they are tested
COMMANDS = {
    "list": ("list",),
    "names": ("list", "tests"),
    "variables": ("-p",),
    "steps": ("-n", "test", "ROW=demo"),
    "series": ("series",),
    "proof": ("proof",),
    "test": ("explain", "BROKEN", "odirect.rd-control"),
    "changelog": ("list", "--changelog"),
    "gc": ("gc", "-n"),
    "doctor": ("doctor", "ROW=demo"),
    "history": ("history",),
    "parse": ("parse", "tests/logs/kasan.log", "tests/logs/healthy.log"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_printed_is_as_published(name: str) -> None:
    done = cowbell(*COMMANDS[name], "--json")
    assert done.returncode in (0, 1), done.stderr
    product = read_product(done.stdout)
    assert product["schema"] == f"cowbell-{name}-1"
    # a schema that takes anything would not be one
    wrong = dict.fromkeys(product, 7) | {"schema": product["schema"]}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, make_schema(name))


def test_schemas_are_printed() -> None:
    assert {name: f"cowbell schema {name}" for name in list_products()} == read_product(
        cowbell("list", "schemas", "--json").stdout
    )["names"]
    assert json.loads(cowbell("schema", "report").stdout) == make_schema("report")
    done = cowbell("schema", "reprot")
    assert done.returncode == 2
    assert "did you mean report?" in done.stderr
