# SPDX-License-Identifier: GPL-2.0-or-later
"""parse: the splats and KTAP results of logs from anywhere."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.cli.call import Call
from orchestrator.cli.target import Target
from orchestrator.errors import UsageError, raise_all

# a longer line is read as several, so that it needs no more memory
_MAX_BYTES = 1 << 16


def run(call: Call) -> int:
    from orchestrator.cli import logreport
    from orchestrator.parse.logfile import parse_file

    if not call.subjects:
        raise UsageError("expected files, or - for stdin", where="parse", hint="see: cowbell help parse")
    reports: list[logreport.FileReport] = []
    errors: list[UsageError] = []
    for name in dict.fromkeys(call.subjects):
        try:
            if name == "-":
                reports.append(logreport.make_report(name, parse_file(_read_lines(sys.stdin.buffer))))
                continue
            with Path(name).expanduser().open("rb") as file:
                reports.append(logreport.make_report(name, parse_file(_read_lines(file))))
        except (OSError, ValueError) as error:
            errors.append(UsageError(f"cannot be read: {_explain(error)}", where=name))
    found = tuple(reports)
    is_verbose = bool(call.line.options.verbose)
    if found:
        call.show_product(
            "parse", lambda files: logreport.render(files, is_verbose=is_verbose), found, files=found
        )
    raise_all(errors)
    return int(any(report.is_bad for report in found))


def _explain(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_lines(file: BinaryIO) -> Iterator[str]:
    while line := file.readline(_MAX_BYTES):
        yield line.decode(errors="replace")


TARGETS = (
    Target(
        "parse",
        "read results",
        "list the splats and KTAP results of log files",
        run,
        (
            ("cowbell parse console.log", "splats with fingerprints, and KTAP results that did not pass"),
            ("sudo dmesg | cowbell parse -", "the same of this machine's log"),
        ),
        products=("parse",),
        takes="FILE...",
        more="It reads the console, dmesg with its options, journalctl, syslog, netconsole, and KTAP or TAP. "
        "-v adds the lines of each splat and all results. Exit status 1: a splat, a failed or missing "
        "result. 2: a file cannot be read; the others are listed.",
    ),
)
