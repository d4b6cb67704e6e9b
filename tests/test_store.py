# SPDX-License-Identifier: GPL-2.0-or-later
"""The store: entries are complete or absent and filled once, ids are stable, a full disk is reported."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import InfraError
from orchestrator.store.store import (
    Store,
    convert_disk_errors,
    find_default_root,
    make_id,
    make_tree_id,
    open_default,
    write_atomic,
    write_json,
)
from tests.conftest import ROOT, read_line, start_python, wait_for


def test_ids_are_stable() -> None:
    """Ids name what is in people's caches: a new way to make them throws every built kernel away."""
    assert make_id("5.10", ["a", "b"], {"y": 1, "x": None}) == "9952ab76aafe"
    assert make_id(("a", "b")) == make_id(["a", "b"])
    assert make_id({"a": 1, "b": 2}) == make_id({"b": 2, "a": 1})


def test_ids_tell_parts_apart() -> None:
    ids = [make_id("ab", "c"), make_id("a", "bc"), make_id("abc"), make_id(["ab", "c"]), make_id("c", "ab")]
    assert len(set(ids)) == len(ids)


def test_tree_id_is_names_and_content(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("text")
    other.write_text("text")
    assert make_tree_id({"name": one}) == make_tree_id({"name": other})
    assert make_tree_id({"name": one}) != make_tree_id({"eman": one})
    other.write_text("texts")
    assert make_tree_id({"name": one}) != make_tree_id({"name": other})


def test_default_root(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COWBELL_STORE", "/chosen")
    assert find_default_root() == Path("/chosen")
    monkeypatch.setenv("COWBELL_STORE", "")
    assert find_default_root() == home / ".cache" / "cowbell"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert find_default_root() == home / ".cache" / "cowbell"


def test_what_is_earned_may_have_a_place_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What can be made again stays in the store, where a cache may lose it."""
    monkeypatch.setenv("COWBELL_STORE", str(tmp_path / "cache"))
    monkeypatch.setenv("COWBELL_RESULTS", str(tmp_path / "results"))
    store = open_default()
    for kind in ("results", "runs", "history.sqlite"):
        assert store.path(kind, "name") == tmp_path / "results" / kind / "name"
    for kind in ("kernels", "git", "rootfs", "locks", "jobs"):
        assert store.path(kind, "name") == tmp_path / "cache" / kind / "name"
    with store.scratch("merge", is_result=True) as place:
        assert place.is_relative_to(tmp_path / "results")
    with store.scratch("merge") as place:
        assert place.is_relative_to(tmp_path / "cache")
    monkeypatch.setenv("COWBELL_RESULTS", "")
    assert open_default().path("runs", "name") == tmp_path / "cache" / "runs" / "name"


def test_publish_fills_once(store: Store) -> None:
    def fill(draft: Path) -> None:
        (draft / "file").write_text("1")

    place = store.publish("kind", "name", fill)
    assert (place / "file").read_text() == "1"
    assert store.publish("kind", "name", lambda draft: pytest.fail("filled again")) == place
    assert [path.name for path in place.parent.iterdir()] == ["name"]


def test_fill_that_raises_leaves_nothing(store: Store) -> None:
    def fill(draft: Path) -> None:
        (draft / "half").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.publish("kind", "name", fill)
    assert list(store.path("kind", "name").parent.iterdir()) == []
    store.publish("kind", "name", lambda draft: None)


def test_killed_fill_leaves_nothing_that_counts(store: Store) -> None:
    script = (
        "import sys, time; from pathlib import Path; from orchestrator.store.store import Store\n"
        "def fill(draft): (draft / 'half').write_text('half'); print('half', flush=True); time.sleep(600)\n"
        "Store(Path(sys.argv[1])).publish('kind', 'name', fill)\n"
    )
    with start_python(script, store.root) as process:
        assert read_line(process) == "half"
    place = store.publish("kind", "name", lambda draft: None)
    assert list(place.iterdir()) == []
    assert list(place.parent.iterdir()) == [place]


def test_two_processes_publish_one_entry(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from orchestrator.store.store import Store\n"
        "def fill(draft):\n"
        "    with open(sys.argv[2], 'a') as log: log.write('filled\\n')\n"
        "    time.sleep(0.3); (draft / 'file').write_text('whole')\n"
        "place = Store(Path(sys.argv[1])).publish('kind', 'name', fill)\n"
        "print((place / 'file').read_text())\n"
    )
    log = tmp_path / "log"
    with start_python(script, store.root, log) as one, start_python(script, store.root, log) as other:
        assert one.communicate(timeout=60) == ("whole\n", "")
        assert other.communicate(timeout=60) == ("whole\n", "")
    assert log.read_text() == "filled\n"


def test_scratch_is_empty_and_goes(store: Store) -> None:
    left = store.path("scratch", "name")
    left.mkdir()
    (left / "half").write_text("of a killed process")
    with store.scratch("name") as place:
        assert list(place.iterdir()) == []
        (place / "file").write_text("1")
    assert not place.exists()


def test_lock_is_waited_for_and_dies_with_its_holder(store: Store, tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from orchestrator.store.store import Store\n"
        "with Store(Path(sys.argv[1])).lock('name'):\n"
        "    print('mine', flush=True); time.sleep(float(sys.argv[2]))\n"
    )
    with start_python(script, store.root, 600) as holder:
        assert read_line(holder) == "mine"
        with start_python(script, store.root, 0) as waiter:
            wait_for(lambda: is_blocked(waiter.pid))
            holder.kill()
            assert waiter.communicate(timeout=60) == ("mine\n", "")


def is_blocked(pid: int) -> bool:
    """Whether a process waits for a lock that another one holds."""
    return any(" -> " in line and f" {pid} " in line for line in Path("/proc/locks").read_text().splitlines())


def test_write_atomic_replaces_or_leaves(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    write_atomic(path, "old\n")
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "new \udc80")
    assert path.read_text() == "old\n"
    write_atomic(path, "new\n")
    assert path.read_text() == "new\n"
    assert list(path.parent.iterdir()) == [path]


def test_write_json_is_canonical(tmp_path: Path) -> None:
    write_json(tmp_path / "one", {"b": 1, "a": [1]})
    write_json(tmp_path / "other", {"a": [1], "b": 1})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_too_little_space_is_told_before(store: Store) -> None:
    with pytest.raises(InfraError, match=r"MiB are free in .*/store, a build needs 1000000000 MiB") as raised:
        store.check_space(1_000_000_000, "a build")
    assert "COWBELL_STORE" in raised.value.hint
    store.check_space(1, "a build")


def test_store_that_can_not_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InfraError):
        Store(tmp_path / "file").publish("kind", "name", lambda draft: None)


def test_other_os_errors_are_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), convert_disk_errors(tmp_path):
        (tmp_path / "absent").read_text()


def run_on_disk(tmp_path: Path, options: str, script: str) -> str:
    """Run a script with a private file system mounted at ``root``."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        not shutil.which("unshare")
        or subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "none", disk], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("this host does not allow mounts in a namespace")
    mount = f'mount -t tmpfs -o {options} none "$1" && exec "$2" -c "$3" "$1"'
    given = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.errors import InfraError\n"
        "from orchestrator.store.store import Store, write_atomic\n"
        "root = Path(sys.argv[1]); store = Store(root)\n"
    )
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", mount, "sh", disk, sys.executable, given + script],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def test_full_disk_is_the_host_s_trouble_and_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "big = bytes(1 << 20); write_atomic(root / 'file', 'old')\n"
        "for attempt in (\n"
        "    lambda: store.publish('kind', 'name', lambda draft: (draft / 'f').write_bytes(big)),\n"
        "    lambda: write_atomic(root / 'file', 'x' * (1 << 20)),\n"
        "):\n"
        "    try: attempt()\n"
        "    except InfraError as error: print(error.what.partition(':')[0], '|', error.hint)\n"
        "print((root / 'file').read_text(), [p.name for p in (root / 'kind').iterdir()])\n"
        "print(sorted(p.name for p in root.iterdir()))\n"
    )
    told = "No space left on device | free some space, or set COWBELL_STORE to a folder on another disk\n"
    seen = run_on_disk(tmp_path, "size=256k", script)
    assert seen == f"{told * 2}old []\n['file', 'kind', 'locks']\n"


def test_read_only_disk_is_the_host_s_trouble(tmp_path: Path) -> None:
    script = (
        "try: store.publish('kind', 'name', lambda draft: None)\n"
        "except InfraError as error: print(error.what)\n"
    )
    assert run_on_disk(tmp_path, "ro", script) == "cannot be made: Read-only file system\n"


def test_processes_have_scratch_folders_of_their_own(store: Store) -> None:
    remains = store.root / "scratch/guest-1/left"
    remains.mkdir(parents=True)
    with store.own_scratch("guest") as one, store.own_scratch("guest") as other:
        assert (one.name, other.name) == ("guest-1", "guest-2")
        assert not remains.exists()
    with store.own_scratch("guest") as again:
        assert again == one
    assert not one.exists() and not other.exists()
