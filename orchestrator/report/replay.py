# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the commands that repeat tests of a run: one test on one kernel, or what was not as expected."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from orchestrator.result.record import JobRecord, RunRecord
from orchestrator.source.tree import name_folder

# variables that are replaced by the values of the job and the test
_OURS = ("ROW", "KERNEL", "SERIES", "TESTS", "RUN", "ACCEL", "BUILT", "DIR")
# those of a run that a repetition of its tests does not take over
_OWN = ("ROW", "TESTS", "FAILED", "DIR")


def make_command(run: RunRecord, job: JobRecord, *tests: str) -> str:
    """The command, quoted for a shell; without ``tests`` for all of the row."""
    words = _split_command(run.command)
    pairs = [word.split("=", 1) for word in words if "=" in word and not word.startswith("-")]
    given = dict(pairs)
    # of CONFIG+= there may be several
    kept = [f"{name}={value}" for name, value in pairs if name.isupper() and name not in _OURS]
    own = [
        f"ROW={job.row}",
        f"KERNEL={_find_kernel(job, given.get('KERNEL', ''))}",
        f"SERIES={_find_series(job.series, given.get('SERIES', ''))}",
        *([f"TESTS={','.join(_find_word(job, test) for test in tests)}"] if tests else []),
        *([f"ACCEL={job.accel}"] if job.accel else []),
    ]
    return shlex.join(
        ["cowbell", *_find_folder(words), "-B", "test", *own, *kept, *_find_arguments([job], tests)]
    )


def _split_command(text: str) -> list[str]:
    """The words of a command, without the arguments of a program."""
    words = shlex.split(text)
    return words[: words.index("--")] if "--" in words else words


def _find_arguments(jobs: Iterable[JobRecord], tests: Iterable[str]) -> list[str]:
    """``--`` and the arguments of a program among the tests."""
    chosen = set(tests)
    found = (file.arguments for job in jobs for test, file in job.files.items() if test in chosen)
    arguments = next(filter(None, found), ())
    return ["--", *arguments] if arguments else []


def _find_word(job: JobRecord, test: str) -> str:
    """The word of TESTS= for a test: the path of its file if it was named by that."""
    return job.files[test].path if test in job.files else test


def make_repetition(run: RunRecord, rows: Iterable[str], tests: Iterable[str]) -> list[str]:
    """The words after ``cowbell`` that run tests of a run again, with the run's variables."""
    # the command of a merged run is those of its parts
    words = _split_command(run.command.split("; ")[0])
    tests = list(tests)
    kept = [word for word in words if word.partition("=")[0].isupper() and word.partition("=")[0] not in _OWN]
    paths = {test: file.path for job in run.jobs for test, file in job.files.items()}
    return [
        *_find_folder(words),
        "-B",
        *kept,
        f"ROW={','.join(dict.fromkeys(rows))}",
        f"TESTS={','.join(dict.fromkeys(paths.get(test, test) for test in tests))}",
        *_find_arguments(run.jobs, tests),
    ]


def _find_kernel(job: JobRecord, given: str) -> str:
    """The value of KERNEL=; a series may have taken its base instead of the HEAD of a checkout."""
    is_other = job.base and f":{job.base[:12]}" in job.tree and ":" not in given
    return _find_tree(job) if is_other or not given else given


def _find_tree(job: JobRecord) -> str:
    """The name of a declared tree, or the path of a local folder."""
    is_folder = job.tree.split(":")[0] == name_folder(Path(job.origin))
    return f"{job.origin}:{job.base[:12]}" if is_folder else job.tree


def _find_series(name: str, series: str) -> str:
    """The value of SERIES= that selected the series, or its name."""
    if not name:
        return "none"
    return next((word for word in series.split(",") if Path(word).stem == name or word == name), name)


def _find_folder(words: list[str]) -> list[str]:
    """The ``-C DIR`` option of the command."""
    for number, word in enumerate(words):
        if word.startswith("-C") and len(word) > 2:
            return [word]
        if word in ("-C", "--directory"):
            return words[number : number + 2]
    return []
