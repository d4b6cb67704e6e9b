# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that ksmd has really merged, and what was set for it given back: the Python side of ksm.h."""

import contextlib
import mmap
import re
import time
from collections.abc import Iterator
from pathlib import Path

from guesttest import gt_skip
from pagestate import Memory

KSM = Path("/sys/kernel/mm/ksm")
# an advisor first: a change of it sets the pace anew; it came with 6.8, the passing over of pages that found
# no equal for some scans with 6.7
BUSY = {
    "advisor_mode": "none",
    "smart_scan": "0",
    "sleep_millisecs": "1",
    "pages_to_scan": "1000",
    "run": "1",
}


def _need_ksm() -> None:
    if not KSM.exists():
        gt_skip("the kernel has no KSM")


@contextlib.contextmanager
def ksm_scans() -> "Iterator[None]":
    """ksmd scans without a pause and leaves no page out; all is as it was after the ``with`` block."""
    _need_ksm()
    settings = [KSM / name for name in BUSY if (KSM / name).exists()]
    # where a file shows all words that it takes, the one in brackets is set
    before = {path: re.sub(r".*\[(.*)\].*", r"\1", path.read_text().strip()) for path in settings}
    try:
        for path in settings:
            path.write_text(BUSY[path.name])
        yield
    finally:
        for path in settings:
            path.write_text(before[path])


@contextlib.contextmanager
def ksm_merged(memory: Memory, pages: int) -> "Iterator[None]":
    """
    These pages, which are equal, are one, and ksmd stands still. Nothing but ksmd puts two private pages of
    one process on one page frame, except for the zero page, which pages with bytes in them are not on.
    /proc/kpageflags is no evidence: in 6.12 it shows every anonymous page as merged.
    """
    _need_ksm()
    memory.map.madvise(mmap.MADV_MERGEABLE)
    with ksm_scans():
        while len({memory.frame(page) for page in range(pages)}) > 1:
            time.sleep(0.01)  # a ksmd that does not merge ends in the test's timeout
        (KSM / "run").write_text("0")
        yield
