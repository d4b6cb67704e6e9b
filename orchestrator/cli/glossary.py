# SPDX-License-Identifier: GPL-2.0-or-later
"""What verdicts and exit statuses mean, said once: for explain, the man page and the documents."""

from collections.abc import Mapping

VERDICTS: Mapping[str, str] = {
    "PASS": "the test ran to its end, said so in a whole KTAP stream, exited 0, the guest still answers, the "
    "kernel log reached the console whole and has no splat, and the taint did not grow",
    "FAIL": "the kernel did something wrong, and the test saw it",
    "FAIL (expected)": "`ci/expectations.yaml` or the row expects it and says why; KTAP calls it XFAIL",
    "PASS (expected to fail)": "bad news as well: the expectation is wrong",
    "SKIP": "a requirement of the test is not met here, with the reason",
    "TIMEOUT": "the test did not end in time, and its guest still answers; limits are five times as long "
    "under emulation",
    "CRASH": "the kernel complained (panic, oops, BUG, WARNING, KASAN, lockdep ...), whatever the test said, "
    "and also where a failure was expected; or it hung or reset without a word",
    "BROKEN": "the test's own trouble: no plan, a missing result, contradicting exit status, a guest that "
    "is not the one that the row asks for. Says nothing about the kernel",
}

EXITS: Mapping[int, str] = {
    0: "every verdict is the expected one",
    1: "one is not",
    2: "your mistake: a wrong word, file or value; all of them are told at once, and nothing has been done",
    3: "the host's: a tool, the disk, the network; says nothing about the kernel",
    130: "interrupted; the same command goes on from what was done",
}
