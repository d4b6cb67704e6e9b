# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees of this machine in every shape: odd names, bare, sparse, nested, of another user, odd settings."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from orchestrator.cli.variables import Setting
from orchestrator.errors import UsageError
from orchestrator.kernel.configcheck import open_kconfig_tree
from orchestrator.plan.inputs import add_names
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.local import check_local
from orchestrator.source.repository import checkout, open_repository, parse_version
from orchestrator.source.series import find_local_range
from orchestrator.source.tree import LocalTree, TarballTree, Tree, find_tree, split_word
from orchestrator.store.name import is_name, make_name
from orchestrator.store.store import Store
from tests.conftest import FAKELINUX, QuietProgress, cowbell, render_patch
from tests.gitserver import commit_file, run_git
from tests.samples import DECLARED

ODD = [
    "a b",
    "~x",
    "a^b",
    "a:b",
    "a*b",
    ".linux",
    "a..b",
    "a.lock",
    "a@{b",
    "-a",
    "a,b",
    "Bäume",
    "a'\"b",
    "x" * 200,
]


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """A checkout of a user's."""
    return make_checkout(tmp_path / "linux")


def make_checkout(place: Path, *options: str) -> Path:
    shutil.copytree(FAKELINUX, place)
    (place / ".gitignore").write_text("*.o\n")
    run_git(place, "init", "-q", "-b", "main", *options)
    run_git(place, "add", "-A", "-f")
    run_git(place, "commit", "-q", "-m", "first")
    return place


def list_files(tree: Tree, store: Store, progress: QuietProgress) -> set[str]:
    src = fetch_tree(tree, store, progress)
    listed = run_git(open_repository(store), "ls-tree", "-r", "-z", "--name-only", src.commit)
    return {name for name in listed.split("\0") if name}


# --- names


@pytest.mark.parametrize("name", ODD)
def test_folder_of_any_name(name: str, tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    place = make_checkout(tmp_path / name)
    run_git(place, "branch", "topic/one")
    head = run_git(place, "rev-parse", "HEAD")
    for word in (str(place), f"{place}:topic/one", f"{place}:HEAD", place.as_uri()):
        src = fetch_tree(find_tree(word, {}), store, progress)
        assert src.commit == head
        with checkout(src, store) as built:
            assert (built / "mm/swap.c").exists()
    (place / "mm/swap.c").write_text("int swap;\n")
    dirty = fetch_tree(find_tree(str(place), {}, is_dirty=True), store, progress)
    assert run_git(open_repository(store), "show", f"{dirty.commit}:mm/swap.c") == "int swap;"
    commit_file(place, "mm/swap.c", "int swap;\n", "second")
    tree = find_tree(str(place), {})
    assert isinstance(tree, LocalTree)
    assert len(find_local_range(f"{place}:HEAD~1..HEAD", tree, "HEAD~1", "HEAD", store).patches) == 1


def test_path_that_is_on_another_machine_keeps_its_ref() -> None:
    known = add_names(DECLARED, "/nowhere/linux:topic/one", ()).trees["/nowhere/linux:topic/one"]
    assert known == LocalTree("/nowhere/linux:topic/one", "/nowhere/linux", "topic/one")


def test_words_that_no_path_can_have(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    for word in ("/" + "x" * 5000, "/a\0b", "~nobody-here/linux", f"{tmp_path}/loop"):
        for ref in ("", ":v5"):
            with pytest.raises(UsageError, match="there is no such folder or archive"):
                find_tree(f"{word}{ref}", {})
    assert split_word("stable:v5.15") == ("stable", "v5.15")


@pytest.mark.parametrize("text", [*ODD, "", "..", "HEAD~1..HEAD-on-/a b:v5", "x.lock", "@", "-"])
def test_name_of_a_branch(text: str, linux: Path) -> None:
    name = make_name(text)
    assert is_name(name)
    run_git(linux, "check-ref-format", f"refs/heads/{name}")
    run_git(linux, "check-ref-format", "--branch", name)


def test_paths_of_a_list_may_have_blanks_and_commas(tmp_path: Path) -> None:
    odd = tmp_path / "a b, c"
    odd.mkdir()
    (odd / "x y.mbox").touch()
    (odd / "z,1.patch").touch()
    value = f"cow {odd}/x y.mbox,{odd}/z,1.patch, none {odd}:HEAD~1..HEAD ./absent one"
    expected = (
        "cow",
        f"{odd}/x y.mbox",
        f"{odd}/z,1.patch",
        "none",
        f"{odd}:HEAD~1..HEAD",
        "./absent",
        "one",
    )
    assert Setting(value, "command line").paths == expected
    assert Setting("", "default").paths == ()
    assert Setting("a,b  c", "default").paths == ("a", "b", "c")


# --- what is uncommitted


def test_sparse_checkout_with_changes_loses_nothing(
    linux: Path, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    for kind in (["--cone"], ["--cone", "--sparse-index"], ["--no-cone"]):
        place = tmp_path / "-".join(kind).strip("-")
        run_git(tmp_path, "clone", "-q", str(linux), str(place))
        run_git(place, "sparse-checkout", "set", *kind, "init")
        assert not (place / "mm").exists()
        (place / "init/main.c").write_text("int changed;\n")
        (place / "init/new.c").write_text("int added;\n")
        (place / "init/object.o").write_text("no source")
        dirty = find_tree(str(place), {}, is_dirty=True)
        for _ in range(2):
            files = list_files(dirty, store, progress)
            assert {"mm/swap.c", "mm/memory.c", "init/new.c"} <= files
            assert "init/object.o" not in files
        src = fetch_tree(dirty, store, progress)
        assert run_git(open_repository(store), "show", f"{src.commit}:init/main.c") == "int changed;"
        (place / "mm").mkdir(exist_ok=True)
        (place / "mm/swap.c").write_text("int there;\n")
        src = fetch_tree(dirty, store, progress)
        assert run_git(open_repository(store), "show", f"{src.commit}:mm/swap.c") == "int there;"
        run_git(place, "sparse-checkout", "disable")
        (place / "mm/memory.c").unlink()
        assert "mm/memory.c" not in list_files(dirty, store, progress)


def test_flags_of_the_index_hide_no_change(linux: Path, store: Store, progress: QuietProgress) -> None:
    run_git(linux, "update-index", "--assume-unchanged", "mm/swap.c")
    run_git(linux, "update-index", "--skip-worktree", "mm/memory.c")
    for name in ("mm/swap.c", "mm/memory.c"):
        (linux / name).write_text("int hidden;\n")
    src = fetch_tree(find_tree(str(linux), {}, is_dirty=True), store, progress)
    for name in ("mm/swap.c", "mm/memory.c"):
        assert run_git(open_repository(store), "show", f"{src.commit}:{name}") == "int hidden;"


@pytest.mark.parametrize("has_git", [True, False])
def test_files_of_a_clone_inside_are_files(
    linux: Path, store: Store, progress: QuietProgress, *, has_git: bool
) -> None:
    inner = linux / "drivers" / "own"
    inner.mkdir(parents=True)
    for place in (inner, inner / "deep"):
        place.mkdir(exist_ok=True)
        (place / "code.c").write_text("int code;\n")
        (place / "made.o").write_text("no source")
        run_git(place, "init", "-q")
        run_git(place, "add", "code.c")
        run_git(place, "commit", "-q", "-m", "inner")
        # what the inner repository would have git run is not run
        run_git(place, "config", "core.fsmonitor", f"touch {linux}/was-run; false")
    (inner / "link").symlink_to("deep")
    if not has_git:
        shutil.rmtree(linux / ".git")
    files = list_files(find_tree(str(linux), {}, is_dirty=has_git), store, progress)
    assert {"drivers/own/code.c", "drivers/own/deep/code.c", "drivers/own/link"} <= files
    assert ("drivers/own/made.o" in files) is not has_git
    assert not (linux / "was-run").exists()


def test_excludes_of_the_user_hold(
    linux: Path, store: Store, progress: QuietProgress, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GIT_CONFIG_GLOBAL")
    (linux / ".git/info/exclude").write_text("*.mine")
    (home / ".config/git").mkdir(parents=True)
    (home / ".config/git/ignore").write_text("*.all\n")
    for name in ("a.mine", "b.all", "c.notes", "d.c"):
        (linux / name).write_text(name)
    dirty = find_tree(str(linux), {}, is_dirty=True)
    files = list_files(dirty, store, progress)
    assert "a.mine" not in files
    assert "b.all" not in files
    assert {"c.notes", "d.c"} <= files
    (home / ".gitconfig").write_text("[core]\n\texcludesFile = ~/my ignores\n")
    (home / "my ignores").write_text("*.notes\n")
    files = list_files(dirty, store, progress)
    assert {"c.notes", "a.mine"}.isdisjoint(files)
    assert {"b.all", "d.c"} <= files


def test_submodule_of_a_commit_is_told(
    linux: Path, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    commit = run_git(linux, "rev-parse", "HEAD")
    run_git(linux, "update-index", "--add", "--cacheinfo", f"160000,{commit},vendor/code")
    run_git(linux, "commit", "-q", "-m", "a submodule")
    fetch_tree(find_tree(f"{linux}:HEAD", {}), store, progress)
    assert any("submodules are not part of it: vendor/code" in note for note in progress.notes)


# --- kinds of repositories


def test_bare_repository_and_clone_without_files(
    linux: Path, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    run_git(linux, "branch", "topic")
    head = run_git(linux, "rev-parse", "HEAD")
    for name, options in {"bare.git": ["--bare"], "mirror": ["--mirror"], "empty": ["--no-checkout"]}.items():
        place = tmp_path / name
        run_git(tmp_path, "clone", "-q", *options, str(linux), str(place))
        ref = "origin/topic" if name == "empty" else "topic"
        for word in (str(place), f"{place}:{ref}"):
            assert fetch_tree(find_tree(word, {}), store, progress).commit == head
        with pytest.raises(UsageError, match="no files are checked out there"):
            check_local(find_local(str(place), is_dirty=True))
    commit_file(linux, "README", "no kernel\n", "x")
    run_git(linux, "rm", "-q", "Kconfig")
    run_git(linux, "commit", "-q", "-m", "no kernel")
    with pytest.raises(UsageError, match="is not a kernel tree"):
        fetch_tree(find_tree(str(linux), {}), store, progress)


def find_local(word: str, *, is_dirty: bool = False) -> LocalTree:
    tree = find_tree(word, {}, is_dirty=is_dirty)
    assert isinstance(tree, LocalTree)
    return tree


def test_repository_with_ids_of_sha256(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    place = make_checkout(tmp_path / "long", "--object-format=sha256")
    other = make_checkout(tmp_path / "short")
    src = fetch_tree(find_tree(str(place), {}), store, progress)
    assert src.tree_id == fetch_tree(find_tree(str(other), {}), store, progress).tree_id
    assert fetch_tree(find_tree(str(place), {}), store, progress) == src
    (place / "mm/swap.c").write_text("int swap;\n")
    dirty = fetch_tree(find_tree(str(place), {}, is_dirty=True), store, progress)
    assert run_git(open_repository(store), "show", f"{dirty.commit}:mm/swap.c") == "int swap;"
    run_git(place, "commit", "-q", "-a", "-m", "second")
    assert fetch_tree(find_tree(str(place), {}), store, progress).tree_id == dirty.tree_id
    series = find_local_range(f"{place}:HEAD~1..HEAD", find_local(str(place)), "HEAD~1", "HEAD", store)
    assert apply_series(src, series, (), store, progress).tree_id == dirty.tree_id


@pytest.mark.parametrize("name", ["linux-5.10.226.tar.gz", "linux 5:10.tar", "l.txz"])
def test_tarball_by_its_path(name: str, tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    shutil.copytree(FAKELINUX, tmp_path / "linux-5.10.226")
    # neither the repository of an archive nor one inside is looked at
    for place in (tmp_path / "linux-5.10.226", tmp_path / "linux-5.10.226" / "mm"):
        run_git(place, "init", "-q")
        run_git(place, "config", "core.fsmonitor", f"touch {tmp_path}/was-run; false")
    subprocess.run(["tar", "-C", tmp_path, "-caf", tmp_path / "made.tar.xz", "linux-5.10.226"], check=True)
    (tmp_path / "made.tar.xz").rename(tmp_path / name)
    tree = find_tree(f"{tmp_path}/{name}", {})
    assert isinstance(tree, TarballTree)
    files = list_files(tree, store, progress)
    assert files == {str(path.relative_to(FAKELINUX)) for path in FAKELINUX.rglob("*") if path.is_file()}
    assert not (tmp_path / "was-run").exists()
    with pytest.raises(UsageError, match="is not a git tree, so it has no ref"):
        find_tree(f"{tmp_path}/{name}:v5", {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_checkout_of_another_user(linux: Path) -> None:
    for path in (linux, *linux.rglob("*")):
        os.chown(path, 12345, 12345, follow_symlinks=False)
    with pytest.raises(UsageError, match="belongs to another user") as raised:
        check_local(find_local(str(linux)))
    assert f"git config --global --add safe.directory {linux}" in raised.value.hint


# --- settings of git


def test_settings_of_a_user_change_nothing(
    linux: Path, store: Store, progress: QuietProgress, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_file(linux, "mm/swap.c", "int swap;\n", "second")
    before = find_local_range(f"{linux}:HEAD~1..HEAD", find_local(str(linux)), "HEAD~1", "HEAD", store)
    text = before.patches[0].path.read_bytes()
    monkeypatch.delenv("GIT_CONFIG_GLOBAL")
    hooks = home / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction", "monitor"):
        (hooks / name).write_text(f"#!/bin/sh\ntouch {home}/was-run\nexit 1\n")
        (hooks / name).chmod(0o755)
    settings = {
        "format.coverLetter": "true", "format.useAutoBase": "true", "format.attach": "x",
        "diff.noprefix": "true", "diff.context": "9", "core.fsmonitor": str(hooks / "monitor"),
        "core.hooksPath": str(hooks),
        "status.showUntrackedFiles": "all", "color.ui": "always", "core.autocrlf": "true",
    }  # fmt: skip
    for key, value in settings.items():
        run_git(linux, "config", key, value)
    (home / ".gitconfig").write_text(
        f"[safe]\n\tbareRepository = explicit\n[core]\n\tfsmonitor = {hooks}/monitor\n"
    )
    (home / "was-run").unlink(missing_ok=True)
    other = Store(home / "other")
    assert fetch_tree(find_tree(str(linux), {}), other, progress).version
    (linux / "mm/memory.c").write_text("int memory;\n")
    assert fetch_tree(find_tree(str(linux), {}, is_dirty=True), other, progress)
    with pytest.raises(UsageError, match=r"has 1 uncommitted change\(s\): M mm/memory.c"):
        check_local(find_local(str(linux)))
    after = find_local_range(f"{linux}:HEAD~1..HEAD", find_local(str(linux)), "HEAD~1", "HEAD", other)
    assert [patch.path.read_bytes() for patch in after.patches] == [text]
    assert not (home / "was-run").exists()


# --- what a tree has committed


def test_what_is_left_of_a_build_is_not_in_the_way(
    linux: Path, store: Store, progress: QuietProgress
) -> None:
    for name in (".config", "include/config/auto.conf", "arch/x86/include/generated/asm/x.h"):
        (linux / name).parent.mkdir(parents=True, exist_ok=True)
        (linux / name).write_text("CONFIG_SWAP=y\n")
    run_git(linux, "add", "-A", "-f")
    run_git(linux, "commit", "-q", "-m", "a build")
    src = fetch_tree(find_tree(f"{linux}:HEAD", {}), store, progress)
    for _ in range(2):
        with checkout(src, store) as place:
            for name in (".config", "include/config", "arch/x86/include/generated"):
                assert not (place / name).exists()
            assert (place / "mm/swap.c").exists()
        with open_kconfig_tree(src, store) as place:
            assert not (place / ".config").exists()
            assert (place / "Kconfig").exists()


@pytest.mark.parametrize(
    ("makefile", "version"),
    [
        ("VERSION = 5\nPATCHLEVEL = 15\nSUBLEVEL = 135 \n", "5.15.135"),
        ("VERSION=5\t\nPATCHLEVEL\t=\t15\nSUBLEVEL = 135 # stable\nEXTRAVERSION =\n", "5.15.135"),
        ("VERSION = 6\r\nPATCHLEVEL = 1\r\nSUBLEVEL = 0\r\n", "6.1.0"),
        ("VERSION := 6\nPATCHLEVEL := 1\nSUBLEVEL := 7\nifdef X\nSUBLEVEL = 9\nendif\n", "6.1.7"),
        ("VERSION = 6\nPATCHLEVEL = 1\n", "None"),
        ("VERSION = six\nPATCHLEVEL = 1\nSUBLEVEL = 1\n", "None"),
    ],
)
def test_version_as_makefiles_spell_it(makefile: str, version: str) -> None:
    assert str(parse_version(makefile)) == version


# --- typed


def test_series_on_stdin_and_none(linux: Path, tmp_path: Path) -> None:
    mail = render_patch("swap: one", {"mm/swap.c": ("entry + 1", "entry + 2")})
    odd = tmp_path / "a b, c"
    odd.mkdir()
    (odd / "x y.mbox").write_text(mail + "\nbase-commit: " + "12" * 20 + "\n")
    done = cowbell("series", f"SERIES={odd}/x y.mbox", f"KERNEL={linux}", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("Traceback")) == (0, 0), done.stderr
    assert (
        "applies, 1 patch(es)\n  it was made for the commit 121212121212 (base-commit), which is not in"
        in done.stdout
    )
    done = cowbell("series", "SERIES=none", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    done = cowbell("series", "SERIES=-", f"KERNEL={linux}", cwd=tmp_path, stdin=mail)
    assert done.returncode == 0, done.stderr
    assert "- on linux-" in done.stdout
    done = cowbell("worktree", f"SERIES={odd}/x y.mbox", f"KERNEL={linux}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run_git(Path(done.stdout.strip()), "log", "-1", "--format=%s") == "swap: one"
    commit_file(linux, "mm/late.c", "int late;\n", "late")
    done = cowbell("worktree", f"SERIES={linux}:HEAD~1..HEAD", f"KERNEL={linux}:HEAD~1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "mm/late.c").exists()
