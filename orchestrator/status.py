# SPDX-License-Identifier: GPL-2.0-or-later
"""The outcomes of a test, and their meaning for reports, KTAP and exit codes."""

from enum import StrEnum


class Status(StrEnum):
    """The outcome of one test. FAIL means incorrect kernel behaviour, BROKEN a test or harness error."""

    PASS = "pass"
    FAIL = "fail"
    SKIP = "skip"
    XFAIL = "xfail"
    XPASS = "xpass"
    TIMEOUT = "timeout"
    CRASH = "crash"
    BROKEN = "broken"

    @property
    def is_bad(self) -> bool:
        """Whether a run with this outcome exits 1. An unexpected pass is bad: update the expectation."""
        return self not in (Status.PASS, Status.SKIP, Status.XFAIL)

    @property
    def is_kernel_fault(self) -> bool:
        """Whether the outcome is evidence against the kernel."""
        return self in (Status.FAIL, Status.XFAIL, Status.TIMEOUT, Status.CRASH)

    def label(self, raw: "Status") -> str:
        """The outcome ``raw``, and whether it was expected, as short text."""
        match self:
            case Status.XFAIL:
                return f"{raw.upper()} (expected)"
            case Status.XPASS:
                return "PASS (expected to fail)"
            case _:
                return self.upper()

    @property
    def style(self) -> str:
        """How a terminal shows it, in the words of rich."""
        styles = {Status.PASS: "green", Status.XFAIL: "yellow", Status.SKIP: "dim"}
        return styles.get(self, "bold red")

    @property
    def ktap(self) -> tuple[bool, str]:
        """``ok`` or not, and the KTAP directive."""
        match self:
            case Status.PASS:
                return True, ""
            case Status.SKIP:
                return True, "SKIP"
            case Status.XFAIL:
                return True, "XFAIL"
            case Status.TIMEOUT:
                return False, "TIMEOUT"
            case Status.CRASH | Status.BROKEN:
                return False, "ERROR"
            case _:
                return False, ""

    def against(self, expected: "Status") -> "Status":
        """The outcome given an expectation: an expected FAIL is XFAIL, a PASS instead of it is XPASS.

        A crash or a timeout counts as an expected failure only if exactly that was expected.
        """
        if expected is Status.PASS or self in (Status.SKIP, Status.BROKEN):
            return self
        if self is expected:
            return Status.XFAIL
        return Status.XPASS if self is Status.PASS else self
