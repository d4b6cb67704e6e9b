# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are built on one machine and tested on another: what goes along, and what is refused."""

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, StageFailure, UsageError
from orchestrator.guest import rootfs
from orchestrator.guest.rootfs import Rootfs, make_rootfs_id
from orchestrator.kernel.build import Kernel
from orchestrator.kernel.fragment import load_fragments
from orchestrator.kernel.prebuilt import PATCHES, load_prebuilt
from orchestrator.pipeline import build_jobs, explain_jobs, run_jobs
from orchestrator.plan import products
from orchestrator.plan.inputs import add_inputs
from orchestrator.plan.plan import Declarations, Job, Request, make_plan
from orchestrator.plan.products import compile_tests, find_test_toolchain
from orchestrator.plan.steps import build_job
from orchestrator.plan.workspace import Workspace
from orchestrator.project.arch import Arch
from orchestrator.project.matrix import Variant
from orchestrator.result.record import JobRecord, load_run
from orchestrator.source.series import Series
from orchestrator.store.pack import pack
from orchestrator.store.store import Store
from tests.conftest import FAKE_TREE, ROOT, MakeSeries, Mirror, QuietProgress, cowbell_with_store
from tests.kernels import X86
from tests.samples import DECLARED, ROW

MORE = {"mm/swap.c": ("+ 1", "+ 2")}
WRONG = {"mm/memory.c": ("references != 1", "preferences != 1")}
Build = Callable[..., Path]


@pytest.fixture(autouse=True)
def root_images(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """A root image is 1 MiB of zeros and some words."""

    def make(arch: Arch, store: Store, progress: QuietProgress, packed: Path | None = None) -> Rootfs:
        image = store.path("rootfs", "made-here") / "root.img"
        image.parent.mkdir(parents=True, exist_ok=True)
        image.write_bytes(bytes(1 << 20) + b"the root image")
        return Rootfs(make_rootfs_id(arch), image)

    if not request.node.get_closest_marker("kernel"):
        monkeypatch.setattr(products, "make_rootfs", make)


@pytest.fixture
def declared(tmp_path: Path) -> Declarations:
    folder = tmp_path / "kconfigs"
    folder.mkdir()
    (folder / "base.config").write_text("#: about a\nCONFIG_PVH=y\nCONFIG_BLOCK=y\n")
    (folder / "more.config").write_text("#: about a\nCONFIG_SWAP=y\n")
    row = replace(ROW, tree=FAKE_TREE.name, tests=("odirect.*",))
    trees = {FAKE_TREE.name: FAKE_TREE}
    (tmp_path / "program.c").write_text("int main(void)\n{\n\treturn 0;\n}\n")
    tests = tuple(replace(test, path=tmp_path / "program.c") for test in DECLARED.tests)
    fragments = load_fragments(folder)
    return replace(DECLARED, rows={"demo": row}, trees=trees, fragments=fragments, series={}, tests=tests)


@pytest.fixture
def place(tmp_path: Path, progress: QuietProgress) -> Workspace:
    """Another machine than the one that builds."""
    return Workspace(tmp_path, Store(tmp_path / "there"), progress)


@pytest.fixture
def build(mirror: Mirror, declared: Declarations, store: Store, tmp_path: Path) -> Build:
    """``build(series...)``: kernels of the row demo, plain and with each series, as a folder."""

    def build(*series: Series) -> Path:
        variants = (Variant("plain", "", ()), *(Variant(one.name, one.name, ()) for one in series))
        row = replace(declared.rows["demo"], variants=variants)
        asked = replace(declared, rows={"demo": row}, series={one.name: one for one in series})
        here = Workspace(tmp_path, store, QuietProgress())
        jobs, target = make_plan(Request(), asked), tmp_path / "built"
        images = []
        for job in jobs:
            try:
                images += build_jobs([job], asked, here, target=target)
            except ExceptionGroup as failed:
                assert all(isinstance(error, StageFailure) for error in failed.exceptions)
        assert all(image.is_file() and image.is_relative_to(target) for image in images)
        return target

    return build


def take(declared: Declarations, place: Workspace, built: Path) -> tuple[Declarations, tuple[Job, ...]]:
    taken = add_inputs(declared, "", (), place, built=[built])
    return taken, make_plan(Request(rows=("demo",)), taken)


def test_a_kernel_is_what_it_was_where_it_was_built(
    build: Build,
    declared: Declarations,
    place: Workspace,
    store: Store,
    make_series: MakeSeries,
    progress: QuietProgress,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built = build(make_series("cow", MORE))
    taken, jobs = take(declared, place, built)
    # the kernel without series first, though its name comes later
    assert [(job.name, job.series.name, job.tree.name) for job in jobs] == [
        ("demo/plain", "", FAKE_TREE.name),
        ("demo/cow", "cow", FAKE_TREE.name),
    ]
    assert jobs[0].variant.expect == ROW.variants[0].expect
    kernels: list[Kernel] = [build_job(job, taken, place) for job in jobs]
    assert [kernel.folder.parent for kernel in kernels] == [place.store.root / "kernels"] * 2
    for kernel, series in zip(kernels, ("", "cow"), strict=True):
        there = store.root / "kernels" / kernel.request.build_id
        assert kernel.image.read_bytes() == (there / "vmlinux").read_bytes()
        assert kernel.request.source.series == series
        assert (kernel.folder / PATCHES).exists() == bool(series)
    assert "Subject: [PATCH] cow 1" in (kernels[1].folder / PATCHES).read_text()
    # neither fetched nor compiled, also where nothing could be
    monkeypatch.setattr(Workspace, "find_toolchain", lambda *_: pytest.fail("a compiler was looked for"))
    programs = compile_tests(jobs[1], kernels[1], place)
    assert [program.test.id for program in programs] == ["odirect.read", "odirect.write"]
    for program in programs:
        there = store.root / "programs" / program.program_id / program.test.id
        assert program.path.read_bytes() == there.read_bytes()
        assert program.path.is_relative_to(place.store.root)
        assert os.access(program.path, os.X_OK)
    assert jobs[0].built
    assert list(built.glob("root-*")) == [jobs[0].built.packed_rootfs]
    image = rootfs.make_rootfs(X86, place.store, progress, jobs[0].built.packed_rootfs).image
    assert image.read_bytes() == bytes(1 << 20) + b"the root image"
    assert image.stat().st_blocks * 512 < 1 << 20
    assert not (place.store.root / "git").exists()
    assert not (place.store.root / "build").exists()
    assert not [stage for stage, _ in progress.stages if stage in ("source", "kconfig", "build")]
    steps = [step for step in explain_jobs(jobs, taken, place, "tcg") if step.stage == "build"]
    assert [step.why for step in steps] == ["", ""]


def test_what_was_built_is_not_built_for_another_row(
    build: Build, declared: Declarations, place: Workspace
) -> None:
    built = build()
    row = replace(declared.rows["demo"], kconfig=("base", "more"))
    taken, (job,) = take(replace(declared, rows={"demo": row}), place, built)
    with pytest.raises(
        UsageError, match="the kernel of demo/plain has a different config than its row"
    ) as told:
        build_job(job, taken, place)
    assert f"cowbell build ROW=demo DIR={built}" in told.value.hint


def test_modules_of_another_cowbell_are_reported(
    build: Build, declared: Declarations, place: Workspace
) -> None:
    built = build()
    path = built / "demo.plain.json"
    told = json.loads(path.read_text())
    path.write_text(json.dumps(told | {"toolchain": "another compiler"}))
    taken, (job,) = take(declared, place, built)
    with pytest.raises(UsageError, match="was built by another version of cowbell"):
        build_job(job, taken, place)


def test_a_test_that_was_not_built_is_compiled(
    build: Build, declared: Declarations, place: Workspace
) -> None:
    """Nothing but a compiler is missing to run more tests than those of the row."""
    taken = add_inputs(declared, "", (), place, built=[build()])
    (job,) = make_plan(Request(rows=("demo",), tests=("vmsplice.child", "odirect.read")), taken)
    kernel = build_job(job, taken, place)
    compiler = place.find_toolchain(X86)
    toolchains = [find_test_toolchain(job, test, kernel, place) for test in job.tests]
    assert [one == compiler for one in toolchains] == [test.id == "vmsplice.child" for test in job.tests]
    assert all(program.path.is_file() for program in compile_tests(job, kernel, place))


def test_an_archive_of_tests_writes_nowhere_else(
    build: Build, declared: Declarations, place: Workspace, tmp_path: Path
) -> None:
    """And a test that it lacks is the host's trouble."""
    _, (job,) = take(declared, place, build())
    assert job.built
    first, *_ = job.built.programs
    (archive,) = Path(job.built.folder).glob("programs-*")
    with tarfile.open(tmp_path / "tar", "w") as packed:
        for name in (f"{first}/good", f"{first}/../../evil", f"{first}/..", "../evil", "other/evil"):
            packed.add(tmp_path / "program.c", name)
    archive.unlink()
    pack(tmp_path / "tar", archive)
    with pytest.raises(InfraError, match="the compiled tests of demo/plain are incomplete"):
        job.built.take_programs(place.store)
    assert not list(tmp_path.rglob("evil"))
    assert [path.name for path in place.store.path("programs").iterdir()] == [first]


def test_the_root_image_of_another_cowbell_is_reported(
    build: Build, declared: Declarations, place: Workspace
) -> None:
    built = build()
    path = built / "demo.plain.json"
    told = json.loads(path.read_text())
    (built / f"root-{told['rootfs_id']}.img.zst").rename(built / "root-other.img.zst")
    path.write_text(json.dumps(told | {"rootfs_id": "other"}))
    taken, jobs = take(declared, place, built)
    with pytest.raises(UsageError, match="the root image of demo/plain was made by another version"):
        list(explain_jobs(jobs, taken, place, "tcg"))


@pytest.mark.parametrize(
    "damage",
    [
        "cut",
        "lost",
        "no root image",
        "no programs",
        *({"image": name} for name in ("bzImage", "/bin/sh", "../../../bin/sh", 1)),
        {"gnu_build_id": "-"},
        {"wall_s": None},
        [],
    ],
    ids=str,
)
def test_a_kernel_that_did_not_arrive_whole_is_the_hosts(
    build: Build, declared: Declarations, place: Workspace, damage: object
) -> None:
    built = build()
    taken, (job,) = take(declared, place, built)
    assert job.built
    folder = built / job.built.build_id
    if damage == "cut":
        (folder / "vmlinux").write_bytes((folder / "vmlinux").read_bytes()[:-1])
    elif damage == "lost":
        (folder / "build.json").unlink()
    elif damage in ("no root image", "no programs"):
        (packed,) = built.glob("root-*" if damage == "no root image" else "programs-*")
        packed.unlink()
    else:
        told = json.loads((folder / "build.json").read_text())
        changed = told | damage if isinstance(damage, dict) else damage
        (folder / "build.json").write_text(json.dumps(changed))
    with pytest.raises(InfraError, match="the kernel of demo/plain is incomplete"):
        build_job(job, taken, place)


def run_once(jobs: tuple[Job, ...], taken: Declarations, place: Workspace) -> tuple[JobRecord, ...]:
    run_id, _ = run_jobs(jobs, taken, place, "tcg", "cowbell test")
    return load_run(place.store.path("runs", run_id) / "record.json").jobs


def test_what_could_not_be_built_is_told_as_where_it_was_tried(
    build: Build,
    declared: Declarations,
    place: Workspace,
    store: Store,
    make_series: MakeSeries,
    tmp_path: Path,
) -> None:
    """A test that has only what was handed over records what one that built itself would have."""
    young = make_series("young", MORE, when="kernel>=5.15")
    wrong = make_series("wrong", WRONG)
    far = replace(wrong, name="far", patches=(*wrong.patches, *wrong.patches))
    built = build(young, wrong, far)
    taken, jobs = take(declared, place, built)
    by_name = {job.variant.name: job for job in jobs}
    assert list(by_name) == ["plain", "far", "wrong", "young"]
    records = run_once((by_name["young"], by_name["wrong"], by_name["far"]), taken, place)
    young_record, wrong_record, far_record = records
    assert young_record.left_out == "series young is for kernel>=5.15, fake-5.10 is 5.10.226"
    assert wrong_record.failure
    assert (wrong_record.failure.stage, wrong_record.failure.what) == ("build", "the kernel does not build")
    assert "preferences" in wrong_record.failure.hint
    assert far_record.failure
    assert far_record.failure.stage == "source"
    steps = list(explain_jobs([by_name["wrong"]], taken, place, "tcg"))
    assert steps[-1].why == "it could not be built where that was tried"
    here = Workspace(tmp_path, store, QuietProgress())
    row = replace(declared.rows["demo"], variants=tuple(by_name[name].variant for name in ("young", "wrong")))
    asked = replace(declared, rows={"demo": row}, series={one.name: one for one in (young, wrong)})
    alone = run_once(make_plan(Request(), asked), asked, here)
    assert [record.left_out for record in alone] == [young_record.left_out, ""]
    assert alone[1].failure
    assert alone[1].failure.what == wrong_record.failure.what
    assert (alone[1].version, alone[1].base) == (wrong_record.version, wrong_record.base)


def test_words_that_are_of_the_build(build: Build, declared: Declarations, place: Workspace) -> None:
    built = build()
    with pytest.raises(ExceptionGroup) as raised:
        add_inputs(declared, "debian-5.10", ("cow",), place, built=[built])
    assert [str(error).partition("\n")[0] for error in raised.value.exceptions] == [
        "KERNEL: is of the build, and kernels of BUILT= are built",
        "SERIES: is of the build, and kernels of BUILT= are built",
    ]


def test_a_row_of_which_nothing_was_built(build: Build, declared: Declarations, place: Workspace) -> None:
    built = build()
    both = replace(declared, rows={**declared.rows, "other": replace(ROW, name="other")})
    taken = add_inputs(both, "", (), place, built=[built])
    with pytest.raises(InfraError, match="there is no kernel of row other, nor a reason why") as told:
        make_plan(Request(rows=("demo", "other")), taken)
    assert told.value.hint == "there are: demo/plain"


def test_folders_with_nothing_or_with_something_else(
    build: Build, declared: Declarations, place: Workspace, tmp_path: Path
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    # of a build that was killed: not a usage error
    with pytest.raises(InfraError, match="there is no kernel"):
        add_inputs(declared, "", (), place, built=[empty])
    built, other = build(), tmp_path / "other"
    other.mkdir()
    (other / "demo.plain.json").write_bytes((built / "demo.plain.json").read_bytes())
    (other / "list.json").write_text("[]")
    (other / "old.json").write_text(
        json.dumps(json.loads((built / "demo.plain.json").read_text()) | {"schema": "cowbell-built-1"})
    )
    with pytest.raises(ExceptionGroup) as raised:
        load_prebuilt([built, other, tmp_path / "nowhere"])
    told = [str(error).partition("\n")[0] for error in raised.value.exceptions]
    assert told[0] == (f"{other}/demo.plain.json: is a second kernel of demo/plain, the first is in {built}")
    assert told[1].startswith(f"{other}/list.json: is not a prebuilt kernel: ")
    assert told[2] == f"{other}/old.json: has schema cowbell-built-1, expected cowbell-built-2"
    assert told[-1] == f"BUILT={tmp_path}/nowhere: there is no such folder"


def test_again_takes_the_place_of_what_was_there(build: Build) -> None:
    built = build()
    (half := built / ".left").mkdir()
    before = (built / "demo.plain.json").read_text()
    assert build() == built
    assert (built / "demo.plain.json").read_text() == before
    half.rmdir()
    left = sorted(path.name for path in built.iterdir() if not path.name.startswith(("root-", "programs-")))
    assert left == sorted([json.loads(before)["build_id"], "demo.plain.json"])
    assert len(list(built.iterdir())) == 4


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("row", "kernel", "tests"),
    [
        ("demo", (), "odirect.rd-mprotect,fork.basic-cow"),
        # its drivers are modules, and one of the tests needs a module of ours
        ("released", ("KERNEL=debian-image-6.12",), "odirect.rd-mprotect,ropin.shared"),
    ],
)
def test_a_run_needs_no_network_and_no_compiler(
    row: str, kernel: tuple[str, ...], tests: str, kernel_store: Store, tmp_path: Path
) -> None:
    """In a network namespace with a loopback device alone, and with tools that fail."""
    built = tmp_path / "built"
    done = cowbell_with_store(kernel_store.root, "build", f"ROW={row}", *kernel, f"DIR={built}")
    assert done.returncode == 0, done.stderr
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gcc", "make", "ld", "git", "curl", "apt-get", "mmdebstrap"):
        (tools / name).write_text(f"#!/bin/sh\necho $0 >> {tmp_path}/used\nexit 99\n")
        (tools / name).chmod(0o755)
    words = f"-m orchestrator test ROW={row} BUILT={built} ACCEL=tcg TESTS={tests}"
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", f"ip link set lo up && exec {sys.executable} {words}"],
        cwd=ROOT,
        env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "COWBELL_STORE": str(tmp_path / "empty")},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "every verdict is the expected one" in done.stdout
    assert not (tmp_path / "used").exists(), (tmp_path / "used").read_text()
