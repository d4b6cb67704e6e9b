# SPDX-License-Identifier: GPL-2.0-or-later
"""The targets series, worktree and refresh, typed as a developer types them."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, cowbell, render_patch
from tests.gitserver import COMMITS, run_git
from tests.schema import read_product


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Ours, with one series more."""
    place = tmp_path / "project"
    for name in ("ci", "kconfigs", "patches", "guest-tests"):
        shutil.copytree(ROOT / name, place / name)
    folder = place / "patches" / "swap"
    folder.mkdir()
    (folder / "0001-swap.patch").write_text(render_patch("swap", {"mm/swap.c": ("entry + 1", "entry + 2")}))
    (folder / "series").write_text("0001-swap.patch\n")
    (folder / "series.yaml").write_text(
        "title: another swap\nwhen: kernel>=5.15\npatches:\n"
        "  - {file: 0001-swap.patch, flips: {odirect.rd-mprotect: pass}}\n"
    )
    return place


@pytest.fixture
def linux(history: Path, tmp_path: Path) -> Path:
    run_git(tmp_path, "clone", "-q", "--no-local", str(history), str(tmp_path / "linux"))
    run_git(tmp_path / "linux", "checkout", "-q", "-B", "other", "origin/other")
    return tmp_path / "linux"


def test_series_are_listed(project: Path) -> None:
    done = cowbell("series", cwd=project)
    assert done.returncode == 0
    assert (
        "swap: another swap\n  for kernel>=5.15\n    1 swap\n      odirect.rd-mprotect -> pass\n"
        in done.stdout
    )
    told = read_product(cowbell("series", "SERIES=swap", "--json", cwd=project).stdout)["series"]
    assert list(told) == ["swap"]
    assert told["swap"]["patches"][0]["flips"] == {"odirect.rd-mprotect": "pass"}


def test_does_it_apply(project: Path, linux: Path) -> None:
    done = cowbell("series", "SERIES=swap", f"KERNEL={linux}", "-n", cwd=project)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0)
    assert "applies, 1 patch(es)" in done.stdout
    assert "it is meant for kernel>=5.15; tried anyway" in done.stdout
    commit = run_git(linux, "rev-parse", "other")
    told = read_product(
        cowbell("series", "SERIES=swap", f"KERNEL={linux}", "-n", "--json", cwd=project).stdout
    )
    assert (told["commit"], told["version"]) == (commit, "5.10.226")
    assert [patch["state"] for patch in told["series"]["swap"]] == ["applies"]
    assert run_git(linux, "status", "--porcelain") == ""


def test_which_patch_does_not_apply_and_where(project: Path, linux: Path) -> None:
    words = [f"SERIES={linux}:v5.10..origin/stack", f"KERNEL={linux}:other", "-n"]
    done = cowbell("series", *words, cwd=project)
    assert done.returncode == 1
    assert (
        "  0035-many-change-35.patch: does not apply\n      many/35.c: hunk 1 of 1 is rejected:"
        in done.stdout
    )
    assert done.stdout.count(": applies\n") == 34
    assert done.stdout.count(": not tried\n") == COMMITS - 35
    done = cowbell("series", *words, "-k", cwd=project)
    assert (done.returncode, done.stdout.count(": applies\n")) == (1, COMMITS - 1)
    # a source is whole or it is not
    done = cowbell("source", "ROW=demo", *words[:2], cwd=project)
    assert done.returncode == 1
    assert "many/35.c:7: 0035-many-change-35.patch does not apply to" in done.stderr
    assert "0070-many-change-70.patch" not in done.stderr
    done = cowbell("source", "-k", "ROW=demo", *words[:2], cwd=project)
    assert done.returncode == 1
    assert "\n  0036-many-change-36.patch: applies\n" in done.stderr


def test_commit_that_a_mail_was_made_for(project: Path, linux: Path) -> None:
    """A reject says where the mail applies."""
    made_for = run_git(linux, "rev-parse", "v5.10^{commit}")
    patch = project / "mine.patch"
    text = render_patch("mine", {"mm/swap.c": ("entry + 1", "entry + 9")})
    patch.write_text(f"{text}\nbase-commit: {made_for}\nprerequisite-patch-id: {'12' * 20}\n")
    swap = linux / "mm/swap.c"
    swap.write_text(swap.read_text().replace("entry + 1", "entry + 7"))
    run_git(linux, "commit", "-q", "-a", "-m", "in the way")
    told = f"it was made for the commit {made_for[:12]} (base-commit): KERNEL={linux}:{made_for[:12]}; 1 pat"
    done = cowbell("series", f"SERIES={patch}", f"KERNEL={linux}", cwd=project)
    assert (done.returncode, told in done.stdout) == (1, True), done.stdout
    done = cowbell("source", "ROW=demo", f"SERIES={patch}", f"KERNEL={linux}", cwd=project)
    assert (done.returncode, told in done.stderr) == (1, True), done.stderr
    done = cowbell("series", f"SERIES={patch}", f"KERNEL={linux}:{made_for[:12]}", cwd=project)
    assert (done.returncode, "it was made for" in done.stdout) == (0, False), done.stdout


def test_source_of_a_mail_and_a_dirty_tree(project: Path, linux: Path) -> None:
    patch = project / "mine.patch"
    patch.write_text(render_patch("mine", {"mm/swap.c": ("entry + 1", "entry + 9")}))
    (linux / "mm/memory.c").write_text("int changed;\n")
    done = cowbell("source", "ROW=demo", f"KERNEL={linux}", f"SERIES={patch}", cwd=project)
    assert done.returncode == 2
    assert "1 uncommitted change(s): M mm/memory.c" in done.stderr
    done = cowbell("source", "ROW=demo", f"KERNEL={linux}", f"SERIES={patch}", "DIRTY=1", cwd=project)
    assert done.returncode == 0, done.stderr
    plain, mine = (line.split() for line in done.stdout.splitlines())
    assert (plain[3], mine[3]) == ("-", str(patch))
    assert plain[0] != mine[0]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["series", "SERIES=swop"], ["there is no series swop; did you mean swap?"]),
        (["series", "KERNEL=stabel"], ["there is no tree stabel"]),
        (
            ["source", "SERIES=./absent.patch nowhere:a..b", "KERNEL=/absent"],
            ["absent.patch", "no tree nowhere", "/absent: is not a kernel tree"],
        ),
        (["source", "SERIES=debian-5.10:a..b"], ["debian-5.10 is not of git"]),
        (["source", "DIRTY=1"], ["DIRTY: is for KERNEL=/path/to/checkout"]),
        (["source", "DIRTY=1", "KERNEL=debian-5.10"], ["DIRTY: is for KERNEL=/path/to/checkout"]),
        (
            ["source", "KERNEL=debian-5.10:v5"],
            ["expected a Debian version of debian-5.10, such as 6.1.170-3, got v5"],
        ),
        (["worktree"], ["SERIES: expected one series", "KERNEL: is required"]),
        (["refresh", "SERIES=swap cow", "KERNEL=debian-5.10"], ["expected one series"]),
        (["refresh", "SERIES=swap", "KERNEL=debian-5.10"], ["no worktree of swap is open"]),
    ],
)
def test_wrong_words(words: list[str], told: list[str], project: Path) -> None:
    done = cowbell(*words, cwd=project)
    assert done.returncode == 2, done.stderr
    for text in told:
        assert text in done.stderr


def test_test_that_a_patch_can_not_flip(project: Path) -> None:
    claims = project / "patches/swap/series.yaml"
    claims.write_text(claims.read_text().replace("rd-mprotect", "rd-mprotct"))
    done = cowbell("list", cwd=project)
    assert done.returncode == 2
    assert "0001-swap.patch flips odirect.rd-mprotct" in done.stderr
    assert "did you mean odirect.rd-mprotect?" in done.stderr


def test_expectation_of_no_test(project: Path) -> None:
    file = project / "ci/expectations.yaml"
    file.write_text(
        (ROOT / "ci/expectations.yaml")
        .read_text()
        .replace(": vmsplice.child-thp\n", ": vmsplice.child-tph\n", 1)
    )
    done = cowbell("list", cwd=project)
    assert done.returncode == 2
    assert "expects something of vmsplice.child-tph, and there is no such test" in done.stderr
    assert "did you mean vmsplice.child-thp?" in done.stderr


def test_edit_a_series(project: Path, linux: Path, tmp_path: Path) -> None:
    words = ["SERIES=swap", f"KERNEL={linux}"]
    patch = project / "patches/swap/0001-swap.patch"
    place = Path(cowbell("worktree", *words, cwd=project).stdout.strip())
    assert "entry + 2" in (place / "mm/swap.c").read_text()
    (place / "mm/swap.c").write_text((place / "mm/swap.c").read_text().replace("entry + 2", "entry + 3"))
    run_git(place, "commit", "-q", "-a", "--amend", "--no-edit")
    before = patch.read_text()
    done = cowbell("refresh", *words, "-n", cwd=project)
    assert done.stdout == "patches/swap/0001-swap.patch\n"
    assert patch.read_text() == before
    assert cowbell("refresh", *words, cwd=project).stdout == "patches/swap/0001-swap.patch\n"
    assert "entry + 3" in patch.read_text()
    again = cowbell("refresh", *words, cwd=project)
    assert (again.returncode, again.stdout) == (0, "")
    assert "swap is up to date" in again.stderr
    mine = tmp_path / "mine"
    done = cowbell("worktree", *words, f"DIR={mine}", cwd=project)
    assert done.stdout == f"{mine}\n", done.stderr
    assert "entry + 3" in (mine / "mm/swap.c").read_text()
    assert run_git(linux, "worktree", "list").count("\n") == 0, "nothing of it is in the user's repository"
