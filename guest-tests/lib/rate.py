# SPDX-License-Identifier: GPL-2.0-or-later
"""How often a race was hit, in the one form that the host reads: as rate.h."""

from guesttest import gt_note


def gt_rate(hits: int, tries: int) -> None:
    """Of so many chances that the kernel had to go wrong, so many in which it was seen to."""
    gt_note(f"rate: {hits} of {tries} tries")
