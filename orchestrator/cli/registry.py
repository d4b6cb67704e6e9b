# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the targets of all modules, in the order of the help."""

from orchestrator.cli.target import TARGETS, list_groups, list_products
from orchestrator.cli.targets import (
    bisect,
    ci,
    doctor,
    expect,
    help,
    history,
    lookup,
    mutants,
    parse,
    patches,
    report,
    seriesmatrix,
    shell,
    store,
    test,
)

__all__ = ["TARGETS", "list_groups", "list_products"]

_MODULES = (
    test, shell, report, expect, history, parse, bisect, seriesmatrix, mutants, patches, ci, lookup, doctor,
    store, help,
)  # fmt: skip
TARGETS.update({target.name: target for module in _MODULES for target in module.TARGETS})
