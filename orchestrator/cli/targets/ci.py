# SPDX-License-Identifier: GPL-2.0-or-later
"""ci: the pipeline that builds, tests and reports rows on GitLab."""

from pathlib import Path

from orchestrator.cli.call import Call
from orchestrator.cli.target import JOBS, KERNELS, TRIALS, Target
from orchestrator.errors import UsageError, raise_all


def run(call: Call) -> int:
    """Print the pipeline, or check it or the named files."""
    from orchestrator.gitlab import check
    from orchestrator.gitlab.pipeline import make_text

    options = call.line.options
    if options.check and call.subjects:
        raise_all([error for name in call.subjects for error in check.check_file(Path(name))])
        return 0
    raise_all([UsageError(f"takes the file {word} only with --check", where="ci") for word in call.subjects])
    values = {name: setting.value for name, setting in call.settings.items()}
    folder = ("-C", str(options.directory)) if options.directory else ()
    text = make_text(call.request, values, folder, call.named, call.place)
    if options.check:
        raise_all(check.check_pipeline(text, "the pipeline"))
    else:
        call.show(text)
    return 0


TARGETS = (
    Target(
        "ci",
        "run on GitLab",
        "print a GitLab pipeline that builds, tests and reports rows",
        run,
        (
            ("cowbell ci ROW=demo SINCE=main", "the pipeline of row demo, if its declarations changed"),
            ("cowbell ci --check .gitlab-ci.yml", "check any pipeline: schema, needs, names, paths"),
        ),
        variables=(
            *JOBS, *KERNELS, *TRIALS, "REPEAT", "SINCE", "IMAGE", "SETUP", "TAGS", "SHARD",
        ),
        extra_options=("--check",),
        takes="[FILE...]",
        more="It fetches nothing. Files are only for --check.",
    ),
)  # fmt: skip
