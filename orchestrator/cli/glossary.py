# SPDX-License-Identifier: GPL-2.0-or-later
"""The meaning of verdicts and exit statuses, for help, explain, the manual page and the documents."""

from collections.abc import Mapping

VERDICTS: Mapping[str, str] = {
    "PASS": "the test ran to its end with a complete KTAP stream and exit status 0, the guest still answers, "
    "the kernel log is complete and has no splat, and the taint did not grow",
    "FAIL": "the test detected incorrect kernel behaviour",
    "FAIL (expected)": "XFAIL in KTAP: a failure that `ci/expectations.yaml` or the row expects",
    "PASS (expected to fail)": "unexpected pass (XPASS): counts as a failure; update the expectation",
    "SKIP": "a requirement of the test is not met here; the reason is given",
    "TIMEOUT": "the test did not end in time and its guest still answers; limits are five times as long "
    "under emulation",
    "CRASH": "the kernel reported a fault (panic, oops, BUG, WARNING, KASAN, lockdep ...), hung, or reset "
    "with no console output; it overrides the test's own result and an expected failure",
    "BROKEN": "test or harness error: no plan, a missing result, a contradicting exit status, or a guest "
    "that does not match the row; says nothing about the kernel",
}

EXITS: Mapping[int, str] = {
    0: "every verdict is as expected",
    1: "at least one verdict is not as expected",
    2: "usage error: a wrong word, file or value; all errors are listed and nothing was run",
    3: "infrastructure error: a host tool, the disk or the network; says nothing about the kernel",
    130: "interrupted; the same command continues where it stopped",
}
