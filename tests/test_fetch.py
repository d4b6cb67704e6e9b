# SPDX-License-Identifier: GPL-2.0-or-later
"""Trees from folders of this machine, from archives and from trees.yaml; git servers have test_remote.py."""

import gzip
import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import InfraError, UsageError
from orchestrator.plan.plan import Request, make_plan
from orchestrator.plan.steps import BUILD, Goal, look_up_trees, prepare_job
from orchestrator.plan.workspace import Workspace
from orchestrator.process.command import Completed
from orchestrator.source import local
from orchestrator.source.fetch import fetch_tree, find_fetched
from orchestrator.source.repository import checkout, git, open_repository
from orchestrator.source.tree import GitTree, LocalTree, TarballTree, Tree, find_tree, load_trees
from orchestrator.store.store import Store
from tests.conftest import FAKELINUX, ROOT, QuietProgress
from tests.gitserver import commit_file, run_git
from tests.samples import DECLARED


@pytest.fixture
def linux(tmp_path: Path) -> Path:
    """A checkout of a user's."""
    place = tmp_path / "linux"
    shutil.copytree(FAKELINUX, place)
    (place / ".gitignore").write_text("*.o\n")
    run_git(place, "init", "-q")
    run_git(place, "add", "-A", "-f")
    run_git(place, "commit", "-q", "-m", "first")
    return place


def read(tree: Tree, file: str, store: Store, progress: QuietProgress) -> str:
    with checkout(fetch_tree(tree, store, progress), store) as place:
        path = place / file
        return path.read_text() if path.exists() else ""


# --- checkouts


def test_checkout_is_taken_at_its_head(
    linux: Path, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fetch_tree(find_tree(str(linux), {}), store, progress)
    assert first.commit == run_git(linux, "rev-parse", "HEAD")
    assert first.origin == str(linux)
    stages = len(progress.stages)
    assert fetch_tree(find_tree(str(linux), {}), store, progress) == first
    monkeypatch.chdir(linux)
    assert find_tree(".", {}) == find_tree(str(linux), {})
    assert len(progress.stages) == stages, "nothing new, nothing fetched"
    second = commit_file(linux, "mm/swap.c", "int swap;\n", "second")
    assert find_fetched(find_tree(str(linux), {}), store) is None
    assert fetch_tree(find_tree(str(linux), {}), store, progress).commit == second
    assert read(find_tree(str(linux), {}), "mm/swap.c", store, progress) == "int swap;\n"


def test_checkout_at_another_ref(linux: Path, store: Store, progress: QuietProgress) -> None:
    run_git(linux, "branch", "topic")
    commit_file(linux, "mm/swap.c", "int swap;\n", "second")
    (linux / "mm/swap.c").write_text("dirty, and of no account\n")
    src = fetch_tree(find_tree(f"{linux}:topic", {}), store, progress)
    assert src.commit == run_git(linux, "rev-parse", "topic")
    assert src.folder == find_tree(str(linux), {}).name
    with pytest.raises(UsageError, match="has no commit nowhere"):
        fetch_tree(find_tree(f"{linux}:nowhere", {}), store, progress)


def test_changes_that_are_not_committed(linux: Path, store: Store, progress: QuietProgress) -> None:
    clean = fetch_tree(find_tree(str(linux), {}), store, progress)
    (linux / "mm/swap.c").write_text("int swap;\n")
    with pytest.raises(UsageError, match=r"1 uncommitted change\(s\): M mm/swap.c") as raised:
        fetch_tree(find_tree(str(linux), {}), store, progress)
    assert "DIRTY=1" in raised.value.hint
    dirty = find_tree(str(linux), {}, is_dirty=True)
    one = fetch_tree(dirty, store, progress)
    assert one.commit != clean.commit
    assert run_git(open_repository(store), "rev-parse", f"{one.commit}^") == clean.commit
    (linux / "mm/added.c").write_text("int added;\n")
    (linux / "mm/object.o").write_text("no source")
    two = fetch_tree(dirty, store, progress)
    assert two.tree_id != one.tree_id, "the changes are part of the identity"
    assert fetch_tree(dirty, store, progress) == two
    assert read(dirty, "mm/added.c", store, progress) == "int added;\n"
    assert read(dirty, "mm/swap.c", store, progress) == "int swap;\n"
    assert read(dirty, "mm/object.o", store, progress) == ""
    status = run_git(linux, "status", "--porcelain")
    assert status.splitlines() == ["M mm/swap.c", "?? mm/added.c"], "and the checkout is as it was"
    run_git(linux, "checkout", "-q", ".")
    (linux / "mm/added.c").unlink()
    assert fetch_tree(dirty, store, progress).tree_id == clean.tree_id


def test_jobs_of_a_command_read_a_folder_once(
    linux: Path, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it changes meanwhile: all of them have the same files. The next command reads it again."""
    adds = 0

    def count(place: Path, *words: str, **options: Any) -> Completed:  # noqa: ANN401
        nonlocal adds
        adds += "add" in words
        return git(place, *words, **options)

    monkeypatch.setattr(local, "git", count)
    tree = find_tree(str(linux), {}, is_dirty=True)
    place = Workspace(ROOT, store, progress)
    job = replace(make_plan(Request(rows=("demo",)), DECLARED)[0], tree=tree)
    commits = []
    for text in ("int one;\n", "int two;\n", "int two;\n"):
        (linux / "mm/swap.c").write_text(text)
        adds = 0
        looked_up = look_up_trees([job, job], place, BUILD)
        (linux / "mm/swap.c").write_text("too late\n")
        # each job is a process, which has a copy
        first, second = (prepare_job(job, DECLARED, place, Goal("source"), {}, looked_up) for _ in range(2))
        assert first.base and first.base == second.base
        assert run_git(open_repository(store), "show", f"{first.base.commit}:mm/swap.c") == text.strip()
        assert adds == 1
        commits.append(first.base.commit)
    assert commits[0] != commits[1] == commits[2]


def test_folder_without_git(linux: Path, store: Store, progress: QuietProgress) -> None:
    commit = fetch_tree(find_tree(str(linux), {}), store, progress)
    shutil.rmtree(linux / ".git")
    tree = find_tree(str(linux), {})
    first = fetch_tree(tree, store, progress)
    assert first.tree_id == commit.tree_id
    (linux / "mm/swap.c").write_text("int swap;\n")
    (linux / "mm/kept.o").write_text("also what its .gitignore names is part of a folder")
    assert fetch_tree(tree, store, progress).tree_id != first.tree_id
    assert read(tree, "mm/kept.o", store, progress)
    assert not (linux / ".git").exists()
    (linux / ".config").write_text("CONFIG_X=y\n")
    with pytest.raises(UsageError, match="contains object files") as raised:
        fetch_tree(tree, store, progress)
    assert "mrproper" in raised.value.hint
    with pytest.raises(UsageError, match="not a git tree, so it has no ref v5"):
        find_tree(f"{linux}:v5", {})


def test_folder_that_is_no_kernel(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(UsageError, match="not a kernel tree"):
        fetch_tree(find_tree(str(tmp_path), {}), store, progress)
    linux = tmp_path / "linux"
    shutil.copytree(FAKELINUX, linux)
    (linux / "Makefile").write_text("all:\n")
    with pytest.raises(UsageError, match="its Makefile has no VERSION"):
        fetch_tree(find_tree(str(linux), {}), store, progress)
    run_git(linux, "init", "-q")
    with pytest.raises(UsageError, match="has no commit at HEAD"):
        fetch_tree(find_tree(str(linux), {}), store, progress)


# --- archives


@dataclass
class Downloads:
    """A web server on loopback that knows ranges, and may hang up early."""

    folder: Path
    url: str = ""
    hang_up_after: int = 1 << 30
    asked: list[str] = field(default_factory=list)


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, downloads: Downloads, *words: Any) -> None:  # noqa: ANN401
        self.downloads = downloads
        super().__init__(*words)

    def do_GET(self) -> None:
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        self.downloads.asked.append(f"{self.path} {start}")
        path = self.downloads.folder / self.path.lstrip("/")
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        if start >= len(data):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[start:][: self.downloads.hang_up_after])

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture
def downloads(tmp_path: Path) -> Iterator[Downloads]:
    downloads = Downloads(tmp_path / "www")
    downloads.folder.mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, downloads)) as served:
        downloads.url = f"http://127.0.0.1:{served.server_port}"
        thread = threading.Thread(target=served.serve_forever, args=(0.01,))
        thread.start()
        yield downloads
        served.shutdown()
        thread.join()


@pytest.fixture
def archive(downloads: Downloads, tmp_path: Path) -> Path:
    shutil.copytree(FAKELINUX, tmp_path / "linux-5.10.226")
    made = downloads.folder / "linux-5.10.226.tar.xz"
    subprocess.run(["tar", "-C", tmp_path, "-cJf", made, "linux-5.10.226"], check=True)
    return made


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_tarball_by_url_and_by_path(
    archive: Path, downloads: Downloads, store: Store, progress: QuietProgress
) -> None:
    url = f"{downloads.url}/{archive.name}"
    far = TarballTree("far", url, sha256(archive))
    src = fetch_tree(far, store, progress)
    assert (str(src.version), src.origin) == ("5.10.226", url)
    assert (FAKELINUX / "mm/memory.c").read_text() == read(far, "mm/memory.c", store, progress)
    assert downloads.asked == [f"/{archive.name} 0"]
    assert list((store.root / "downloads").iterdir()) == []
    near = TarballTree("near", str(archive), sha256(archive))
    assert fetch_tree(near, store, progress).tree_id == src.tree_id
    assert archive.exists(), "the user's file is left"


def test_download_goes_on_where_it_ended(
    archive: Path, downloads: Downloads, store: Store, progress: QuietProgress
) -> None:
    tree = TarballTree("far", f"{downloads.url}/{archive.name}", sha256(archive))
    downloads.hang_up_after = 1000
    with pytest.raises((InfraError, UsageError)):
        fetch_tree(tree, store, progress)
    kept = (store.root / "downloads" / archive.name).stat().st_size
    assert kept
    assert find_fetched(tree, store) is None
    downloads.hang_up_after = 1 << 30
    downloads.asked.clear()
    fetch_tree(tree, store, progress)
    assert downloads.asked == [f"/{archive.name} {kept}"]


def test_tarball_that_is_another(
    archive: Path, downloads: Downloads, store: Store, progress: QuietProgress
) -> None:
    url = f"{downloads.url}/{archive.name}"
    with pytest.raises(UsageError, match=f"has sha256 {sha256(archive)}, expected 0000") as raised:
        fetch_tree(TarballTree("far", url, "0" * 64), store, progress)
    assert raised.value.where == url
    # and what came is not gone on with
    assert fetch_tree(TarballTree("far", url, sha256(archive)), store, progress)
    with pytest.raises(InfraError, match="404"):
        fetch_tree(TarballTree("absent", f"{downloads.url}/absent.tar.xz", "0" * 64), store, progress)
    with pytest.raises(UsageError, match="no such file"):
        fetch_tree(TarballTree("absent", "/nonexistent.tar.xz", "0" * 64), store, progress)


def test_truncated_tarball(archive: Path, store: Store, progress: QuietProgress) -> None:
    archive.write_bytes(archive.read_bytes()[:-100])
    tree = TarballTree("cut", str(archive), sha256(archive))
    with pytest.raises(UsageError, match="is not a complete archive"):
        fetch_tree(tree, store, progress)
    assert find_fetched(tree, store) is None


@pytest.fixture
def keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A signing key, in the GnuPG home of this test."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    words = ["--quick-generate-key", "A Maintainer <m@example.org>", "ed25519", "sign", "never"]
    gpg("--pinentry-mode", "loopback", "--passphrase", "", *words)
    gpg("--export", "-o", str(tmp_path / "keyring.gpg"))
    yield tmp_path / "keyring.gpg"
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True)


def gpg(*words: str) -> None:
    subprocess.run(
        ["gpg", "--batch", "-q", *words], check=True, stdin=subprocess.DEVNULL, capture_output=True
    )


def test_signature_is_checked(
    archive: Path, downloads: Downloads, keyring: Path, store: Store, progress: QuietProgress
) -> None:
    plain = archive.with_suffix("")
    subprocess.run(["xz", "-dk", archive], check=True)
    sign = plain.with_suffix(".tar.sign")
    gpg("--detach-sign", "-o", str(sign), str(plain))
    packed = archive.with_suffix(".gz")
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    for made in (archive, packed):
        url = f"{downloads.url}/{made.name}"
        assert fetch_tree(TarballTree(made.suffix[1:], url, sha256(made), str(keyring)), store, progress)
    data = bytearray(plain.read_bytes())
    data[600] ^= 1
    packed.write_bytes(gzip.compress(bytes(data)))
    forged = TarballTree("forged", str(packed), sha256(packed), str(keyring))
    with pytest.raises(UsageError, match="its signature is invalid"):
        fetch_tree(forged, store, progress)
    assert find_fetched(forged, store) is None


# --- trees.yaml


def test_kinds_and_what_is_none(tmp_path: Path) -> None:
    digest = "0" * 64
    file = tmp_path / "trees.yaml"
    file.write_text(
        "trees:\n"
        "  a: {debian: x}\n"
        "  b: {git: [u], ref: r, suite: s}\n"
        "  c: {git: [https://h/u, m], ref: r}\n"
        "  d: {git: [linux], ref: topic}\n"
        "  e: {git: [https://h/u], ref: one two}\n"
        "  f: {git: [https://h/u], ref: one two, commit: c0ffee123}\n"
        f"  g: {{tarball: a.tar.xz, sha256: {digest}, keyring: k.gpg}}\n"
        "  h: {tarball: a.tar.xz}\n"
        "  i: {dir: /usr/src/linux}\n"
        "  j: {git: [], ref: r}\n"
        "  k/l: {dir: x}\n"
    )
    with pytest.raises(ExceptionGroup) as raised:
        load_trees(file)
    wrong = [str(error).split(": ")[:2] for error in raised.value.exceptions]
    assert wrong == [
        [f"{file}:{line}", f"trees.{name}"]
        for line, name in ((2, "a"), (3, "b"), (6, "e"), (9, "h"), (11, "j"), (12, "k/l"))
    ]
    kept = [
        line
        for line in file.read_text().splitlines()
        if line.strip()[:2] not in ("a:", "b:", "e:", "h:", "j:", "k/")
    ]
    file.write_text("\n".join(kept))
    assert load_trees(file) == {
        "c": GitTree("c", ("https://h/u", "m"), "r"),
        "d": LocalTree("d", str(tmp_path / "linux"), "topic"),
        "f": GitTree("f", ("https://h/u",), "one two", "c0ffee123"),
        "g": TarballTree("g", str(tmp_path / "a.tar.xz"), digest, str(tmp_path / "k.gpg")),
        "i": LocalTree("i", "/usr/src/linux"),
    }
    file.write_text("trees:\n  a: {git: [u], ref: r, commit: xyz}\n  b: {tarball: u, sha256: 12}\n")
    with pytest.raises(ExceptionGroup) as raised:
        load_trees(file)
    assert [error.what for error in raised.value.exceptions if isinstance(error, UsageError)] == [
        "expected a commit of 7 to 40 hex digits, got xyz",
        "expected 64 hex digits, got 12",
    ]


def test_declaration_that_changed_is_another_tree(linux: Path, store: Store, progress: QuietProgress) -> None:
    run_git(linux, "branch", "old")
    commit_file(linux, "mm/swap.c", "int swap;\n", "second")
    url = linux.as_uri()
    old = fetch_tree(GitTree("x", (url,), "old"), store, progress)
    assert find_fetched(GitTree("x", (url,), "HEAD"), store) is None
    assert fetch_tree(GitTree("x", (url,), "HEAD"), store, progress) != old


def test_word_that_is_no_tree() -> None:
    with pytest.raises(UsageError, match="there is no tree stabel; did you mean stable?"):
        find_tree("stabel:v5", {"stable": GitTree("stable", ("u",), "r")})
