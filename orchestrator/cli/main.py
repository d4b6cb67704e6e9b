# SPDX-License-Identifier: GPL-2.0-or-later
"""The entry point: parses the command line, runs a target, prints results and sets the exit status.

Results go to stdout, progress and diagnostics to stderr. Exit status: 0 every verdict is as expected, 1 one
is not, 2 usage error, 3 infrastructure error. Only this module prints and ends the process.
"""

import contextlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

from orchestrator.cli.call import Call
from orchestrator.cli.commandline import read_command_line
from orchestrator.cli.preferences import find_path, load_preferences
from orchestrator.cli.registry import TARGETS
from orchestrator.cli.wrap import wrap_text
from orchestrator.errors import CowbellError, StageFailure
from orchestrator.parse.printk import make_printable
from orchestrator.store.store import convert_disk_errors, find_default_root

# the targets that git bisect run may call
_FOR_GIT = frozenset(("bisect-step", "shell"))


def main(argv: Sequence[str] | None = None) -> None:
    """Run, and exit with the documented status."""
    _open_closed()
    words = list(sys.argv[1:] if argv is None else argv)
    # the target is the first one that is named: others may be words to explain
    is_for_git = next((word for word in words if word in TARGETS), "") in _FOR_GIT
    signal.signal(signal.SIGTERM, _interrupt)
    signal.signal(signal.SIGHUP, _interrupt)
    try:
        with convert_disk_errors(find_default_root()):
            status = _run(words)
    except* CowbellError as group:
        errors = list(_flatten(group))
        for error in errors:
            _tell(_fit(make_printable(f"cowbell: {error}")))
        status = max(_find_status_for_git(error) if is_for_git else error.exit_code for error in errors)
    except* KeyboardInterrupt:
        _tell("cowbell: interrupted; the same command continues where it stopped")
        status = 130
    except* BrokenPipeError:
        # the reader of stdout has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        status = 141
    except* Exception:
        # an uncaught exception would exit with 1, which is a verdict
        _tell(traceback.format_exc())
        _tell("cowbell: internal error, see above; it says nothing about the kernel")
        status = 129 if is_for_git else 3
    sys.exit(status)


def _find_status_for_git(error: CowbellError) -> int:
    """git bisect run skips a commit at 125, takes 126 and 127 for bad, and stops at 128 and above."""
    if isinstance(error, StageFailure):
        return 126 if error.stage == "shell" else 125
    return 126 + error.exit_code


def _open_closed() -> None:
    """Open what the caller has closed: the next file would be taken for stdin, stdout or stderr."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            descriptor = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(descriptor, "w" if number else "r", closefd=False))


def _tell(text: str) -> None:
    """Print on stderr; a full disk there must not change the exit status."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _fit(text: str) -> str:
    """A message for stderr; a terminal must not tear its words."""
    return wrap_text(text, shutil.get_terminal_size().columns, indent=2) if sys.stderr.isatty() else text


def _flatten(group: BaseExceptionGroup[CowbellError]) -> Iterator[CowbellError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _flatten(error)
        else:
            yield error


def _run(words: Sequence[str]) -> int:
    from orchestrator.cli import helptext, listing

    line = read_command_line(words, load_preferences(find_path()))
    with contextlib.ExitStack() as stack:
        call = Call(line, stack, _show, _run)
        if line.options.version:
            _show(f"cowbell {helptext.find_version()}\n")
            return 0
        if line.options.print_variables:
            settings = line.settings
            return call.show_product("variables", listing.render_settings, settings, variables=settings)
        if line.is_bare and not call.declared.own.get("rows"):
            _show(helptext.render_overview())
            return 0
        return TARGETS[line.targets[0]].run(call)


def _show(text: str) -> None:
    print(make_printable(text), end="", flush=True)
