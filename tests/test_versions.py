# SPDX-License-Identifier: GPL-2.0-or-later
"""Debian trees in any version that the mirror offers: named, fetched, listed, completed."""

import itertools
import os
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli import doctor
from orchestrator.errors import InfraError, UsageError
from orchestrator.source import debian
from orchestrator.source.debian import UnavailableError, make_key
from orchestrator.source.fetch import fetch_tree, find_fetched, list_fetched_versions
from orchestrator.source.repository import checkout, open_repository
from orchestrator.source.tree import DebianTree, Tree, find_tree, load_trees
from orchestrator.source.versions import DebianVersion, list_versions, read_versions
from orchestrator.store.store import Store, make_id
from tests.conftest import FAKE_TREE, TWO_SUITES, Mirror, QuietProgress, cowbell
from tests.gitserver import run_git
from tests.schema import read_product

PACKAGE = FAKE_TREE.package
SUITES = (
    "bookworm", "bookworm-backports", "bookworm-security", "bullseye-security", "experimental", "forky",
    "sid", "trixie", "trixie-backports", "trixie-security",
)  # fmt: skip


@pytest.fixture
def offered(mirror: Mirror) -> Mirror:
    """Two suites; the one that is named last has the newest version and the oldest."""
    mirror.add("5.10.227-1~deb11u1")
    mirror.add("5.10.209-2", "bookworm")
    mirror.add("5.10.227-1", "bookworm")
    return mirror


def read_version_of(tree: Tree, store: Store, progress: QuietProgress) -> str:
    """What the source itself says; the package that all tests have says nothing."""
    with checkout(fetch_tree(tree, store, progress), store) as place:
        found = re.search(r'debian_version\[\] .* = "(.*)"', (place / "init/main.c").read_text())
        return found[1] if found else ""


# --- the order


def test_versions_are_in_the_order_of_dpkg() -> None:
    versions = [
        "7.3~rc7-1~exp1", "7.3-1", "7.3.4-1~bpo13+1", "7.3.4-1", "7.3.4-1+b1", "7.3.10-1", "1:5.10-1", "5.10",
        "5.10-1", "5.10-1.1", "5.10-1~", "5.10a-1", "5.10+dfsg-1", "6.1.176-1~deb11u1", "6.1.176-1", "6.01-1",
    ]  # fmt: skip
    for one, other in itertools.product(versions, versions):
        is_older = (
            subprocess.run(["dpkg", "--compare-versions", one, "lt", other], check=False).returncode == 0
        )
        assert (make_key(one) < make_key(other)) is is_older, (one, other)


# --- words


@pytest.mark.parametrize("version", ["6.1.170-3", "7.3.4-1~bpo13+1", "1:6.1.170-3", "6.1"])
def test_a_version_is_named_after_the_tree(version: str) -> None:
    tree = find_tree(f"fake-5.10:{version}", {"fake-5.10": TWO_SUITES})
    assert tree == DebianTree(f"fake-5.10:{version}", PACKAGE, TWO_SUITES.suite, version)
    assert str(tree) == f"{PACKAGE} {version} from bullseye-security, bookworm"


@pytest.mark.parametrize("word", ["v5.10", "main", "5.10_1", "5.10 ", "../x"])
def test_what_is_no_version(word: str) -> None:
    with pytest.raises(UsageError, match="expected a Debian version of fake-5.10, such as 6.1.170-3, got"):
        find_tree(f"fake-5.10:{word}", {"fake-5.10": TWO_SUITES})


def test_a_tree_names_its_suites(tmp_path: Path) -> None:
    file = tmp_path / "trees.yaml"
    file.write_text("trees:\n  a: {debian: x, suite: one two}\n")
    tree = load_trees(file)["a"]
    assert isinstance(tree, DebianTree)
    assert (tree.suites, str(tree)) == (("one", "two"), "x from one, two")
    file.write_text("trees:\n  a: {debian: x, suite: ' '}\n")
    with pytest.raises(ExceptionGroup) as group:
        load_trees(file)
    assert "{debian: PACKAGE, suite: SUITE...}" in str(group.value.exceptions[0])


# --- fetching


def test_the_newest_of_all_suites_is_the_tree(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    src = fetch_tree(TWO_SUITES, store, progress)
    assert src.origin == f"{PACKAGE}_5.10.227-1_all"
    assert read_version_of(TWO_SUITES, store, progress) == "5.10.227-1"
    assert offered.verbs == ["update", "update", f"{PACKAGE}=5.10.227-1"]


def test_a_version_of_any_suite(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    found = {}
    for version in ("5.10.226-1", "5.10.209-2", "5.10.227-1~deb11u1"):
        tree = TWO_SUITES.at(version)
        src = fetch_tree(tree, store, progress)
        assert (src.tree, src.folder) == (f"fake-5.10:{version}", "fake-5.10")
        assert read_version_of(tree, store, progress) in (version, "")
        found[version] = src.commit
    assert len(set(found.values())) == 3
    assert offered.verbs.count("update") == 2, "lists of the last hour are used as they are"
    assert {v.version for v in read_versions(TWO_SUITES, store) if v.is_fetched} == set(found)


def test_what_was_fetched_needs_no_mirror(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    newest = fetch_tree(TWO_SUITES, store, progress)
    exact = fetch_tree(TWO_SUITES.at("5.10.209-2"), store, progress)
    asked = offered.asked
    with offered.unreachable():
        # the newest by its version too, whatever suites are declared meanwhile, and also where it is redone
        again = fetch_tree(TWO_SUITES.at("5.10.227-1"), store, progress)
        assert again == replace(newest, tree="fake-5.10:5.10.227-1")
        other = replace(TWO_SUITES, suite="sid")
        assert fetch_tree(other.at("5.10.209-2"), store, progress, redo=True) == exact
    assert offered.asked == asked


def test_a_newer_one_leaves_the_older_one_there(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    first = fetch_tree(TWO_SUITES, store, progress)
    offered.add("5.10.230-1")
    assert fetch_tree(TWO_SUITES, store, progress) == first
    assert fetch_tree(TWO_SUITES, store, progress, redo=True).origin == f"{PACKAGE}_5.10.230-1_all"
    offered.remove("5.10.230-1")
    assert fetch_tree(TWO_SUITES, store, progress, redo=True) == first, (
        "what is there is not downloaded again"
    )
    with offered.unreachable():
        assert fetch_tree(TWO_SUITES.at("5.10.230-1"), store, progress).commit != first.commit
        assert fetch_tree(TWO_SUITES, store, progress, redo=True) == first
    assert "cannot be updated" in progress.notes[-1]


def test_the_same_version_is_the_same_commit(
    offered: Mirror, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    other = Store(tmp_path / "other")
    assert (
        fetch_tree(TWO_SUITES, store, progress).commit
        == fetch_tree(TWO_SUITES.at("5.10.227-1"), other, progress).commit
    )


def test_stores_of_before_there_were_versions_are_used(
    mirror: Mirror, store: Store, progress: QuietProgress
) -> None:
    src = fetch_tree(FAKE_TREE, store, progress)
    fields = {"name": "fake-5.10", "package": PACKAGE, "suite": "bullseye-security"}
    before = f"refs/cowbell/fetched/fake-5.10/{make_id('DebianTree', fields)}"
    git_dir = open_repository(store)
    listed = run_git(git_dir, "for-each-ref", "--format=%(refname)", "refs/cowbell/fetched").split()
    (exact,) = set(listed) - {before}
    assert run_git(git_dir, "rev-parse", f"{before}^{{commit}}") == src.commit
    run_git(git_dir, "update-ref", "-d", exact)
    with mirror.unreachable():
        assert fetch_tree(FAKE_TREE.at("5.10.226-1"), store, progress).commit == src.commit


def test_no_object_of_another_version_is_newer_than_its_file(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    """The archive's files are of the day when Debian made the package; make compares times."""
    fetch_tree(TWO_SUITES.at("5.10.209-2"), store, progress)
    time.sleep(0.01)
    built = time.time()
    with checkout(fetch_tree(TWO_SUITES, store, progress), store) as place:
        assert (place / "mm/memory.c").stat().st_mtime >= built - 0.01


def test_a_version_with_an_epoch(mirror: Mirror, store: Store, progress: QuietProgress) -> None:
    mirror.add("1:5.10.1-1")
    assert read_version_of(FAKE_TREE, store, progress) == "1:5.10.1-1"
    assert "1:5.10.1-1" in list_fetched_versions(FAKE_TREE, store)


# --- what the mirror does not have


def test_a_version_that_is_nowhere(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(UsageError, match=rf"no version 5.10.99-1 of {PACKAGE}") as error:
        fetch_tree(TWO_SUITES.at("5.10.99-1"), store, progress)
    assert error.value.hint == "it has: 5.10.227-1, 5.10.227-1~deb11u1, 5.10.226-1, 5.10.209-2"
    assert find_fetched(TWO_SUITES.at("5.10.99-1"), store) is None


def test_a_version_that_came_since_the_lists_were_updated(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    fetch_tree(TWO_SUITES, store, progress)
    offered.add("5.10.230-1")
    age_lists(store, 100)
    assert read_version_of(TWO_SUITES.at("5.10.230-1"), store, progress) == "5.10.230-1"


def age_lists(store: Store, seconds: float) -> None:
    for stamp in store.path("apt").glob("*/updated"):
        at = time.time() - seconds
        os.utime(stamp, (at, at))


def test_a_version_that_left_the_mirror(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    fetch_tree(TWO_SUITES, store, progress)
    offered.remove("5.10.209-2", "bookworm")
    # the lists of a minute ago still have it, and are what the mirror says
    with pytest.raises(UnavailableError, match="cannot be downloaded"):
        fetch_tree(TWO_SUITES.at("5.10.209-2"), store, progress)
    age_lists(store, 100)
    with pytest.raises(UsageError, match="no version 5.10.209-2"):
        fetch_tree(TWO_SUITES.at("5.10.209-2"), store, progress)


def test_a_mirror_that_can_not_be_reached(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    with offered.unreachable():
        for tree in (TWO_SUITES, TWO_SUITES.at("5.10.209-2")):
            with pytest.raises(InfraError, match="cannot be looked up") as error:
                fetch_tree(tree, store, progress)
            assert "Could not resolve" in error.value.hint


def test_one_suite_of_several_can_not_be_reached(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    tree = replace(TWO_SUITES, suite="bullseye-security trixie")
    assert fetch_tree(tree, store, progress).origin == f"{PACKAGE}_5.10.227-1~deb11u1_all"
    assert any("package lists of trixie cannot be updated" in note for note in progress.notes)
    assert fetch_tree(tree.at("5.10.226-1"), store, progress)
    # it may be there
    with pytest.raises(InfraError, match="cannot be looked up"):
        fetch_tree(tree.at("5.10.209-2"), store, progress)


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ({"bookworm"}, {"bullseye-security": (True, True), "bookworm": (False, False)}),
        ({"bookworm", "bullseye-security"}, dict.fromkeys(TWO_SUITES.suites, (False, True))),
    ],
)
def test_a_mirror_for_one_suite_of_several_is_enough(
    missing: set[str], expected: dict[str, tuple[bool, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make_source_line(suite: str) -> str:
        if suite in missing:
            raise InfraError("there is none", hint="add one")
        return suite

    monkeypatch.setattr(debian, "make_source_line", make_source_line)
    found = list(doctor._examine_suites(TWO_SUITES, ("demo",)))
    assert {f.need.split()[3].rstrip(":"): (f.is_met, f.is_needed) for f in found} == expected


# --- lists


def test_versions_are_listed_newest_first(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    offered.add("5.10.226-1", "bookworm")
    fetch_tree(TWO_SUITES.at("5.10.226-1"), store, progress)
    found = list_versions([TWO_SUITES], store)
    assert found.errors == {}
    assert found.trees["fake-5.10"] == (
        DebianVersion("5.10.227-1", ("bookworm",), False),
        DebianVersion("5.10.227-1~deb11u1", ("bullseye-security",), False),
        DebianVersion("5.10.226-1", ("bullseye-security", "bookworm"), True),
        DebianVersion("5.10.209-2", ("bookworm",), False),
    )


def test_lists_are_updated_once_an_hour(offered: Mirror, store: Store) -> None:
    for _ in range(2):
        list_versions([TWO_SUITES, FAKE_TREE], store)
    assert offered.verbs == ["update", "update"]
    list_versions([TWO_SUITES], store, max_age_s=0)
    assert offered.verbs == ["update"] * 4
    age_lists(store, debian.FRESH_S)
    list_versions([TWO_SUITES], store)
    assert offered.verbs == ["update"] * 6


# --- the commands


@pytest.fixture
def project(offered: Mirror, tmp_path: Path) -> Path:
    """A folder with a tree of the user's own; of all other suites the mirror has nothing."""
    for suite in SUITES:
        (offered.folder.parent / suite).mkdir(exist_ok=True)
    (tmp_path / "mine/patches").mkdir(parents=True)
    file = tmp_path / "mine/patches/trees.yaml"
    file.write_text(f"trees:\n  fake-5.10: {{debian: {PACKAGE}, suite: {TWO_SUITES.suite}}}\n")
    return tmp_path / "mine"


def test_trees_are_listed_without_the_mirror(project: Path, offered: Mirror) -> None:
    done = cowbell("list", "trees", cwd=project)
    assert f"fake-5.10             {PACKAGE} from bullseye-security, bookworm\n" in done.stdout, done.stdout
    assert "fake-5.10" in read_product(cowbell("list", "trees", "--json", cwd=project).stdout)["names"]
    assert offered.asked == []


def test_trees_are_listed_with_their_versions(project: Path, offered: Mirror) -> None:
    done = cowbell("list", "trees", "-v", cwd=project)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.partition("fake-5.10")[2].splitlines()[1:] == [
        "    5.10.227-1          bookworm",
        "    5.10.227-1~deb11u1  bullseye-security",
        "    5.10.226-1          bullseye-security",
        "    5.10.209-2          bookworm",
    ]
    assert offered.verbs == ["update"] * len(SUITES)
    product = read_product(cowbell("list", "trees", "-v", "--json", cwd=project).stdout)
    assert product["trees"]["fake-5.10"]["versions"][0] == {
        "version": "5.10.227-1",
        "suites": ["bookworm"],
        "is_fetched": False,
    }
    assert product["trees"]["mainline"]["versions"] == []
    assert cowbell("-n", "list", "trees", "-v", cwd=project).stdout == done.stdout
    other = cowbell("-n", "list", "trees", "-v", cwd=project, COWBELL_STORE=f"{project}/other")
    assert (other.returncode, "bookworm\n" in other.stdout.partition("fake-5.10")[2]) == (0, True)
    assert "5.10.227-1" not in other.stdout
    assert offered.verbs == ["update"] * len(SUITES)
    with offered.unreachable():
        done = cowbell("-B", "list", "trees", "-v", cwd=project)
    assert (done.returncode, done.stderr.count("cannot be updated")) == (0, len(SUITES)), done.stderr
    assert "5.10.209-2" in done.stdout


def write_row(project: Path, tree: str) -> None:
    (project / "ci").mkdir(exist_ok=True)
    (project / "ci/matrix.yaml").write_text(
        "rows:\n  - name: pair\n    about: two versions\n    arch: x86_64\n    tree: fake-5.10\n"
        "    kconfig: [base, x86_64]\n    guest: {cpus: 1, memory: 512M}\n    tests: [odirect.rd-control]\n"
        "    limits: {build: 5m, boot: 20s}\n"
        f"    variants: [{{name: new}}, {{name: old, tree: '{tree}'}}]\n"
    )


def test_a_row_names_a_version(project: Path, offered: Mirror) -> None:
    write_row(project, "fake-5.10:5.10.209-2")
    done = cowbell("-n", "test", "ROW=pair", cwd=project)
    assert done.returncode == 0, done.stderr
    assert f"pair/old: fake-5.10:5.10.209-2\n           fetch {PACKAGE} 5.10.209-2 from" in done.stdout
    # it is no tree of its own
    assert "5.10.209-2" not in cowbell("list", "trees", cwd=project).stdout
    write_row(project, "fake-5.10:old")
    done = cowbell("-n", "test", "ROW=pair", cwd=project)
    assert done.returncode == 2
    assert "ci/matrix.yaml:2: row pair: expected a Debian version of fake-5.10, such as" in done.stderr
    write_row(project, "fake-5.11:5.11.1-1")
    done = cowbell("-n", "test", "ROW=pair", cwd=project)
    assert done.returncode == 2
    assert "ci/matrix.yaml:2: row pair" in done.stderr and "fake-5.11:5.11.1-1" in done.stderr


def test_versions_of_a_mirror_that_can_not_be_reached(project: Path, offered: Mirror) -> None:
    with offered.unreachable():
        done = cowbell("list", "trees", "-v", cwd=project)
    assert (done.returncode, done.stdout) == (3, "")
    assert "Could not resolve" in done.stderr


def test_source_of_a_version(project: Path, offered: Mirror) -> None:
    words = ("-s", "source", "ROW=demo", "SERIES=none")
    done = cowbell(*words, "KERNEL=fake-5.10:5.10.209-2", cwd=project)
    assert (done.returncode, done.stdout.split()[1:3]) == (0, ["fake-5.10:5.10.209-2", "5.10.226"]), (
        done.stderr
    )
    done = cowbell(*words, "KERNEL=fake-5.10:5.10.1-1", cwd=project)
    assert (done.returncode, "it has: 5.10.227-1," in done.stderr) == (2, True), done.stderr
    with offered.unreachable():
        done = cowbell(*words, "KERNEL=fake-5.10:5.10.226-1", cwd=project, COWBELL_STORE=f"{project}/store")
    assert done.returncode == 3, done.stderr
    done = cowbell("-n", "test", "ROW=demo", "SERIES=none", "KERNEL=fake-5.10:5.10.1-1", cwd=project)
    assert "fake-5.10:5.10.1-1\n           fetch linux-source-5.10 5.10.1-1 from" in done.stdout
    done = cowbell("-p", "KERNEL=debian-7.3:7.3.4-1~bpo13+1")
    assert "7.3.4-1~bpo13+1" in done.stdout


def test_versions_are_completed_from_what_is_known(project: Path, offered: Mirror) -> None:
    def complete(begun: str) -> list[str]:
        return cowbell("completion", "words", "--", begun, "test", cwd=project).stdout.splitlines()

    assert complete("KERNEL=fake-5.10:5") == []
    assert offered.asked == []
    cowbell("list", "trees", "-v", cwd=project)
    asked = offered.asked
    newest = ["KERNEL=fake-5.10:5.10.227-1", "KERNEL=fake-5.10:5.10.227-1~deb11u1"]
    assert complete("KERNEL=fake-5.10:5.10.227") == newest
    assert len(complete("KERNEL=fake-5.10:")) == 4
    assert complete("KERNEL=mainline:") == complete("KERNEL=absent:") == []
    assert offered.asked == asked
