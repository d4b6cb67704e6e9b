# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a GitLab child pipeline from jobs, as a dictionary that is dumped as YAML.

Kernels that share their object files are built by one GitLab job, so that the second one takes seconds and
all of them use the same commit of their tree. A row is tested by one or, if it takes long, several jobs. The
last job makes one report of all results. Each GitLab job only calls a Cowbell target.
"""

import datetime
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from orchestrator.gitlab.reports import ANNOTATIONS, CODE_QUALITY
from orchestrator.gitlab.shards import divide, estimate
from orchestrator.guest.rootfs import make_rootfs_id
from orchestrator.plan.plan import Job
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import GuestTest
from orchestrator.project.matrix import Row
from orchestrator.source.tree import VERSIONED, GitTree, LocalTree, TarballTree, Tree
from orchestrator.store.store import make_id

Yaml = dict[str, Any]
# retry only failures of runners and GitLab, never a failed script
_RETRY = {
    "max": 2,
    "when": ["runner_system_failure", "scheduler_failure", "data_integrity_failure", "api_failure"],
}
# an infrastructure error is only a warning; the report lists the missing results
_WARNS = {"exit_codes": [3]}
_MOST_S = 24 * 3600
# each cache is of one kind of job, which fills it; the plan only pulls
_PULL_PUSH = "pull-push"
# time for fetching, unpacking and installing
_OVERHEAD_S = 1200
# files of guests that are large or secret
_EXCLUDED = ("*/results/*/saved-*/**/*", "*/results/*/*/keys.tar", "*/results/*/*/*.qcow2", "*/runs/latest")
_BUILT, _RESULTS, _MERGED, _PUBLIC = "built", "results", "merged", "public"


@dataclass(frozen=True, slots=True)
class Setup:
    """The environment of the jobs. ``words`` are the variables of the request.

    ``before`` is the command that installs cowbell. ``store`` is relative to the project folder (then GitLab
    caches it) or a path on the runners. ``needs_checkout``: tests read files of the project.
    """

    words: Mapping[str, str]
    options: tuple[str, ...] = ()
    image: str = ""
    before: str = ""
    tags: tuple[str, ...] = ()
    store: str = ".cowbell"
    shard_s: int = 900
    needs_checkout: bool = True

    @property
    def is_cached(self) -> bool:
        return not self.store.startswith("/")

    def call(self, *words: str, take: Sequence[str] = ()) -> str:
        """A cowbell command, with some variables of the request."""
        given = [f"{name}={self.words[name]}" for name in take if self.words.get(name)]
        return shlex.join(["cowbell", *self.options, *words, *given])


_OF_BUILD = ("KERNEL", "SERIES", "DIRTY", "ARCH", "CONFIG", "CONFIG+", "CC", "LLVM", "BOOT", "DEBUG")
_OF_TEST = ("ARCH", "CONFIG", "CONFIG+", "ACCEL", "BOOT", "DEBUG", "REPEAT", "VMCORE")
_OF_MERGE = ("KERNEL", "SERIES", "ARCH", "CONFIG", "CONFIG+", "TESTS", "BOOT")


def make_pipeline(
    jobs: Sequence[Job], setup: Setup, times: Mapping[tuple[str, str], float], today: datetime.date
) -> Yaml:
    """The pipeline that builds, tests and reports jobs; without jobs, it only prints a message."""
    where = setup.store if not setup.is_cached else f"$CI_PROJECT_DIR/{setup.store}"
    defaults: Yaml = {"interruptible": True, "retry": _RETRY}
    if setup.image:
        defaults["image"] = setup.image
    if setup.tags:
        defaults["tags"] = list(setup.tags)
    if setup.before:
        defaults["before_script"] = [setup.before]
    pipeline: Yaml = {
        "stages": ["build", "test", "report"],
        "default": defaults,
        "variables": {"COWBELL_STORE": where, "CCACHE_MAXSIZE": "1G"},
    }
    if not jobs:
        return pipeline | {"nothing": {"stage": "report", "script": ["echo no row has changed"]}}
    rows: dict[str, list[Job]] = {}
    for job in jobs:
        rows.setdefault(job.row.name, []).append(job)
    builds: dict[str, list[Job]] = {}
    for own in rows.values():
        builds.setdefault(_identify_build(own[0]), []).extend(own)
    names: dict[str, str] = {}
    for shared in builds.values():
        built = list(dict.fromkeys(job.row.name for job in shared))
        name = f"build {built[0]}" + (f" and {len(built) - 1} more" if built[1:] else "")
        names |= dict.fromkeys(built, name)
        pipeline[name] = _make_build(shared, built, setup, today)
    tests: list[str] = []
    for row, own in rows.items():
        for name, test in _list_tests(own, names[row], setup, times):
            tests.append(name)
            pipeline[name] = test
    pipeline["report"] = _make_report(list(rows), tests, setup)
    return pipeline


def render(pipeline: Yaml, note: str) -> str:
    head = "".join(f"# {line}\n" for line in note.splitlines())
    return head + yaml.dump(pipeline, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Dumps without aliases, so that each job is complete."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _identify_build(job: Job) -> str:
    """The id of kernels that share object files: those of rows with the same tree and config."""
    return make_id(job.tree.name, job.row.arch, job.row.kconfig)


def _make_build(jobs: Sequence[Job], rows: Sequence[str], setup: Setup, today: datetime.date) -> Yaml:
    named = f"ROW={','.join(rows)}"
    tree, limit_s = jobs[0].tree, max(job.row.limits.build_s for job in jobs)
    newest = [setup.call("-B", "source", named, "SERIES=none", take=("KERNEL",))] if _may_move(tree) else []
    return {
        "stage": "build",
        "timeout": _render_time(limit_s * len({job.series.name for job in jobs}) + _OVERHEAD_S),
        "script": [*newest, setup.call("-k", "build", named, f"DIR={_BUILT}", take=_OF_BUILD)],
        "allow_failure": _WARNS,
        "artifacts": {
            "when": "always",
            "expire_in": "1 week",
            "paths": [f"{_BUILT}/"],
            "reports": {"codequality": f"{_BUILT}/{CODE_QUALITY}"},
        },
        **({"cache": list(_list_caches(jobs[0], setup, today))} if setup.is_cached else {}),
    }


def _may_move(tree: Tree) -> bool:
    """Whether the ref of a tree may have moved on its server."""
    return isinstance(tree, GitTree) and not tree.commit


def _list_caches(job: Job, setup: Setup, today: datetime.date) -> Iterator[Yaml]:
    objects = {"key": f"cowbell-ccache-{_identify_build(job)}", "paths": [f"{setup.store}/ccache/"]}
    # as it is exported: in the store it has 2 GiB, mostly zeros
    rootfs_id = make_rootfs_id(ARCHES[job.row.arch])
    root = {"key": f"cowbell-root-{rootfs_id}", "paths": [f"{_BUILT}/root-{rootfs_id}.img.zst"]}
    yield from (objects | {"when": "always", "policy": _PULL_PUSH}, root | {"policy": _PULL_PUSH})
    if isinstance(job.tree, LocalTree):
        return
    # update the cache of a package or archive each week, except for an exact version
    year, week, _ = today.isocalendar()
    is_exact = isinstance(job.tree, VERSIONED) and job.tree.version
    is_weekly = isinstance(job.tree, (*VERSIONED, TarballTree)) and not is_exact
    when = f"-{year}-{week}" if is_weekly else ""
    source = f"cowbell-source-{make_id(job.tree.name, str(job.tree))}{when}"
    yield {"key": source, "paths": [f"{setup.store}/git/"], "when": "always", "policy": _PULL_PUSH}


def _list_tests(
    jobs: Sequence[Job], build: str, setup: Setup, times: Mapping[tuple[str, str], float]
) -> list[tuple[str, Yaml]]:
    """The test jobs of a row; GitLab groups several ones by their names."""
    row, tests = jobs[0].row, jobs[0].tests
    shards = divide(tests, estimate(row.name, tests, times), setup.shard_s)
    found = []
    for number, shard in enumerate(shards, 1):
        name = f"test {row.name}" + (f" {number}/{len(shards)}" if shards[1:] else "")
        chosen = {"TESTS": ",".join(test.id for test in shard)} if shards[1:] else {}
        found.append((name, _make_test(row, name, build, shard, chosen, len(jobs), setup)))
    return found


def _make_test(
    row: Row,
    name: str,
    build: str,
    tests: Sequence[GuestTest],
    chosen: Mapping[str, str],
    kernels: int,
    setup: Setup,
) -> Yaml:
    folder = f"{_RESULTS}/{name.replace(' ', '-').replace('/', '-of-')}"
    words = [f"{key}={value}" for key, value in chosen.items()]
    take = _OF_TEST if chosen else (*_OF_TEST, "TESTS")
    strategy = {} if setup.needs_checkout else {"GIT_STRATEGY": "none"}
    job: Yaml = {
        "stage": "test",
        # a kernel that does not build is a result as well
        "when": "always",
        "needs": [build],
        "timeout": _render_time(_OVERHEAD_S + kernels * _limit_s(row, tests, setup)),
        "variables": {"COWBELL_RESULTS": f"$CI_PROJECT_DIR/{folder}", **strategy},
        "script": [setup.call("-k", "test", f"ROW={row.name}", f"BUILT={_BUILT}", *words, take=take)],
        "allow_failure": _WARNS,
        "artifacts": {
            "when": "always",
            "expire_in": "1 week",
            "paths": [f"{folder}/"],
            "exclude": [f"{_RESULTS}/{glob}" for glob in _EXCLUDED],
        },
    }
    if row.runner.tags:
        job["tags"] = list(dict.fromkeys((*setup.tags, *row.runner.tags)))
    if row.runner.resource:
        job["resource_group"] = row.runner.resource
    return job


def _limit_s(row: Row, tests: Sequence[GuestTest], setup: Setup) -> float:
    """The time limit of some tests on one emulated kernel in seconds."""
    scale = max(ARCHES[row.arch].time_scale.values())
    repeat = setup.words.get("REPEAT") or "1"
    # auto repeats each race for up to half an hour
    times = int(repeat) if repeat.isdecimal() else 1
    races = 0 if repeat.isdecimal() else sum(test.kind == "race" for test in tests)
    return scale * (row.limits.boot_s + times * sum(test.timeout_s for test in tests)) + 1800 * races


def _render_time(seconds: float) -> str:
    return f"{int(min(seconds, _MOST_S) // 60)} minutes"


def _make_report(rows: Sequence[str], tests: Sequence[str], setup: Setup) -> Yaml:
    job: Yaml = {
        "stage": "report",
        "when": "always",
        # ordered by stage: needs is limited to 50 entries
        "dependencies": list(tests),
        "timeout": _render_time(_OVERHEAD_S),
        "variables": {
            "COWBELL_RESULTS": f"$CI_PROJECT_DIR/{_MERGED}",
            **({} if setup.needs_checkout else {"GIT_STRATEGY": "none"}),
        },
        "script": [
            setup.call("merge", f"ROW={','.join(rows)}", _RESULTS, take=_OF_MERGE),
            setup.call("report", f"DIR={_PUBLIC}"),
        ],
        "artifacts": {
            "when": "always",
            "expire_in": "4 weeks",
            "expose_as": "Cowbell",
            "paths": [f"{_PUBLIC}/"],
            "reports": {"junit": f"{_PUBLIC}/junit.xml", "annotations": f"{_PUBLIC}/{ANNOTATIONS}"},
        },
        # the next pipeline uses the durations of tests and the rates of races
        "cache": [
            {
                "key": "cowbell-history",
                "paths": [f"{_MERGED}/history.sqlite"],
                "when": "always",
                "policy": _PULL_PUSH,
            }
        ],
    }
    return job
