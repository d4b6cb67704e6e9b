# SPDX-License-Identifier: GPL-2.0-or-later
"""The pipeline as GitLab would run it, with real kernels, by gitlab-ci-local's shell executor.

Each job has a folder of its own with what is in git and the artifacts of jobs before it, and nothing else. Of
the suite's store only kernels and root images are used: results are each job's own. Test jobs have an empty
store, no compiler, and a network namespace without a route.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from lxml import etree

from orchestrator.result.record import load_run
from orchestrator.store.store import Store
from tests.conftest import ROOT, is_running, wait_for
from tests.gitserver import run_git

pytestmark = pytest.mark.kernel

VENV = Path(sys.executable).parent
RUNNER = VENV.parent / "npm/node_modules/gitlab-ci-local/src/index.js"
ROW = """
  - name: {name}
    about: a row of a pipeline
    arch: x86_64
    tree: debian-5.10
    kconfig: [base, x86_64, cow]
    guest: {{cpus: 2, memory: 1G}}
    tests: [{tests}]
    limits: {{build: 45m, boot: 20s}}
    variants:
"""
# shell executors know no image, and gitlab-ci-local takes a job with one for a container's
INCLUDE = """
include:
  - local: ci/gitlab-ci.yml
    inputs: {{image: "", store: {store}, setup: 'export GITLAB_CI=true PATH="{bin}:$PATH"'}}
"""
# comes before the installed command: what a runner without network, mirror and compiler would be to test jobs
COWBELL = """\
#!/bin/sh
case "$*" in *BUILT=*) ;; *) exec {bin}/cowbell "$@" ;; esac
export COWBELL_STORE="$CI_PROJECT_DIR/store" PATH="{tools}:$PATH"
exec unshare --map-root-user --net sh -c 'ip link set lo up && echo "routes: $(ip route | wc -l)" \
    && exec {bin}/cowbell "$@"' sh "$@"
"""
NO_TOOLS = ("apt-get", "cc", "clang", "curl", "gcc", "git", "make", "mmdebstrap")
JOB = re.compile(r"^\s*(PASS|FAIL)\s+(?:\[cowbell\] -> )?(\S.*?)\s*$", re.M)


@dataclass
class Project:
    """A project on GitLab that includes the template and has two rows of its own."""

    folder: Path

    def start(self, *words: str, options: Sequence[str] = ()) -> subprocess.Popen[str]:
        node = str(VENV / "node")
        given = [*options, "--shell-isolation", "--force-shell-executor", "--json-schema-validation=false"]
        given += [f"--variable={word}" for word in words or ("CI_PIPELINE_SOURCE=schedule",)]
        return subprocess.Popen(
            [node, RUNNER, *given],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT), "NO_COLOR": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def job_folder(self, name: str, kind: str = "builds") -> Path:
        (found,) = (self.folder / ".gitlab-ci-local" / kind).glob(name)
        return found

    def find_suites(self) -> dict[str, dict[str, str]]:
        """What the merged JUnit says: suites, their tests, and for each what it came to."""
        path = self.job_folder("report", "artifacts") / "public" / "junit.xml"
        return {
            str(suite.get("name")): {
                f"{test.get('classname').rpartition('.')[2]}.{test.get('name')}": next(
                    (child.tag for child in test), "passed"
                )
                for test in suite
            }
            for suite in etree.parse(path).getroot()
        }


@pytest.fixture
def project(tmp_path: Path, kernel_store: Store) -> Iterator[Project]:
    folder = tmp_path / "project"
    (folder / "ci").mkdir(parents=True)
    shutil.copy(ROOT / "ci/gitlab-ci.yml", folder / "ci")
    fails = "{test: odirect.rd-mprotect, status: fail, why: a write fault copies pages with a reference}"
    good = ROW.format(name="good", tests="fork.basic-cow, odirect.rd-mprotect")
    good += f"      - name: plain\n        expect: [{fails}]\n      - {{name: cow, series: cow}}\n"
    bad = ROW.format(name="bad", tests="odirect.rd-control, iouring.fixed-mprotect")
    # known in every row; in this one it was to be fixed long ago
    over = "{test: iouring.fixed-mprotect, status: fail, until: 2020-01-01, why: a fix was on its way}"
    bad += f"      - name: plain\n        expect: [{over}]\n"
    (folder / "ci/matrix.yaml").write_text(f"rows:{good}{bad}")
    tools = tmp_path / "tools"
    for script in [tmp_path / "bin/cowbell", *(tools / name for name in NO_TOOLS)]:
        script.parent.mkdir(exist_ok=True)
        script.write_text(f"#!/bin/sh\necho {script.name} is not there >&2\nexit 127\n")
        script.chmod(0o755)
    (tmp_path / "bin/cowbell").write_text(COWBELL.format(bin=VENV, tools=tools))
    path = f"{tmp_path / 'bin'}:{VENV}"
    (folder / ".gitlab-ci.yml").write_text(INCLUDE.format(store=kernel_store.root, bin=path))
    (folder / ".gitignore").write_text(".gitlab-ci-local/\n")
    run_git(folder, "init", "-q", "-b", "main")
    run_git(folder, "remote", "add", "origin", "git@gitlab.example.org:group/project.git")
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-qm", "a project")
    yield Project(folder)


def test_a_pipeline_from_plan_to_report(project: Project) -> None:
    """Two rows, one of which fails: its job is red, by name, and the report has both."""
    runner = project.start()
    said, _ = runner.communicate(timeout=1800)
    jobs = {name: state for state, name in JOB.findall(said)}
    assert jobs == {
        "cowbell-plan": "PASS",
        "cowbell": "PASS",
        "build good and 1 more": "PASS",
        "test good": "PASS",
        "test bad": "FAIL",
        "report": "FAIL",
    }, said
    # the kernel came as an artifact; nothing was compiled or fetched where it was tested, without a route
    assert re.search(r"test good .*routes: 0", said)
    assert re.search(r"test bad .*routes: 0", said)
    assert not re.search(r"is not there", said)
    assert list(project.job_folder("testIAgood").glob("built/*/vmlinux"))
    assert not re.search(r"test (good|bad) .*(fetch|kconfig)", said)
    # sections of the log, as gitlab-ci-local shows them
    assert re.search(r"test good +good_plain\.run\.\d+ took", said)
    suites = project.find_suites()
    assert list(suites) == ["good/plain", "good/cow", "bad/plain"]
    assert suites["good/plain"]["odirect.rd-mprotect"] == "skipped"
    assert suites["good/cow"]["odirect.rd-mprotect"] == "passed"
    assert suites["bad/plain"] == {"odirect.rd-control": "passed", "iouring.fixed-mprotect": "failure"}
    public = project.job_folder("report", "artifacts") / "public"
    page = (public / "index.html").read_text()
    assert "NOT as expected" in page
    assert all(name in page for name in ("good", "bad", "iouring.fixed-mprotect"))
    link = json.loads((public / "annotations.json").read_text())["cowbell"][0]["external_link"]
    assert re.fullmatch(r"https?://.*/jobs/\d+/artifacts/file/public/index.html", link["url"])
    built = project.job_folder("build*", "artifacts") / "built"
    quality = json.loads((built / "gitlab/codequality.json").read_text())
    # of the files that the series touches, as the build of its kernel found
    found = [json.loads(path.read_text())["new_warnings"] for path in built.glob("*/build.json")]
    assert len(quality) == len({line for lines in found for line in lines})
    # with what only the runner that tested it had
    bundle = public / "evidence" / "iouring.fixed-mprotect.bad.plain.tar.zst"
    listed = subprocess.run(["tar", "-tf", bundle], capture_output=True, text=True, check=True).stdout
    assert "/kernel/config" in listed
    assert "/MISSING" not in listed
    # the next pipeline knows how long tests take
    assert list((project.folder / ".gitlab-ci-local/cache").glob("*/merged/history.sqlite"))


@pytest.mark.parametrize(("fork", "when"), [("group/project", "on_success"), ("me/linux", "manual")])
def test_a_merge_request_of_a_fork_waits_for_a_member(project: Project, fork: str, when: str) -> None:
    words = ("CI_PIPELINE_SOURCE=merge_request_event", f"CI_MERGE_REQUEST_SOURCE_PROJECT_PATH={fork}")
    listed = project.start(*words, options=("--list-json",))
    said, _ = listed.communicate(timeout=300)
    listed_jobs = json.loads(said[said.index("[\n") :])
    jobs = {job["name"]: job["when"] for job in listed_jobs if job["when"] != "never"}
    assert jobs == {"cowbell-plan": when, "cowbell": "on_success"}, said


def find_job(folder: Path) -> int:
    """The cowbell that runs in a job's folder."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            is_ours = (path / "cwd").resolve().is_relative_to(folder)
            words = (path / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if is_ours and b"test" in words and b"ROW=bad" in words:
            return int(path.name)
    return 0


def test_a_job_that_is_killed_costs_nobody_else_a_result(project: Project) -> None:
    """The report has its row, without results."""
    runner = project.start()
    folder = project.folder / ".gitlab-ci-local" / "builds" / "testIAbad"

    def has_earned() -> bool:
        return bool(list(folder.glob("results/test-bad/results/*/iouring.fixed-mprotect.*.json")))

    try:
        wait_for(lambda: find_job(folder) > 0 and has_earned(), 600)
        os.kill(victim := find_job(folder), signal.SIGKILL)
    finally:
        said, _ = runner.communicate(timeout=1800)
    assert not is_running(victim)
    jobs = {name: state for state, name in JOB.findall(said)}
    assert (jobs["test good"], jobs["test bad"], jobs["report"]) == ("PASS", "FAIL", "FAIL"), said
    suites = project.find_suites()
    assert set(suites["good/cow"].values()) == {"passed"}
    assert len(suites["good/plain"]) == 7
    # finished results are there, the others are BROKEN
    assert suites["bad/plain"] == {"iouring.fixed-mprotect": "failure", "odirect.rd-control": "error"}
    record = project.job_folder("report") / "merged/runs/latest/record.json"
    assert [len(job.results) for job in load_run(record).jobs] == [2, 2, 1]
