# SPDX-License-Identifier: GPL-2.0-or-later
"""The meaning of every verdict and exit status, for explain, the manual page and the documents."""

from collections.abc import Mapping

VERDICTS: Mapping[str, str] = {
    "PASS": "the test ran to completion: complete KTAP output, exit status 0, the guest still responds, the "
    "kernel log is complete and has no splat, and no new taint flag is set",
    "FAIL": "the test detected incorrect kernel behaviour",
    "FAIL (expected)": "a failure that `ci/expectations.yaml` or the row lists, with the reason; KTAP "
    "calls it XFAIL",
    "PASS (expected to fail)": "unexpected pass (XPASS): counts as a failure; update the expectation",
    "SKIP": "the kernel or the guest lacks something that the test requires; the reason is given",
    "TIMEOUT": "the test did not end within its time limit, and the guest still responds; limits are five "
    "times as long under emulation",
    "CRASH": "the kernel log has a splat (panic, oops, BUG, WARNING, KASAN, lockdep ...), or the guest hung "
    "or was reset; this overrides the result of the test and an expected FAIL",
    "BROKEN": "test or harness error: no plan, a missing result, a contradicting exit status, or a guest "
    "that differs from its row; says nothing about the kernel",
}

EXITS: Mapping[int, str] = {
    0: "every verdict is as expected",
    1: "at least one verdict is not as expected",
    2: "usage error; all errors are listed and nothing was run",
    3: "infrastructure error (tool, disk, network); says nothing about the kernel",
    130: "interrupted; run the same command again to continue",
}
