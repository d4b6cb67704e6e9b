# SPDX-License-Identifier: GPL-2.0-or-later
"""A user's own folder over what is shipped, and what is shipped wherever it was installed."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestrator.errors import UsageError
from orchestrator.kernel.build import find_toolchain
from orchestrator.plan import plan
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Declarations, Request
from orchestrator.plan.workspace import Workspace
from orchestrator.project import root
from orchestrator.project.arch import ARCHES
from orchestrator.project.guesttest import GuestTest, compile_command
from orchestrator.run.compile import compile_test
from orchestrator.run.runner import make_test_line
from orchestrator.store.store import Store
from tests.conftest import ROOT, QuietProgress, cowbell, render_patch

C_TEST = """#include "guesttest.h"
#include "mine.h"

static void run(void)
{
	gt_check(MINE == 1, "mine.h is found");
	gt_pass("well");
}

GUEST_TEST = {
	.summary = "a test of somebody's own",
	.kind = "deterministic",
	.timeout_s = 5,
	.run = run,
};
"""
PYTHON_TEST = """from guesttest import GuestTest, gt_pass
import mine

def run():
    gt_pass(mine.WORD)

TEST = GuestTest(summary="a test in Python", kind="deterministic", timeout_s=5, run=run)
if __name__ == "__main__":
    TEST.main()
"""
MATRIX = """rows:
  - name: mine
    about: my test and a shipped one
    arch: x86_64
    tree: debian-5.10
    kconfig: [base, cow, mine]
    guest: {cpus: 1, memory: 512M}
    tests: [mine.*, odirect.rd-control]
    limits: {build: 45m, boot: 20s}
    variants:
      - name: plain
      - {name: cow, series: cow}
      - name: mine
        series: mine
        expect: [{test: mine.header, status: fail, why: my patch breaks it}]
"""
FILES: Mapping[str, str] = {
    "guest-tests/lib/mine.h": "#define MINE 1\n",
    "guest-tests/lib/mine.py": "WORD = 'mine'\n",
    "guest-tests/mine/header.c": C_TEST,
    "guest-tests/mine/script.py": PYTHON_TEST,
    "kconfigs/mine.config": "#: about  what my test needs\nCONFIG_USERFAULTFD=y\n",
    "patches/trees.yaml": "trees:\n  mine: {dir: ../linux}\n",
    "patches/mine/series": "0001-mine.patch\n",
    "patches/mine/0001-mine.patch": render_patch("mine", {"mine.c": ("", "int mine;\n")}),
    "patches/mine/series.yaml": "title: mine\nwhen: kernel>=5.0\npatches:\n"
    "  - {file: 0001-mine.patch, flips: {mine.header: fail}}\n",
    "ci/matrix.yaml": MATRIX,
    "ci/expectations.yaml": "expectations:\n  - {test: mine.script, status: fail, series: mine, why: so}\n",
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return write(tmp_path / "own", FILES)


def find_test(declared: Declarations, test_id: str) -> GuestTest:
    return next(test for test in declared.tests if test.id == test_id)


SHIPPED = load_declarations(ROOT)


def test_own_things_are_added_to_what_is_shipped(own: Path) -> None:
    declared = load_declarations(own)
    assert {kind: set(names) for kind, names in declared.own.items()} == {
        "rows": {"mine"},
        "trees": {"mine"},
        "series": {"mine"},
        "fragments": {"mine"},
        "tests": {"mine.header", "mine.script"},
    }
    assert set(declared.rows) == {"mine", *SHIPPED.rows}
    assert set(declared.trees) == {"mine", *SHIPPED.trees}
    assert set(declared.fragments) == {"mine", *SHIPPED.fragments}
    assert {test.id for test in declared.tests} >= {test.id for test in SHIPPED.tests}
    assert (SHIPPED.own, SHIPPED.usual_rows) == ({}, tuple(SHIPPED.rows))


def test_own_rows_are_the_rows_and_shipped_ones_go_by_name(own: Path) -> None:
    declared = load_declarations(own)
    jobs = plan.make_plan(Request(), declared)
    assert [(job.row.name, job.variant.name) for job in jobs] == [
        ("mine", "plain"),
        ("mine", "cow"),
        ("mine", "mine"),
    ]
    assert [test.id for test in jobs[0].tests] == ["mine.header", "mine.script", "odirect.rd-control"]
    assert {job.row.name for job in plan.make_plan(Request(rows=("demo",)), declared)} == {"demo"}


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [
        (["guest-tests"], {"tests"}),
        (["kconfigs"], {"fragments"}),
        (["patches/trees.yaml"], {"trees"}),
        (["guest-tests", "patches/mine"], {"tests", "series"}),
        (["guest-tests", "kconfigs", "patches", "ci"], {"rows", "trees", "series", "fragments", "tests"}),
    ],
)
def test_any_part_may_be_missing(parts: list[str], kinds: set[str], tmp_path: Path) -> None:
    files = {name: text for name, text in FILES.items() if name.startswith(tuple(parts))}
    declared = load_declarations(write(tmp_path, files))
    assert {kind for kind, names in declared.own.items() if names} == kinds
    assert root.is_project(tmp_path)
    assert declared.usual_rows == (("mine",) if "ci" in parts else tuple(SHIPPED.rows))


def test_an_own_thing_takes_the_place_of_its_name(tmp_path: Path) -> None:
    header = FILES["guest-tests/lib/mine.h"]
    declared = load_declarations(
        write(
            tmp_path,
            {
                "guest-tests/lib/mine.h": header,
                # shipped rows go on to expect something of its subtests
                "guest-tests/ksm/timing.c": C_TEST,
                "kconfigs/thp.config": "#: about  my huge pages\nCONFIG_TRANSPARENT_HUGEPAGE=y\n",
                "patches/trees.yaml": "trees:\n  debian-5.10: {dir: /usr/src/linux}\n",
                "ci/matrix.yaml": MATRIX.replace("name: mine\n    about", "name: demo\n    about")
                .replace(", mine]", "]")
                .replace("mine.*, ", "ksm.timing, ")
                .partition("      - name: mine")[0],
            },
        )
    )
    assert find_test(declared, "ksm.timing").summary == "a test of somebody's own"
    assert declared.fragments["thp"].about == "my huge pages"
    assert str(declared.trees["debian-5.10"]) == "/usr/src/linux"
    assert declared.rows["demo"].about == "my test and a shipped one"
    assert declared.usual_rows == ("demo",)


def test_own_headers_are_for_own_tests(own: Path, tmp_path: Path) -> None:
    """Shipped tests stay what they are, whatever an own library has; own ones follow every header."""
    before = load_declarations(own)
    (own / "guest-tests/lib/thp.h").write_text("#error not for shipped tests\n")
    (own / "guest-tests/lib/mine.h").write_text('#include "beside.h"\n')
    (own / "guest-tests/lib/beside.h").write_text("#define MINE 1\n")
    after = load_declarations(own)
    (own / "guest-tests/lib/beside.h").write_text("#define MINE 2 - 1\n")
    last = load_declarations(own)
    for test in SHIPPED.tests:
        assert find_test(last, test.id) == test
    ids = [find_test(declared, "mine.header").content_id for declared in (before, after, last)]
    assert len(set(ids)) == 3
    lib = ROOT / "guest-tests" / "lib"
    out = tmp_path / "test"
    subprocess.run(compile_command(find_test(last, "mine.header"), "gcc", lib, out), check=True)
    done = subprocess.run([out], capture_output=True, text=True, check=True)
    assert "ok 1 mine.header" in done.stdout


def test_a_header_beside_its_test_is_part_of_it(own: Path) -> None:
    before = find_test(load_declarations(own), "mine.header").content_id
    (own / "guest-tests/mine/mine.h").write_text("#define MINE 1  /* nearer */\n")
    assert find_test(load_declarations(own), "mine.header").content_id != before


def test_python_tests_find_their_own_library_first(own: Path, tmp_path: Path) -> None:
    declared = load_declarations(own)
    line = make_test_line(find_test(declared, "mine.script"), 1)
    assert "PYTHONPATH=/work/own-lib:/work/lib " in line
    shipped = next(test for test in SHIPPED.tests if test.language == "python")
    assert "PYTHONPATH=/work/lib " in make_test_line(shipped, 1)


def test_a_test_that_does_not_compile_is_told_where_it_is_wrong(own: Path, store: Store) -> None:
    lib = ROOT / "guest-tests" / "lib"
    toolchain = find_toolchain(ARCHES["x86_64"])
    for name, text, place in (
        ("guest-tests/mine/header.c", C_TEST.replace("MINE ==", "MIEN =="), "guest-tests/mine/header.c:6"),
        ("guest-tests/lib/mine.h", "#define MINE 1\n#error unfit\n", "guest-tests/lib/mine.h:2"),
    ):
        (own / name).write_text(text)
        test = find_test(load_declarations(own), "mine.header")
        with pytest.raises(UsageError, match="mine.header does not compile") as raised:
            compile_test(test, toolchain, lib, store)
        assert raised.value.where == str(own / place)
        (own / name).write_text(FILES[name])
    compile_test(find_test(load_declarations(own), "mine.header"), toolchain, lib, store)


@pytest.mark.kernel
def test_own_tests_run_beside_shipped_ones(own: Path, kernel_store_root: Path) -> None:
    """In a guest, with their own library and the shipped one."""
    words = ("-B", "test", "--json", "ROW=demo", "SERIES=none", "TESTS=mine.*,fork.basic-cow")
    done = cowbell(*words, cwd=own, COWBELL_STORE=str(kernel_store_root))
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = json.loads(done.stdout)["jobs"]
    told = {verdict["name"]: (verdict["raw"], verdict["reason"]) for verdict in job["verdicts"]}
    assert told["mine.header"] == ("pass", "well")
    assert told["mine.script"] == ("pass", "mine")
    assert told["fork.basic-cow[state=small]"][0] == "pass"


def test_every_fault_is_told_where_it_is(own: Path) -> None:
    spoilt = {
        "guest-tests/mine/header.c": (".kind", ".knid"),
        "kconfigs/mine.config": ("CONFIG_USERFAULTFD=y", "CONFIG_USERFAULTFD"),
        "patches/trees.yaml": ("dir:", "dri:"),
        "ci/matrix.yaml": ("512M", "512"),
    }
    for name, (old, new) in spoilt.items():
        (own / name).write_text(FILES[name].replace(old, new, 1))
    done = cowbell("-C", str(own), "-n")
    assert done.returncode == 2
    for place in ("guest-tests/mine/header.c:12", "kconfigs/mine.config:2", "patches/trees.yaml:2"):
        assert f"{own}/{place}: " in done.stderr
    assert f"{own}/ci/matrix.yaml:7: " in done.stderr


def test_a_faulty_fragment_or_series_stops_only_what_uses_it(own: Path) -> None:
    write(
        own,
        {
            "kconfigs/bad.config": "CONFIG_SWAP\n",
            "kconfigs/binary.config": "\0\1\n",
            "kconfigs/folder.config/x": "",
            "patches/bad/series": "absent.patch\n",
            "patches/bad/series.yaml": "title: bad\nwhen: kernel>=5.0\npatches: []\n",
            "patches/claims/series": "1.patch\n",
            "patches/claims/1.patch": FILES["patches/mine/0001-mine.patch"],
            "patches/claims/series.yaml": FILES["patches/mine/series.yaml"]
            .replace("0001-mine", "1")
            .replace("mine.header", "mine.haeder"),
        },
    )
    assert cowbell("-n", cwd=own).returncode == 0
    assert cowbell("series", "SERIES=mine", cwd=own).returncode == 0
    for words, places in {
        ("-n", "test", "CONFIG=base,bad"): ["kconfigs/bad.config:1: not understood"],
        ("-n", "test", "CONFIG=base,folder,binary"): ["folder.config: cannot be read", "binary.config:1: "],
        ("series", "SERIES=bad"): ["patches/bad/series:1: absent.patch does not exist"],
        ("-n", "test", "SERIES=bad"): ["patches/bad/series:1: absent.patch does not exist"],
        ("series", "SERIES=claims"): ["patches/claims/series.yaml:4: patches[0]: 1.patch flips mine.haeder"],
        ("series",): ["patches/bad/series:1", "patches/claims/series.yaml:4"],
        ("list",): ["kconfigs/bad.config:1", "patches/bad/series:1", "patches/claims/series.yaml:4"],
    }.items():
        done = cowbell(*words, cwd=own)
        assert (done.returncode, done.stderr.count("Traceback")) == (2, 0), done.stderr
        for place in places:
            assert place in done.stderr
    assert cowbell("list", "rows", cwd=own).returncode == 0


def test_an_own_fragment_may_be_a_plain_one(own: Path) -> None:
    (own / "kconfigs/mine.config").write_text("# from elsewhere\nCONFIG_USERFAULTFD=y\n")
    declared = load_declarations(own)
    assert not declared.faults
    assert [request.symbol for request in declared.fragments["mine"].requests] == ["USERFAULTFD"]


@pytest.mark.parametrize(
    ("name", "old", "new", "place"),
    [
        ("ci/matrix.yaml", "test: mine.header", "test: mine.haeder", "ci/matrix.yaml:15: "),
        ("ci/expectations.yaml", "series: mine", "series: mien", "ci/expectations.yaml:2: mine.script: "),
        ("ci/expectations.yaml", "mine.script", "mine.srcipt", "ci/expectations.yaml:2: expects "),
        ("patches/mine/series.yaml", "mine.header", "mine.haeder", "patches/mine/series.yaml:4: patches[0]"),
        ("ci/matrix.yaml", "cow, mine", "cow, mien", "ci/matrix.yaml:2: row mine"),
        ("ci/matrix.yaml", "series: cow", "series: cwo", "ci/matrix.yaml:2: row mine"),
        ("ci/matrix.yaml", "512M}", "512M, swap: zram}", "ci/matrix.yaml:7: rows[0].guest.swap"),
    ],
)
def test_what_fits_nothing_is_told_where_it_is(own: Path, name: str, old: str, new: str, place: str) -> None:
    (own / name).write_text(FILES[name].replace(old, new, 1))
    done = cowbell("-C", str(own), "-n")
    assert done.returncode == 2
    assert f"{own}/{place}" in done.stderr


def test_the_own_folder_is_found_from_below_and_by_name(own: Path, tmp_path: Path) -> None:
    below = own / "guest-tests" / "mine"
    for words, cwd in (((), below), ((), own), (("-C", str(own)), tmp_path)):
        done = cowbell(*words, "list", cwd=cwd)
        assert done.returncode == 0, done.stderr
        assert "\n* mine.header " in done.stdout
        assert "\n  odirect.rd-control " in done.stdout
    assert "mine.header" in json.loads(cowbell("list", "--json", cwd=own).stdout)["own"]["tests"]
    assert "\n* " not in cowbell("list", cwd=tmp_path).stdout
    empty = cowbell("-C", str(tmp_path), "list")
    assert empty.returncode == 2
    assert f"{tmp_path}: is not an overlay" in empty.stderr


def test_dry_run_is_of_the_own_rows(own: Path) -> None:
    steps = json.loads(cowbell("-n", "--json", cwd=own).stdout)["steps"]
    assert steps
    assert all("mine/" in step["subject"] for step in steps)


def test_own_files_of_modules_join_the_shipped_ones(own: Path, store: Store, progress: QuietProgress) -> None:
    module = write(own, {"guest-tests/module/Kbuild": "obj-m := mine.o\n", "guest-tests/module/mine.c": ""})
    place = Workspace(module, store, progress)
    shipped = {path.name for path in (ROOT / "guest-tests/module").iterdir()}
    files = {path.name: path for path in place.list_modules()}
    assert set(files) == shipped | {"mine.c"}
    assert files["Kbuild"] == own / "guest-tests/module/Kbuild"


def test_a_shipped_series_is_not_refreshed_from_elsewhere(own: Path) -> None:
    before = {path: path.read_bytes() for path in (ROOT / "patches/cow").iterdir()}
    done = cowbell("refresh", "SERIES=cow", "KERNEL=debian-5.10", cwd=own)
    assert done.returncode == 2
    assert f"cp -r {ROOT}/patches/cow {own}/patches/" in done.stderr
    assert {path: path.read_bytes() for path in (ROOT / "patches/cow").iterdir()} == before
    assert not (own / "patches/cow").exists()


def install(folder: Path) -> Path:
    """The package as a wheel lays it out."""
    shutil.copytree(ROOT / "orchestrator", folder / "orchestrator")
    for name in ("guest-tests", "kconfigs", "patches"):
        shutil.copytree(ROOT / name, folder / "orchestrator/data" / name)
    (folder / "orchestrator/data/ci").mkdir()
    for name in ("matrix.yaml", "expectations.yaml"):
        shutil.copyfile(ROOT / "ci" / name, folder / "orchestrator/data/ci" / name)
    return folder


IDENTITIES = """
import json
from orchestrator.project import root
from orchestrator.store import store
from orchestrator.plan import workspace
from orchestrator.kernel import kconfig
from orchestrator.source import fixup, patch
from orchestrator.project.arch import ARCHES
from orchestrator.project.condition import Version
from orchestrator.plan.declarations import load_declarations

declared = load_declarations(root.SHIPPED)
place = workspace.Workspace(root.SHIPPED, None, None)
version = Version.parse("5.10.226")
configs = [
    kconfig.make_config(row.kconfig, declared.fragments, ARCHES[row.arch], version).config_id
    for row in declared.rows.values()
]
print(json.dumps([
    {test.id: test.content_id for test in declared.tests},
    configs,
    store.make_tree_id({path.name: path for path in place.list_modules()}),
    {name: [store.make_tree_id({p.name: p}) for p in one.choose(version)]
     for name, one in declared.series.items()},
    sorted(place.list_program_ids(declared.tests).items()),
]))
"""


def identities(package: Path, cwd: Path) -> object:
    done = subprocess.run(
        [sys.executable, "-c", IDENTITIES],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_identities_do_not_depend_on_where_it_is_installed(tmp_path: Path) -> None:
    here = identities(ROOT, tmp_path)
    assert here == identities(install(tmp_path / "a"), tmp_path)
    assert here == identities(install(tmp_path / "another-place"), tmp_path)


def test_nothing_is_written_where_it_is_installed(tmp_path: Path) -> None:
    site = install(tmp_path / "site")
    done = cowbell("refresh", "SERIES=cow", "KERNEL=debian-5.10", cwd=tmp_path, PYTHONPATH=str(site))
    assert done.returncode == 2
    assert "writes only to patches/ of a user overlay" in done.stderr
    assert f"cp -r {site}/orchestrator/data/patches/cow {tmp_path}/patches/" in done.stderr


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist, which was built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (packed,) = folder.glob("*.tar.gz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    (source,) = (path for path in folder.iterdir() if path.is_dir())
    subprocess.run([*build, "-t", "wheel"], cwd=source, check=True, capture_output=True)
    return next(folder.glob("*.whl"))


def test_the_wheel_has_every_file_that_is_read(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "orchestrator", "guest-tests", "kconfigs", "patches", "ci/matrix.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    wanted = {name if name.startswith("orchestrator/") else f"orchestrator/data/{name}" for name in listed}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.startswith("cowbell-")}
        assert wanted <= packed
        assert not {name for name in packed - wanted if name.endswith((".pyc", ".orig", ".rej"))}


def test_the_wheel_works_from_another_folder(wheel: Path, own: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-index",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(pip, check=True, capture_output=True, cwd=tmp_path)
    told = cowbell("list", cwd=own, PYTHONPATH=str(site))
    assert told.returncode == 0, told.stderr
    assert "\n* mine.header " in told.stdout
    assert "\n  odirect.rd-control " in told.stdout
    dry = cowbell("-n", "ROW=demo", cwd=tmp_path, PYTHONPATH=str(site))
    assert dry.returncode == 0, dry.stderr
    assert identities(site, tmp_path) == identities(ROOT, tmp_path)


def test_a_checkout_is_read_where_it_is() -> None:
    assert root.SHIPPED == ROOT
    assert root.IS_CHECKOUT
