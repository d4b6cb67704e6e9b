# SPDX-License-Identifier: GPL-2.0-or-later
"""The pipeline for GitLab: what it is made of, what it leaves out, and what GitLab would not take."""

import datetime
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import InfraError, UsageError
from orchestrator.gitlab.check import check_file, check_pipeline
from orchestrator.gitlab.child import Setup, make_pipeline, render
from orchestrator.gitlab.reports import (
    ANNOTATIONS,
    CODE_QUALITY,
    make_code_quality,
    write_annotations,
    write_code_quality,
)
from orchestrator.gitlab.shards import divide, estimate, find_times
from orchestrator.gitlab.touched import choose_touched
from orchestrator.guest.rootfs import make_rootfs_id
from orchestrator.history.entry import make_entries
from orchestrator.kernel.prebuilt import Prebuilt, load_prebuilt
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.inputs import add_names
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.matrix import Runner, load_matrix
from orchestrator.source.tree import DebianTree, GitTree, LocalTree, TarballTree
from orchestrator.store.store import Store, make_id
from tests.conftest import ROOT, cowbell
from tests.gitserver import run_git
from tests.kernels import SOURCE
from tests.records import JOB, RESULT, store_result, store_run
from tests.samples import make_test

DECLARED = load_declarations(ROOT)
TODAY = datetime.date(2026, 3, 2)
SHARED = ["ccache", "root", "source"]
SWAP_ROWS = ("x86_64-swap", "x86_64-raid5", "x86_64-zram")


def plan(*rows: str, declared: Declarations = DECLARED, **words: Any) -> tuple[Job, ...]:  # noqa: ANN401
    request = Request(rows=rows, **words)
    return make_plan(request, add_names(declared, request.tree, request.series))


def make(
    jobs: Sequence[Job],
    times: Mapping[tuple[str, str], float] | None = None,
    **setup: Any,  # noqa: ANN401
) -> dict[str, Any]:
    made = make_pipeline(jobs, Setup(**{"words": {}, "shard_s": 900, **setup}), times or {}, TODAY)
    assert check_pipeline(render(made, "a test"), "pipeline") == []
    return made


def scripts(job: Mapping[str, Any]) -> list[list[str]]:
    return [shlex.split(line) for line in job["script"]]


def names(pipeline: Mapping[str, Any], stage: str) -> list[str]:
    return [name for name, job in pipeline.items() if isinstance(job, dict) and job.get("stage") == stage]


# --- what is rendered


def test_a_row_from_build_to_report() -> None:
    made = make(plan("demo"))
    assert made["stages"] == ["build", "test", "report"]
    assert names(made, "build") == ["build demo"]
    assert names(made, "test") == ["test demo"]
    build, test, report = made["build demo"], made["test demo"], made["report"]
    assert scripts(build) == [["cowbell", "-k", "build", "ROW=demo", "DIR=built"]]
    assert scripts(test) == [["cowbell", "-k", "test", "ROW=demo", "BUILT=built"]]
    assert scripts(report) == [
        ["cowbell", "merge", "ROW=demo", "results"],
        ["cowbell", "report", "DIR=public"],
    ]
    # what a build leaves is what a test takes, and so on
    assert build["artifacts"]["paths"] == ["built/"]
    assert test["needs"] == ["build demo"]
    assert test["variables"]["COWBELL_RESULTS"] == "$CI_PROJECT_DIR/results/test-demo"
    assert test["artifacts"]["paths"] == ["results/test-demo/"]
    assert report["dependencies"] == ["test demo"]
    assert report["artifacts"]["reports"] == {
        "junit": "public/junit.xml",
        "annotations": "public/annotations.json",
    }
    assert build["artifacts"]["reports"] == {"codequality": "built/gitlab/codequality.json"}
    # a cache is written by the jobs that fill it
    assert {cache["policy"] for job in (build, report) for cache in job["cache"]} == {"pull-push"}


def test_what_is_so_for_every_job() -> None:
    """Nothing but our own targets is called, and nothing hides a failure."""
    made = make(plan("demo", "catalogue", *SWAP_ROWS))
    assert set(made["default"]["retry"]["when"]) == {
        "runner_system_failure",
        "scheduler_failure",
        "data_integrity_failure",
        "api_failure",
    }
    jobs = [made[name] for stage in made["stages"] for name in names(made, stage)]
    for job in jobs:
        assert all(line.startswith("cowbell ") for line in job["script"])
        assert "retry" not in job
        assert job["artifacts"]["when"] == "always"
        assert job["artifacts"]["expire_in"]
        assert job["timeout"].endswith(" minutes")
    # an infrastructure error is only a warning; the report fails for missing results
    assert {str(job.get("allow_failure")) for job in jobs} == {"{'exit_codes': [3]}", "None"}
    assert "allow_failure" not in made["report"]
    # what failed to build is a result as well
    assert {made[name]["when"] for name in (*names(made, "test"), "report")} == {"always"}
    assert "&" not in render(made, "a test")


def test_kernels_that_share_objects_are_built_by_one_job() -> None:
    """Each kernel is built once in the pipeline, and all of one row by one job."""
    made = make(plan("demo", "catalogue", *SWAP_ROWS))
    assert names(made, "build") == ["build demo", "build catalogue", "build x86_64-swap and 2 more"]
    assert f"ROW={','.join(SWAP_ROWS)}" in scripts(made["build x86_64-swap and 2 more"])[-1]
    assert {made[f"test {row}"]["needs"][0] for row in SWAP_ROWS} == {"build x86_64-swap and 2 more"}
    built = [row for name in names(made, "build") for row in scripts(made[name])[-1][3][4:].split(",")]
    assert sorted(built) == sorted(["demo", "catalogue", *SWAP_ROWS])


def test_words_go_where_they_mean_something() -> None:
    words = {
        "KERNEL": "/home/me/linux:topic", "SERIES": "/home/me/my fix.mbox", "REPEAT": "auto", "ACCEL": "kvm",
        "TESTS": "fork.*", "CC": "gcc-12",
    }  # fmt: skip
    jobs = plan("demo", tree=words["KERNEL"], series=(words["SERIES"],), tests=("fork.*",))
    assert [job.name for job in jobs] == ["demo/plain", "demo/my-fix.mbox-b33ec3"]
    made = make(jobs, words=words, options=("-C", "my project"))
    own = ["cowbell", "-C", "my project"]
    kernel, series = f"KERNEL={words['KERNEL']}", f"SERIES={words['SERIES']}"
    assert scripts(made["build demo"]) == [
        [*own, "-k", "build", "ROW=demo", "DIR=built", kernel, series, "CC=gcc-12"]
    ]
    assert scripts(made["test demo"]) == [
        [*own, "-k", "test", "ROW=demo", "BUILT=built", "ACCEL=kvm", "REPEAT=auto", "TESTS=fork.*"]
    ]
    assert scripts(made["report"])[0] == [
        *own,
        "merge",
        "ROW=demo",
        "results",
        kernel,
        series,
        "TESTS=fork.*",
    ]


def test_kernels_for_vmcore_are_built_with_debug_info() -> None:
    """Each job of a pipeline means the same kernels; only those that run tests keep the memory."""
    done = cowbell("ci", "ROW=demo", "VMCORE=1")
    assert done.returncode == 0, done.stderr
    made = yaml.safe_load(done.stdout)
    (build,), (test,) = scripts(made["build demo"]), scripts(made["test demo"])
    assert (build[-1], test[-2:]) == ("DEBUG=1", ["DEBUG=1", "VMCORE=1"])
    assert "DEBUG" not in "".join(made["report"]["script"])


def test_the_root_image_is_made_once_and_goes_to_the_tests() -> None:
    """A build takes that of an earlier pipeline as it is exported, and test jobs need no mirror."""
    for row, arch in (("demo", "x86_64"), ("aarch64-4k", "aarch64")):
        made = make(plan(row))
        name = f"built/root-{make_rootfs_id(ARCHES[arch])}.img.zst"
        assert [cache["paths"] for cache in made[f"build {row}"]["cache"]][1] == [name]
        assert "cache" not in made[f"test {row}"]


@pytest.mark.parametrize(
    ("tree", "caches", "is_looked_for"),
    [
        (GitTree("x", ("https://host.example/x.git",), "main"), SHARED, True),
        (GitTree("x", ("https://host.example/x.git",), "main", "0" * 40), SHARED, False),
        (TarballTree("x", "https://host.example/x.tar.xz", "0" * 64), SHARED, False),
        (LocalTree("x", "/home/me/linux"), ["ccache", "root"], False),
    ],
    ids=["branch", "commit", "tarball", "folder"],
)
def test_what_may_have_moved_is_looked_for(tree: Any, caches: list[str], is_looked_for: bool) -> None:  # noqa: ANN401
    """A cached source would else be the newest for ever; a checkout is what the runner has."""
    jobs = [replace(job, tree=tree) for job in plan("demo")]
    build = make(jobs)["build demo"]
    assert [cache["key"].split("-")[1] for cache in build["cache"]] == caches
    looks = ["cowbell", "-B", "source", "ROW=demo", "SERIES=none"]
    assert scripts(build)[:-1] == ([looks] if is_looked_for else [])
    assert "cache" not in make(jobs, store="/var/cache/cowbell")["build demo"]


def test_a_package_is_looked_for_each_week() -> None:
    keys = [
        make_pipeline(plan("demo"), Setup({}), {}, day)["build demo"]["cache"][2]["key"]
        for day in (TODAY, TODAY + datetime.timedelta(6), TODAY + datetime.timedelta(7))
    ]
    assert keys[0] == keys[1] != keys[2]
    jobs = [replace(job, tree=DebianTree("x:1-1", "x", "y", "1-1")) for job in plan("demo")]
    for day in (TODAY, TODAY + datetime.timedelta(7)):
        made = make_pipeline(jobs, Setup({}), {}, day)["build demo"]
        assert made["cache"][2]["key"] == f"cowbell-source-{make_id('x:1-1', 'x 1-1 from y')}"


def test_rows_say_which_runners_they_need(tmp_path: Path) -> None:
    jobs = plan("demo", "catalogue")
    runner = Runner(("arm64", "kvm"), "board-3")
    jobs = tuple(
        replace(job, row=replace(job.row, runner=runner)) if job.row.name == "demo" else job for job in jobs
    )
    made = make(jobs, tags=("lab", "kvm"), image="registry.example/cowbell:1", before="export A=b")
    assert made["default"]["tags"] == ["lab", "kvm"]
    assert made["default"]["image"] == "registry.example/cowbell:1"
    assert made["default"]["before_script"] == ["export A=b"]
    assert made["test demo"]["tags"] == ["lab", "kvm", "arm64"]
    assert made["test demo"]["resource_group"] == "board-3"
    assert "tags" not in made["build demo"]
    assert not {"tags", "resource_group"} & set(made["test catalogue"])
    text = (ROOT / "ci/matrix.yaml").read_text()
    head = "  - name: demo\n"
    file = tmp_path / "matrix.yaml"
    file.write_text(text.replace(head, f"{head}    runner: {{tags: [arm64, kvm], resource: board-3}}\n"))
    rows = load_matrix(file)
    assert rows["demo"].runner == runner
    assert rows["catalogue"].runner == Runner()
    file.write_text(text.replace(head, f"{head}    runner: {{tag: kvm}}\n"))
    with pytest.raises(ExceptionGroup) as raised:
        load_matrix(file)
    assert "tag" in str(raised.value.exceptions[0])


def test_a_project_that_declares_nothing_is_not_fetched_by_tests() -> None:
    made = make(plan("demo"), needs_checkout=False)
    assert made["test demo"]["variables"]["GIT_STRATEGY"] == "none"
    assert made["report"]["variables"]["GIT_STRATEGY"] == "none"
    assert "GIT_STRATEGY" not in make(plan("demo"))["test demo"]["variables"]


def test_no_limit_of_a_test_is_above_that_of_its_job() -> None:
    """Whoever has to end something is the one that knows what it was."""

    def minutes(made: Mapping[str, Any], name: str) -> int:
        return int(made[name]["timeout"].split()[0])

    jobs = plan("demo")
    emulated_s = 5 * sum(test.timeout_s for job in jobs for test in job.tests)
    assert minutes(make(jobs), "test demo") * 60 > emulated_s
    assert minutes(make(jobs, words={"REPEAT": "3"}), "test demo") * 60 > 3 * emulated_s
    assert minutes(make(jobs), "build demo") * 60 > 2 * jobs[0].row.limits.build_s
    races = plan("demo", tests=("odirect.rd-stress",))
    assert minutes(make(races, words={"REPEAT": "auto"}), "test demo") > 2 * 30


def test_a_long_row_is_divided_and_nothing_is_lost() -> None:
    jobs = plan("catalogue")
    tests = jobs[0].tests
    times = {(test.id, "catalogue"): 60.0 for test in tests}
    made = make(jobs, times)
    shards = names(made, "test")
    assert shards == [f"test catalogue {n}/{len(shards)}" for n in range(1, len(shards) + 1)]
    assert len(shards) == round(len(tests) * 60 / 900)
    chosen = [dict(word.split("=", 1) for word in scripts(made[name])[0][3:])["TESTS"] for name in shards]
    assert sorted(",".join(chosen).split(",")) == sorted(test.id for test in tests)
    assert made["report"]["dependencies"] == shards
    folders = [made[name]["artifacts"]["paths"][0] for name in shards]
    assert folders[0] == f"results/test-catalogue-1-of-{len(shards)}/"
    assert len(set(folders)) == len(shards)


def test_a_hundred_rows() -> None:
    """More build jobs than GitLab allows in needs: of one job."""
    row = DECLARED.rows["demo"]
    fragments = {f"own{n}": replace(DECLARED.fragments["cow"], name=f"own{n}") for n in range(50)}
    rows = {
        f"row{n}": replace(row, name=f"row{n}", kconfig=(*row.kconfig, f"own{n % 50}")) for n in range(100)
    }
    declared = replace(DECLARED, rows=rows, fragments={**DECLARED.fragments, **fragments}, own={})
    made = make(plan(declared=declared))
    assert (len(names(made, "build")), len(names(made, "test"))) == (50, 100)


def test_no_row_is_a_pipeline_too() -> None:
    """GitLab rejects a pipeline without jobs."""
    made = make([])
    assert names(made, "report") == ["nothing"]


# --- what GitLab shows beside jobs

WARNINGS = (
    "mm/gup.c:12:5: warning: no previous prototype for ‘gup’ [-Wmissing-prototypes]",
    "mm/memory.c:7:1: warning: unused variable ‘a’ [-Wunused-variable]",
    "mm/memory.c:9:1: warning: unused variable ‘a’ [-Wunused-variable]",
)


def test_new_warnings_as_code_quality() -> None:
    """Once for all kernels, and with a fingerprint that lives on when lines move."""
    found = make_code_quality([*WARNINGS, WARNINGS[0]])
    assert [entry["location"] for entry in found] == [
        {"path": "mm/gup.c", "lines": {"begin": 12}},
        {"path": "mm/memory.c", "lines": {"begin": 7}},
        {"path": "mm/memory.c", "lines": {"begin": 9}},
    ]
    assert found[0]["description"] == "no previous prototype for ‘gup’"
    assert [entry["check_name"] for entry in found[:2]] == ["-Wmissing-prototypes", "-Wunused-variable"]
    prints = [entry["fingerprint"] for entry in found]
    assert len(set(prints)) == 3
    moved = make_code_quality([line.replace(":7:", ":70:").replace(":9:", ":90:") for line in WARNINGS])
    assert [entry["fingerprint"] for entry in moved] == prints
    assert {entry["severity"] for entry in found} == {"minor"}


def test_code_quality_is_of_the_kernels_of_a_folder(tmp_path: Path) -> None:
    for variant, build in (("plain", "0" * 12), ("cow", "1" * 12)):
        (tmp_path / build).mkdir()
        lines = WARNINGS[:1] if variant == "plain" else WARNINGS[1:]
        (tmp_path / build / "build.json").write_text(json.dumps({"new_warnings": lines}))
        told = Prebuilt("r", variant, "", SOURCE, build_id=build)
        (tmp_path / f"r.{variant}.json").write_text(json.dumps(asdict(told)))
    write_code_quality(tmp_path, {})
    assert not (tmp_path / CODE_QUALITY).exists()
    write_code_quality(tmp_path, {"GITLAB_CI": "true"})
    assert json.loads((tmp_path / CODE_QUALITY).read_text()) == make_code_quality(WARNINGS)
    # it is no kernel to the jobs that test
    assert len(load_prebuilt([tmp_path])) == 2


def test_the_link_to_the_page(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    job = {"CI_JOB_URL": "https://gitlab.example.org/a/b/-/jobs/7", "CI_PROJECT_DIR": str(tmp_path)}
    elsewhere = job | {"CI_PROJECT_DIR": str(tmp_path / "other")}
    others: tuple[dict[str, str], ...] = ({}, {"CI_JOB_URL": job["CI_JOB_URL"]}, elsewhere)
    for environ in others:
        write_annotations(public, environ)
        assert not (public / ANNOTATIONS).exists()
    write_annotations(public, job)
    (link,) = json.loads((public / ANNOTATIONS).read_text())["cowbell"]
    assert link["external_link"]["url"] == f"{job['CI_JOB_URL']}/artifacts/file/public/index.html"
    assert link["external_link"]["label"]


# --- the page for administrators


def test_config_of_runners_is_as_the_page_says() -> None:
    """Two runners that share nothing, and none with privileges."""
    page = (ROOT / "docs/gitlab-runners.md").read_text()
    (block,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    config = tomllib.loads(block)
    runners = {runner["name"]: runner for runner in config["runners"]}
    assert len(runners) == 2
    docker = [runner["docker"] for runner in runners.values()]
    stores = [volume.split(":") for each in docker for volume in each["volumes"] if ":" in volume]
    assert len({host for host, _ in stores}) == 2
    assert {inside for _, inside in stores} == {"/var/cache/cowbell"}
    assert "store: /var/cache/cowbell" in page
    for each in docker:
        assert each["devices"] == ["/dev/kvm"]
        assert each["group_add"]
        assert each["privileged"] is False
    # options of gitlab-runner
    assert set(config) <= {"concurrent", "check_interval", "runners"}
    assert {key for runner in runners.values() for key in runner} <= {
        "name", "url", "token", "executor", "limit", "docker", "cache",
    }  # fmt: skip
    assert {key for each in docker for key in each} <= {
        "image", "privileged", "devices", "group_add", "volumes", "allowed_images", "pull_policy", "shm_size",
        "cpus", "memory",
    }  # fmt: skip


# --- how rows are divided


@given(
    st.lists(st.floats(0.01, 10_000), min_size=1, max_size=60),
    st.floats(1, 5_000),
)
def test_shares_are_whole_and_even(seconds: list[float], shard_s: float) -> None:
    tests = [make_test(f"a.test{n}") for n in range(len(seconds))]
    shares = divide(tests, seconds, shard_s)
    assert sorted(test.id for share in shares for test in share) == sorted(test.id for test in tests)
    times = dict(zip((test.id for test in tests), seconds, strict=True))
    lengths = [sum(times[test.id] for test in share) for share in shares]
    # Graham's bound of the longest first
    assert max(lengths) <= sum(seconds) / len(shares) + max(seconds) + 1e-6
    assert all([*share] == sorted(share, key=tests.index) for share in shares)
    assert 1 <= len(shares) <= len(tests)
    assert divide(tests, seconds, shard_s) == shares


def test_the_time_of_a_test_is_that_of_all_its_kernels() -> None:
    """Once for a result, however many subtests it has; the middle one of several."""
    test = "a.test"

    def entries(variant: str, *seconds: float) -> list[Any]:
        job = replace(JOB, row="demo", variant=variant, tests={test: ("a.test[x=1]", "a.test[x=2]")})
        results = [
            replace(RESULT, test=test, duration_s=each, started=f"2026-01-01T00:00:{n:02}")
            for n, each in enumerate(seconds)
        ]
        return [entry for result in results for entry in make_entries(job, result)]

    times = find_times([*entries("plain", 1, 2, 9), *entries("cow", 4)])
    assert times == {(test, "demo"): 6.0, (test, ""): 6.0}
    tests: list[GuestTest] = [make_test(test), make_test("new.test")]
    assert estimate("demo", tests, times) == [6.0, 6.0]
    assert estimate("other", tests, times) == [6.0, 6.0]
    assert estimate("demo", tests, {}) == [2.0, 2.0]


# --- what a change touches


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """An overlay in git with two rows, a series, a fragment and a test."""
    folder = tmp_path / "project"
    for name in ("kconfigs", "patches/cow", "guest-tests/odirect", "ci"):
        (folder / name).mkdir(parents=True)
    text = (ROOT / "ci/matrix.yaml").read_text()
    demo = text[text.index("  - name: demo") : text.index("  - name: catalogue")]
    one = demo.replace("name: demo", "name: one").replace("[base, x86_64, cow]", "[base, x86_64, cow, mine]")
    two = demo.replace("name: demo", "name: two").replace(
        "    tests:\n", "    tests:\n      - odirect.mine\n"
    )
    (folder / "ci/matrix.yaml").write_text(f"rows:\n{one}{two}")
    (folder / "kconfigs/mine.config").write_text("#: about mine\nCONFIG_KSM=y\n")
    test = (ROOT / "guest-tests/odirect/rd-control.c").read_text()
    (folder / "guest-tests/odirect/mine.c").write_text(test)
    (folder / "patches/trees.yaml").write_text("trees:\n  mine: {dir: /home/me/linux}\n")
    (folder / "README.md").write_text("a project\n")
    (folder / "other.c").write_text("int main;\n")
    (folder / "patches/cow").rmdir()
    run_git(folder, "init", "-q", "-b", "main")
    commit(folder)
    return folder


def commit(folder: Path) -> str:
    run_git(folder, "add", "-A")
    run_git(folder, "commit", "-qm", "a change")
    return run_git(folder, "rev-parse", "HEAD").strip()


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text() if path.exists() else ""
    assert old in text
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(old, new, 1) if old else new)


def find_touched(folder: Path, since: str, **words: Any) -> tuple[list[str], str]:  # noqa: ANN401
    request = Request(**words)
    declared = add_names(load_declarations(folder), request.tree, request.series)
    jobs, why = choose_touched(make_plan(request, declared), declared, request, folder, since)
    return list(dict.fromkeys(job.row.name for job in jobs)), why


@pytest.mark.parametrize(
    ("file", "old", "new", "rows"),
    [
        ("kconfigs/mine.config", "KSM", "NUMA", ["one"]),
        ("kconfigs/mine.config", "about mine", "about yours", ["one"]),
        ("kconfigs/unused.config", "", "#: about nothing\nCONFIG_KSM=y\n", []),
        ("guest-tests/odirect/mine.c", "#include", "/* why */\n#include", ["two"]),
        (
            "ci/expectations.yaml",
            "",
            "expectations:\n  - {test: odirect.mine, status: fail, why: it is}\n",
            ["two"],
        ),
        ("ci/matrix.yaml", "boot: 20s", "boot: 21s", ["one"]),
        ("ci/matrix.yaml", "rows:\n", "rows:\n  # a comment, which moves all lines\n", []),
        ("ci/matrix.yaml", "name: two", "name: three", ["three"]),
        ("patches/trees.yaml", "mine:", "ours:", []),
        ("patches/trees.yaml", "mine: {dir", "debian-5.10: {dir", ["one", "two"]),
        (
            "ci/known-splats.yaml",
            "",
            'splats:\n  - {fingerprint: "warning:x*", why: known}\n',
            ["one", "two"],
        ),
        ("README.md", "a project", "my project", []),
        ("Documentation/mm/cow.txt", "", "words\n", []),
        ("other.c", "main", "name", ["one", "two"]),
        (".gitlab-ci.yml", "", "include: []\n", ["one", "two"]),
    ],
    ids=lambda value: value.replace("\n", " ")[:24] if isinstance(value, str) else None,
)
def test_a_change_touches(project: Path, file: str, old: str, new: str, rows: list[str]) -> None:
    before = run_git(project, "rev-parse", "HEAD").strip()
    edit(project / file, old, new)
    commit(project)
    touched, why = find_touched(project, before)
    assert touched == rows, why
    assert find_touched(project, "HEAD")[0] == []


def test_a_series_of_the_project_touches_the_rows_that_try_it(project: Path) -> None:
    shutil.copytree(ROOT / "patches/cow", project / "patches/cow")
    before = commit(project)
    # the same as what is shipped, under its name: nothing is otherwise
    assert find_touched(project, "HEAD~1")[0] == []
    (patch,) = (project / "patches/cow").glob("0001-*.patch")
    edit(patch, "Subject: [PATCH", "Subject: [PATCH v2")
    commit(project)
    assert find_touched(project, before)[0] == ["one", "two"]
    assert find_touched(project, before, series=("none",))[0] == []
    assert find_touched(project, before, rows=("one",))[0] == ["one"]


def test_words_of_the_command_line_touch_nothing_by_themselves(project: Path, tmp_path: Path) -> None:
    before = run_git(project, "rev-parse", "HEAD").strip()
    edit(project / "kconfigs/mine.config", "KSM", "NUMA")
    commit(project)
    words = {"tree": f"{tmp_path}/linux:topic", "series": ("v1..v2 of", str(tmp_path / "a.mbox"))}
    words["series"] = (str(tmp_path / "a.mbox"),)
    assert find_touched(project, before, **words)[0] == ["one"]


@pytest.mark.parametrize("since", ["", "0" * 40])
def test_without_a_before_everything_is_new(project: Path, since: str) -> None:
    assert find_touched(project, since)[0] == ["one", "two"]


def test_what_can_not_be_read_any_more(project: Path) -> None:
    edit(project / "ci/matrix.yaml", "rows:", "lines:")
    before = commit(project)
    edit(project / "ci/matrix.yaml", "lines:", "rows:")
    commit(project)
    rows, why = find_touched(project, before)
    assert rows == ["one", "two"]
    assert "cannot be read by this version" in why


def test_a_commit_that_is_nowhere(project: Path) -> None:
    with pytest.raises(UsageError, match="there is no commit 1234567") as raised:
        find_touched(project, "1234567")
    assert "GIT_DEPTH: 0" in raised.value.hint


def test_a_shallow_clone_asks_its_origin(project: Path, tmp_path: Path) -> None:
    """As a runner has it: one commit deep."""
    before = run_git(project, "rev-parse", "HEAD").strip()
    edit(project / "kconfigs/mine.config", "KSM", "NUMA")
    commit(project)
    run_git(project, "config", "uploadpack.allowAnySHA1InWant", "true")
    clone = tmp_path / "clone"
    run_git(tmp_path, "clone", "-q", "--depth=1", project.as_uri(), str(clone))
    assert find_touched(clone, before)[0] == ["one"]


def test_a_folder_of_a_kernels_tree(project: Path, tmp_path: Path) -> None:
    """What changed outside of it is the kernel."""
    top = tmp_path / "linux"
    (top / "mm").mkdir(parents=True)
    (top / "mm/memory.c").write_text("int a;\n")
    shutil.copytree(project, top / "tools/cowbell", ignore=shutil.ignore_patterns(".git"))
    run_git(top, "init", "-q")
    before, folder = commit(top), top / "tools/cowbell"
    edit(folder / "kconfigs/mine.config", "KSM", "NUMA")
    middle = commit(top)
    assert find_touched(folder, before)[0] == ["one"]
    edit(top / "mm/memory.c", "a", "b")
    commit(top)
    rows, why = find_touched(folder, middle)
    assert rows == ["one", "two"]
    assert why == "every row: mm/memory.c has changed"


# --- what GitLab would not take

GOOD = """\
stages: [one, two]
first:
  stage: one
  script: [make]
  artifacts: {paths: [out/]}
second:
  stage: two
  needs: [first]
  script: [make]
"""


def told(text: str) -> list[str]:
    return [str(error).partition("\n")[0] for error in check_pipeline(text, "ci.yml")]


def test_a_good_pipeline() -> None:
    assert told(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("needs: [first]", "needs: [furst]", "ci.yml:8: second.needs: there is no job furst; did you"),
        ("needs: [first]", "dependencies: [furst]", "ci.yml:8: second.dependencies: there is no job furst"),
        ("  script: [make]\n  art", "  needs: [second]\n  script: [make]\n  art", "needs: is a cycle: "),
        ("  script: [make]\n  art", "  needs: [second]\n  script: [make]\n  art", "second is in a later"),
        ("stage: two", "stage: tow", "ci.yml:7: second.stage: there is no stage tow; did you mean two?"),
        ("[out/]", "[/tmp/out]", "ci.yml:5: first.artifacts: /tmp/out is not in the project folder"),
        ("[out/]", "[../out]", "ci.yml:5: first.artifacts: ../out is not in the project folder"),
        ("[out/]", "[$HOME/out]", "ci.yml:5: first.artifacts: $HOME/out is not in the project folder"),
        ("needs:", "cache: {paths: [~/.ccache]}\n  needs:", "second.cache: ~/.ccache is not in the"),
        ("second:", f"{'s' * 256}:", "the name has 256 characters, GitLab's limit is 255"),
        ("needs:", "retry: {max: 9}\n  needs:", "ci.yml:8: second.retry.max: 9 is greater than the max"),
        ("needs:", "scripts: a\n  needs:", "'scripts' was unexpected"),
        ("stages: [one, two]", "stages: [one, two", "ci.yml:2: is not YAML: "),
        (GOOD, "- a\n", "ci.yml: is not a pipeline: expected a mapping"),
    ],
)  # fmt: skip
def test_errors_are_reported_with_their_line(old: str, new: str, what: str) -> None:
    assert old in GOOD
    lines = told(GOOD.replace(old, new, 1))
    assert any(what in line for line in lines), lines


def test_a_path_of_the_project_is_in_its_folder() -> None:
    assert told(GOOD.replace("[out/]", "[$CI_PROJECT_DIR/out]")) == []


def test_more_needs_than_gitlab_takes() -> None:
    jobs = "".join(f"job{n}: {{stage: one, script: [make]}}\n" for n in range(51))
    many = GOOD.replace("needs: [first]", f"needs: [{', '.join(f'job{n}' for n in range(51))}]") + jobs
    assert told(many) == ["ci.yml:8: second.needs: has 51 entries, GitLab's limit is 50"]


def test_inputs_of_a_template() -> None:
    template = "spec:\n  inputs:\n    stage: {default: two}\n    unused: {}\n---\n" + GOOD
    template = template.replace("stage: two", "stage: $[[ inputs.stage ]]")
    assert told(template) == ["ci.yml:4: spec.inputs.unused: is declared but not used"]
    wrong = template.replace("inputs.stage", "inputs.stages").replace("    unused: {}\n", "")
    assert any("inputs.stages is used but not declared; did you mean stage?" in line for line in told(wrong))


def test_what_is_shipped() -> None:
    for name in ("ci/gitlab-ci.yml", ".gitlab-ci.yml"):
        assert check_file(ROOT / name) == []
    (error,) = check_file(ROOT / "nowhere.yml")
    assert "cannot be read" in str(error)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InfraError, match="check-jsonschema is not installed") as raised:
        told(GOOD)
    assert raised.value.hint == "pip install 'cowbell[ci]'"


# --- the command


def test_the_command(tmp_path: Path) -> None:
    done = cowbell("ci", "ROW=demo", "TAGS=lab", "SETUP=export A=b", CI_PROJECT_DIR="", COWBELL_STORE="")
    assert done.returncode == 0, done.stderr
    pipeline = yaml.safe_load(done.stdout)
    assert pipeline["variables"]["COWBELL_STORE"] == "$CI_PROJECT_DIR/.cowbell"
    assert pipeline["default"]["tags"] == ["lab"]
    file = tmp_path / "child.yml"
    file.write_text(done.stdout)
    assert cowbell("ci", "--check", str(file)).returncode == 0
    assert cowbell("ci", "--check", "ROW=demo").stdout == ""
    file.write_text(done.stdout.replace("stage: test", "stage: tests"))
    wrong = cowbell("ci", "--check", str(file))
    assert wrong.returncode == 2
    assert "there is no stage tests; did you mean test?" in wrong.stderr
    own = cowbell("-C", str(ROOT), "ci", "ROW=demo")
    assert f"cowbell -C {ROOT} -k build ROW=demo" in own.stdout


def test_a_store_that_runners_keep_is_named_as_it_is() -> None:
    done = cowbell("ci", "ROW=demo", CI_PROJECT_DIR="/builds/me/linux", COWBELL_STORE="/var/cache/cowbell")
    assert yaml.safe_load(done.stdout)["variables"]["COWBELL_STORE"] == "/var/cache/cowbell"
    below = cowbell("ci", "ROW=demo", CI_PROJECT_DIR="/builds", COWBELL_STORE="/builds/of/ours")
    assert yaml.safe_load(below.stdout)["variables"]["COWBELL_STORE"] == "$CI_PROJECT_DIR/of/ours"


def test_history_divides(store: Store) -> None:
    """With what stored runs say of their time, a row is tested by several jobs."""

    result = replace(RESULT, duration_s=100.0)
    store_result(store, result)
    store_run(store, 1, replace(JOB, results=(result,)))
    done = cowbell("ci", "ROW=demo", "SHARD=5m", COWBELL_STORE=str(store.root))
    assert "test demo 1/2:" in done.stdout
    assert "test demo:" in cowbell("ci", "ROW=demo", "SHARD=1h", COWBELL_STORE=str(store.root)).stdout


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("ROW=dmo",), "there is no row dmo; did you mean demo?"),
        (("SHARD=5",), "SHARD: "),
        (("TESTS=kselftest/mm/*",), "does not take the kernel's selftests"),
        (("KERNEL=debian-5.11",), "there is no kernel debian-5.11"),
        (("SINCE=no-such-commit",), "there is no commit no-such-commit"),
        (("some.yml",), "takes the file some.yml only with --check"),
    ],
)
def test_wrong_words(words: tuple[str, ...], what: str) -> None:
    done = cowbell("ci", *words)
    assert done.returncode == 2
    assert what in done.stderr
    assert done.stdout == ""
