# SPDX-License-Identifier: GPL-2.0-or-later
"""The meaning of every verdict, exit status and term, for explain, the manual page and the documents."""

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

# what the tests promise, by the id of the contract
CONTRACTS: Mapping[str, str] = {
    "C-ACCT": "what the kernel counts is what it was when all is given back, and limits hold",
    "C-COST": "a page that only one process maps is not copied, and a shared page is not unshared needlessly",
    "C-DATA": "bytes that were stored or written are the bytes that are read later",
    "C-ISO": "after fork(), neither process sees later writes of the other to private memory",
    "C-LIVE": "the kernel reports no fault: no oops, no lockup, no wrong reference count",
    "C-READ": "a read() that returned n has stored n bytes in the buffer",
    "C-SYNC": "a pinned page stays the page that its owner maps, whatever happens to the page tables",
    "C-TRACK": "soft-dirty bits and userfaultfd report every page that was written",
}

# the terms of docs/glossary.md, by name and synonyms
TERMS: Mapping[str, str] = {
    "artifact": "a file or folder in the store that Cowbell built.",
    "as expected, unexpected": "PASS, SKIP and FAIL (expected) are as expected, other verdicts are not.",
    "boot": "the stage that starts a guest and waits until it answers.",
    "cache key, id": "a hash of all inputs of an artifact or a result; equal inputs have the same id.",
    "config": "the `.config` of a kernel.",
    "console log": "what a guest printed on its serial console, mainly the messages of its kernel.",
    "contract": "the rule that a test checks, such as C-READ.",
    "control": "of a test: it passes on every kernel, with the bug or without.",
    "coverage": "for each test, the trees on which it has failed and passed; `cowbell proof` prints it.",
    "deterministic": "of a test: it shows its bug in the first try.",
    "evidence bundle": "the archive of a failing trial.",
    "expectation": "an entry of `ci/expectations.yaml` or of a row: on which kernels a test fails, and why.",
    "family": "the tests of one subject, such as `odirect`; the first part of their names.",
    "fingerprint": "the kind of a splat and its first significant functions, see the page Kernel logs.",
    "fixup": "a change that an old tree needs to build with new compilers.",
    "flip, flipped": "the change of a result between fail and pass by a patch or a series.",
    "fragment": "a file of `kconfigs/` with config symbols that belong together.",
    "guest setup, setup": "making the swap, NUMA nodes, huge pages and disks that a row asks for.",
    "hang diagnostics": "what Cowbell collects from a guest that hangs, before it ends the guest.",
    "history": "the record of every result, in `history.sqlite` of the store.",
    "image": "a kernel that can be booted.",
    "infrastructure error": "a failure of a tool, a disk or the network of the host; exit status 3.",
    "job": "one variant of one row, as planned by one command.",
    "kconfig": "the stage that makes the config of a kernel and checks each requested symbol.",
    "known issue": "an entry of `ci/known-splats.yaml`, a splat that does not fail a test.",
    "KTAP": "the format in which tests report results, see `Documentation/dev-tools/ktap.rst` in the kernel.",
    "layer": "Python packages that import only from themselves and from the layers above them in the list.",
    "left out": "of a variant: its series is not for its tree, or its kernel cannot be booted as requested.",
    "not exercised": "of a test: its row lists it by name, and it was skipped on all kernels of the row.",
    "plain": "the usual name of the variant without a series.",
    "postmortem": "finding out how a lost guest ended.",
    "prebuilt kernel": "a kernel that `build DIR=` made and that `BUILT=` tests.",
    "race": "a test whose bug shows only in some tries.",
    "reproducer": "a test that provokes one bug.",
    "result": "what was observed when a test ran.",
    "rootfs, root image": "the Debian file system with which the guests of an architecture boot.",
    "row": "an entry of `ci/matrix.yaml`, with a tree, a config, a guest, tests and variants.",
    "run": "the record of one command that ran tests.",
    "series": "ordered patches.",
    "setup check": "reading in the guest whether the guest setup is as the row asks for.",
    "shard": "a part of a long row in CI.",
    "snapshot": "the saved memory and disks of a guest after guest setup.",
    "splat": "a report in the kernel log of a panic, oops, BUG, WARNING, KASAN, lockdep and the like.",
    "stage": "a step of a job, such as source or boot; reasons begin with the one that failed.",
    "store": "the folder with everything that Cowbell built or measured.",
    "subtest": "a test with one combination of its parameters, such as `family.name[param=value]`.",
    "symbol": "one option of a config.",
    "taint": "the flags of a kernel that has reported a fault; a new one makes a test CRASH.",
    "target": "a word of the command line that names what to do, such as `test`.",
    "TCG, KVM": "QEMU's emulation of a machine, and virtualization by the host's kernel, which is faster.",
    "test": "a program that checks one behaviour of the kernel in a guest, named `family.name`.",
    "tree": "kernel source: a git ref, a tarball, a Debian source package or a folder.",
    "trial": "one execution of a test.",
    "up to date": "of a step or a run: its inputs have not changed, so nothing is done again.",
    "usage error": "a wrong word, file or value of the user; exit status 2.",
    "user overlay": "a folder with your own tests, rows, fragments or series; they extend the built-in ones.",
    "variable": "a `VAR=value` of the command line.",
    "variant": "one tree and series of a row, such as `plain` or `cow`; a column of the report.",
    "verdict": "the meaning of a result in view of its expectation, such as PASS or FAIL (expected).",
}


def render_terms() -> str:
    """The list of docs/glossary.md."""
    lines = (f"**{names.replace(', ', '**, **')}**: {told}\n" for names, told in TERMS.items())
    return "\n" + "\n".join(lines)
