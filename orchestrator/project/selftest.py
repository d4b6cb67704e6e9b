# SPDX-License-Identifier: GPL-2.0-or-later
"""The mm selftests of the kernel that can be run as tests: those with a TAP plan and without arguments."""

from collections.abc import Mapping
from pathlib import Path

from orchestrator.project.guesttest import SELFTEST, GuestTest
from orchestrator.store.store import make_id

SELFTESTS: Mapping[str, str] = {
    "cow": "copy-on-write between parent and child, also with pins, huge pages and zero pages",
    "gup_longterm": "long-term pins of shared and private mappings of files",
    "hugetlb_dio": "direct writes from huge pages of hugetlbfs give them back",
    "ksm_functional_tests": "merging, unmerging and what may not be merged",
    "madv_populate": "page tables populated for reading and for writing",
    "mkdirty": "no page that may not be written becomes writable because it is dirty",
    "pagemap_ioctl": "written pages found and write-protected by PAGEMAP_SCAN",
    "soft-dirty": "soft-dirty bits after writes, mremap and mprotect",
    "split_huge_page_test": "huge pages split by debugfs keep their bytes",
}

# selftests/vm until 6.2
FOLDERS = ("tools/testing/selftests/mm", "tools/testing/selftests/vm")
# as the Makefile there, but static: a guest owes them no library
FLAGS = ("-O2", "-w", "-static", "-pthread", "-D_GNU_SOURCE=", "-U_FORTIFY_SOURCE")
SHARED = ("vm_util.c", "thp_settings.c")
# a program that is killed has said what it had to say, and a child of it does not say it again
UNBUFFERED = """#include <stdio.h>
static void __attribute__((constructor)) cowbell_unbuffer(void) { setvbuf(stdout, NULL, _IOLBF, 0); }
"""
# what the Makefile there finds out; without liburing its tests are left out
LOCAL_CONFIG = ""
# of how they are compiled and run
_FORMAT = 2


def _make_test(name: str) -> GuestTest:
    return GuestTest(
        id=f"upstream/{name}",
        path=Path(FOLDERS[0], f"{name}.c"),
        language=SELFTEST,
        # the tree's part in it is known by the kernel that was built from it
        content_id=make_id(name, FLAGS, SHARED, UNBUFFERED, LOCAL_CONFIG, _FORMAT),
        summary=SELFTESTS[name],
        kind="deterministic",
        timeout_s=180,
        needs_root=True,
        # it gets a guest of its own: knobs that it turns are not turned back for others
        may_crash=True,
    )


TESTS = tuple(_make_test(name) for name in SELFTESTS)
