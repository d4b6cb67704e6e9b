# SPDX-License-Identifier: GPL-2.0-or-later
"""Reports that GitLab shows beside a job or a merge request: the link to the page, and new W=1 warnings.

They are written only in a job of GitLab, which its variables tell.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.kernel.prebuilt import load_prebuilt
from orchestrator.store.store import make_folder, write_atomic

# in the folder of the page
ANNOTATIONS = "annotations.json"
# in the folder of prebuilt kernels, where a JSON file at the top is a kernel
CODE_QUALITY = "gitlab/codequality.json"
_WARNING = re.compile(
    r"(?P<path>[^:]+):(?P<line>\d+):(?:\d+:)? *warning: (?P<text>.*?)(?: \[(?P<flag>-W\S+)\])?"
)


def write_annotations(folder: Path, environ: Mapping[str, str]) -> None:
    """Write the link to the page of a folder below the project folder, for ``reports: annotations``."""
    job, project = environ.get("CI_JOB_URL", ""), environ.get("CI_PROJECT_DIR", "")
    if not job or not project or not folder.resolve().is_relative_to(Path(project).resolve()):
        return
    inner = folder.resolve().relative_to(Path(project).resolve())
    link = {"label": "Cowbell's report", "url": f"{job}/artifacts/file/{inner}/index.html"}
    write_atomic(folder / ANNOTATIONS, json.dumps({"cowbell": [{"external_link": link}]}, indent=1))


def write_code_quality(folder: Path, environ: Mapping[str, str]) -> None:
    """Write the new warnings of a folder's prebuilt kernels, for ``reports: codequality``."""
    if environ.get("GITLAB_CI") != "true" or not folder.is_dir():
        return
    builds = {
        Path(kernel.folder) / kernel.build_id / "build.json"
        for kernel in load_prebuilt([folder]).values()
        if kernel.build_id
    }
    read = [json.loads(path.read_bytes()) for path in sorted(builds)]
    warnings = [line for build in read for line in build.get("new_warnings", [])]
    make_folder((folder / CODE_QUALITY).parent)
    write_atomic(folder / CODE_QUALITY, json.dumps(make_code_quality(warnings), indent=1))


def make_code_quality(warnings: Iterable[str]) -> Sequence[Mapping[str, Any]]:
    """Warnings of gcc or clang as GitLab takes them; a warning that several kernels have is one.

    The fingerprint does not depend on the line, so a warning that only moved is the same.
    """
    found = []
    seen: Counter[str] = Counter()
    for line in dict.fromkeys(warnings):
        if not (match := _WARNING.fullmatch(line)):
            continue
        named = f"{match['path']}: {match['text']}"
        seen[named] += 1
        found.append(
            {
                "description": match["text"],
                "check_name": match["flag"] or "-W",
                "fingerprint": hashlib.sha256(f"{named} {seen[named]}".encode()).hexdigest(),
                "severity": "minor",
                "location": {"path": match["path"], "lines": {"begin": int(match["line"])}},
            }
        )
    return found
