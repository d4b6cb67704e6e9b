# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest test in Python: the same declaration, outcomes and KTAP as guesttest.h.

A test ends in ``TEST = GuestTest(...)``, literals only but for ``run=``, because the host reads it as
text, and in ``if __name__ == "__main__": TEST.main()``. run() must end in gt_pass, gt_fail (the
test detected incorrect kernel behaviour), gt_broken (test error) or gt_skip (not applicable here).
Exit status: 0 passed or skipped, 1 failed or timed out, 4 broken. Python 3.9, standard library only.
"""

import ctypes
import gzip
import itertools
import json
import math
import os
import re
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import NoReturn

PASS, FAIL, BROKEN, SKIP, TIMEOUT = range(5)
EXIT_STATUS = {PASS: 0, FAIL: 1, BROKEN: 4, SKIP: 0, TIMEOUT: 1}
SUBTEST_EXIT = 50
PR_SET_PDEATHSIG, PR_SET_NAME = 1, 15

libc = ctypes.CDLL(None, use_errno=True)
_chosen: "dict[str, str]" = {}


class Outcome(BaseException):
    """Ends run(). Not an Exception: a test that catches its own errors must not catch this."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = re.sub(r"\s*\n\s*", " ", text)


def gt_pass(text: str) -> NoReturn:
    raise Outcome(PASS, text)


def gt_fail(text: str) -> NoReturn:
    raise Outcome(FAIL, text)


def gt_broken(text: str) -> NoReturn:
    raise Outcome(BROKEN, text)


def gt_skip(text: str) -> NoReturn:
    raise Outcome(SKIP, text)


def gt_note(text: str) -> None:
    print(f"# {text}", flush=True)


def gt_check(expected: object, got: object, what: str) -> None:
    """Fail the test (kernel failure) unless the values are equal."""
    if expected != got:
        gt_fail(f"{what}; expected: {expected!r}, got: {got!r}")


def gt_need(holds: object, what: str) -> None:
    """End the test as broken unless its precondition holds."""
    if not holds:
        gt_broken(f"{what}: {os.strerror(ctypes.get_errno())}")


def gt_param(name: str) -> str:
    if name not in _chosen:
        gt_broken(f"no parameter {name} is declared")
    return _chosen[name]


def gt_fork(helper: Callable[[], None]) -> int:
    """Run helper in a process that dies with the test; gt_reap turns its end into our outcome."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = EXIT_STATUS[BROKEN]
    try:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            helper()
            status = 0
    except Outcome as end:
        gt_note(f"helper: {end.text}")
        status = EXIT_STATUS[end.status]
    except BaseException:
        gt_note("helper: " + traceback.format_exc().strip().replace("\n", "\n# "))
    finally:
        os._exit(status)


def gt_reap(pid: int) -> None:
    """A helper's gt_fail is our failure, anything else but success breaks the test."""
    status = os.waitpid(pid, 0)[1]
    if os.WIFEXITED(status) and os.WEXITSTATUS(status) == EXIT_STATUS[FAIL]:
        gt_fail("a helper process detected incorrect kernel behaviour, see above")
    if status:
        gt_broken(f"helper process ended with wait status {status:#x}")


def _version(text: str) -> "tuple[int, ...]":
    return tuple(int(n) for n in re.findall(r"\d+", text.partition("-")[0])[:3])


def _kconfig() -> "set[str]":
    """The lines of the running kernel's configuration; empty if unreadable."""
    try:
        with gzip.open("/proc/config.gz", "rt") as config:
            return set(config.read().splitlines())
    except OSError:
        try:
            return set(Path(f"/boot/config-{os.uname().release}").read_text().splitlines())
        except OSError:
            return set()


@dataclass(frozen=True)
class GuestTest:
    """The declaration: field by field that of guesttest.h."""

    summary: str
    kind: str
    timeout_s: int
    run: Callable[[], None]
    contract: str = ""
    mechanism: str = ""
    fixes: str = ""
    cve: str = ""
    changelog: str = ""
    detects: str = ""
    needs_kconfig: str = ""
    min_kernel: str = ""
    params: str = ""
    needs_root: bool = False
    may_crash: bool = False
    cpus: int = 1
    memory_mib: int = 0

    @property
    def id(self) -> str:
        """GT_ID, as the host sets it, or family folder and file name."""
        case = Path(sys.argv[0]).resolve()
        return os.environ.get("GT_ID") or f"{case.parent.name}.{case.stem}"

    def main(self) -> NoReturn:
        if sys.argv[1:] == ["--describe"]:
            told = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "run"}
            print(json.dumps({"id": self.id, **told}, ensure_ascii=False))
            sys.exit(0)
        if sys.argv[1:]:
            print(f"usage: {sys.argv[0]} [--describe]", file=sys.stderr)
            sys.exit(4)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        # what the kernel's log says of a process, and what the patches of patches/negative match
        libc.prctl(PR_SET_NAME, self.id.encode())
        combinations = list(self._combinations())
        print(f"KTAP version 1\n1..{len(combinations)}", flush=True)
        unmet = self.find_unmet()
        if not self.params:
            os._exit(EXIT_STATUS[self._run_case(1, self.id, unmet)])
        worst = 0
        for number, chosen in enumerate(combinations, 1):
            _chosen.clear()
            _chosen.update(chosen)
            label = ",".join(f"{name}={value}" for name, value in chosen.items())
            status = EXIT_STATUS[self._run_subtest(number, f"{self.id}[{label}]", unmet)]
            worst = status if status == 1 or not worst else worst
        sys.exit(worst)

    def _combinations(self) -> "Iterator[dict[str, str]]":
        """The last parameter varies fastest."""
        groups = [group.partition(":") for group in self.params.split(";") if group.strip()]
        axes = [[(name.strip(), value) for value in text.split()] for name, _, text in groups]
        yield from map(dict, itertools.product(*axes))

    def find_unmet(self) -> "str | None":
        """The unmet requirement of the test, if any."""
        release = os.uname().release
        if _version(release) < _version(self.min_kernel):
            return f"needs kernel >= {self.min_kernel}, this is {release}"
        if self.needs_root and os.geteuid():
            return "needs root"
        if os.sysconf("SC_NPROCESSORS_ONLN") < self.cpus:
            return f"needs {self.cpus} CPUs"
        # memory_mib is the size of the guest; the kernel keeps a part for itself
        if os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >> 20 < self.memory_mib * 7 // 8:
            return f"needs {self.memory_mib} MiB of memory"
        config = _kconfig() if self.needs_kconfig else set()
        if self.needs_kconfig and not config:
            gt_note(f"the kernel's configuration is not readable: {self.needs_kconfig} not checked")
            return None
        missing = [
            need
            for need in self.needs_kconfig.split()
            if (f"CONFIG_{need}" not in config)
            != (need.endswith("=n") and not config & {f"CONFIG_{need[:-2]}=y", f"CONFIG_{need[:-2]}=m"})
        ]
        return f"kernel is not built with {' '.join(missing)}" if missing else None

    def _run_case(self, number: int, name: str, unmet: "str | None") -> int:
        """Run, print the result line, return the outcome."""

        def on_alarm(_signal: int, _frame: object) -> None:
            os.write(1, f"not ok {number} {name} # TIMEOUT\n".encode())
            os._exit(SUBTEST_EXIT + TIMEOUT if self.params else EXIT_STATUS[TIMEOUT])

        try:
            if unmet:
                gt_skip(unmet)
            factor = os.environ.get("GT_TIMEOUT_MUL", "")
            signal.signal(signal.SIGALRM, on_alarm)
            signal.alarm(max(1, math.ceil(self.timeout_s * (float(factor) if factor else 1))))
            self.run()
            gt_broken("run() came to no outcome")
        except Outcome as caught:
            end = caught
        except BaseException as error:
            gt_note(traceback.format_exc().strip().replace("\n", "\n# "))
            end = Outcome(BROKEN, f"{type(error).__name__}: {error}")
        signal.alarm(0)
        word = "ok" if end.status in (PASS, SKIP) else "not ok"
        if end.status in (PASS, FAIL):
            print(f"# {end.text}\n{word} {number} {name}", flush=True)
        else:
            directive = "SKIP" if end.status == SKIP else "ERROR"
            print(f"{word} {number} {name} # {directive} {end.text}", flush=True)
        return end.status

    def _run_subtest(self, number: int, name: str, unmet: "str | None") -> int:
        """Run a subtest in a forked child, so that its memory changes do not affect the next one."""
        sys.stdout.flush()
        pid = os.fork()
        if not pid:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os._exit(SUBTEST_EXIT + self._run_case(number, name, unmet))
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) - SUBTEST_EXIT in EXIT_STATUS:
            return os.WEXITSTATUS(status) - SUBTEST_EXIT
        how = f"exited with status {os.WEXITSTATUS(status)} and no outcome"
        if os.WIFSIGNALED(status):
            how = f"killed by signal {os.WTERMSIG(status)}"
        print(f"not ok {number} {name} # ERROR {how}", flush=True)
        return BROKEN
