# SPDX-License-Identifier: GPL-2.0-or-later
"""history, diff and merge: every result so far, its changes, and results of other machines."""

from pathlib import Path

from orchestrator.cli.call import Call, vars_of
from orchestrator.cli.target import Target


def run_history(call: Call) -> int:
    from orchestrator.history import database, entry

    with database.open_history(call.store, call.note) as db:
        if call.rows:
            call.check_rows({one.row for one in database.find_entries(db)})
        entries = database.choose_entries(db, call.subjects, call.rows, call.value("KERNEL"))
        listed = [vars_of(one) | {"status": one.status} for one in entries]
        return call.show_product("history", entry.render, entries, entries=listed)


def run_diff(call: Call) -> int:
    from orchestrator.history import database, diff

    with database.open_history(call.store, call.note) as db:
        found = diff.compare(*diff.find_sides(db, call.store, call.subjects))
    call.show_product("diff", diff.render, found)
    return int(bool(found.broken))


def run_merge(call: Call) -> int:
    from orchestrator.history import merge
    from orchestrator.plan import plan, products
    from orchestrator.report.folder import point_latest

    jobs = plan.make_plan(call.request, call.named) if call.request.rows else ()
    folders = [Path(word) for word in call.subjects]
    planned = [products.make_record(job) for job in jobs]
    merged = merge.merge(call.store, folders, call.terminal.note, planned, is_dry_run=call.is_dry_run)
    call.show_product("merge", merge.render, merged)
    if merged.merged and not call.is_dry_run:
        point_latest(call.store, merged.merged)
    return 0


TARGETS = (
    Target(
        "history",
        "read results",
        "list all results of tests, newest last",
        run_history,
        (
            ("cowbell history 'odirect.*' ROW=demo", "the results of some tests in row demo"),
            ("cowbell history KERNEL=6.1", "the results on a version, its beginning, or a tree"),
        ),
        variables=("ROW", "KERNEL"),
        products=("history",),
        takes="[TEST...]",
        kinds=("tests",),
    ),
    Target(
        "diff",
        "read results",
        "compare the results of two runs, kernels or times",
        run_diff,
        (
            ("cowbell diff 6.1 6.12", "what kernel 6.12 breaks, fixes or slows down"),
            ("cowbell diff demo-0123456789ab demo-ba9876543210", "compare two runs, variant by variant"),
        ),
        products=("diff",),
        takes="A B",
        more="A and B are each a run, a kernel version, a tree, DATE or DATE.. (since). Exit status 1: B "
        "broke a test.",
    ),
    Target(
        "merge",
        "read results",
        "import runs and results from the stores of other machines",
        run_merge,
        (
            ("cowbell merge ~/other-store", "import everything that is new"),
            ("cowbell merge ROW=demo shards", "also make one run of row demo, with what is missing"),
        ),
        variables=("ROW", "KERNEL", "SERIES", "ARCH", "CONFIG", "CONFIG+", "TESTS", "BOOT"),
        products=("merge",),
        default_row="none",
        takes="DIR...",
        more="Several runs become one. The other variables are those of the tests, as in CI.",
    ),
)
