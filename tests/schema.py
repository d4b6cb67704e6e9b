# SPDX-License-Identifier: GPL-2.0-or-later
"""What --json prints, held against its published schema."""

import json
from typing import Any

import jsonschema

from orchestrator.cli.schemas import make_schema


def read_product(text: str) -> dict[str, Any]:
    """The product, when it is what its schema says, and nothing besides."""
    product: dict[str, Any] = json.loads(text)
    schema = make_schema(product["schema"].removeprefix("cowbell-").removesuffix("-1"))
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(product, schema, cls=jsonschema.Draft202012Validator)
    assert set(product) == set(schema["properties"])
    return product
