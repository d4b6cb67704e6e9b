# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a race was hit, in the format that the host parses: the Python side of rate.h."""

from guesttest import gt_note


def gt_rate(hits: int, tries: int) -> None:
    """Print the hits of tries in which incorrect kernel behaviour was detected."""
    gt_note(f"rate: {hits} of {tries} tries")
