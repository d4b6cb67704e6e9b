# SPDX-License-Identifier: GPL-2.0-or-later
"""Collects the targets of all modules, in the order of the help."""

from orchestrator.cli.target import TARGETS, list_groups, list_products
from orchestrator.cli.targets import (
    bisect,
    ci,
    doctor,
    history,
    lookup,
    mutants,
    pages,
    patches,
    report,
    rows,
    seriesmatrix,
    shell,
    store,
)

__all__ = ["TARGETS", "list_groups", "list_products"]

_MODULES = (
    rows, shell, report, history, bisect, seriesmatrix, mutants, patches, ci, lookup, doctor, store, pages,
)  # fmt: skip
TARGETS.update({target.name: target for module in _MODULES for target in module.TARGETS})
