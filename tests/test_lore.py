# SPDX-License-Identifier: GPL-2.0-or-later
"""Series by message-id, fetched by b4 from an archive on loopback."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, UsageError
from orchestrator.process import command
from orchestrator.source.lore import Message, fetch_series, find_cover, parse_message
from orchestrator.store.store import Store
from tests.conftest import QuietProgress, cowbell
from tests.gitserver import run_git
from tests.loreserver import Archive, make_mail, make_review, make_series, serve

ONE = {"mm/swap.c": ("entry + 1", "entry + 2")}
TWO = {"mm/counted.c": ("", "int counted;\n")}
OTHER = {"mm/swap.c": ("entry + 1", "entry + 3")}
REVIEWER = "R Viewer <r@example.org>"


@pytest.fixture
def archive(home: Path) -> Iterator[Archive]:
    with serve() as found:
        found.configure(home)
        yield found


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("20260105.1-2-a@x.org", Message("20260105.1-2-a@x.org")),
        ("<a+b=c$d@x.org>", Message("a+b=c$d@x.org")),
        ("<a/b@x.org>:v2", Message("a/b@x.org", version=2)),
        ("a@x.org:newest", Message("a@x.org", is_newest=True)),
        ("https://lore.kernel.org/linux-mm/a@x.org/", Message("a@x.org")),
        ("https://lore.kernel.org/r/a@x.org:v12", Message("a@x.org", version=12)),
        ("https://lore.kernel.org/all/a%2Fb@x.org/T/#u", Message("a/b@x.org")),
        ("https://patch.msgid.link/a@x.org", Message("a@x.org")),
        ("http://127.0.0.1:80/list/a@x.org/", Message("a@x.org", "http://127.0.0.1:80/list")),
        ("https://example.org/some/list/a@x.org", Message("a@x.org", "https://example.org/some/list")),
        ("cow", None), ("-", None), ("~/a@b/fix.mbox", None), ("aa-5.15:v5.15..me@topic", None),
        ("--config=b4.midmask@x", None), ("<a b@x.org>", None), ("<a@x.org\n>", None), ("<a@b@c d>", None),
        ("https://lore.kernel.org/linux-mm/", None), ("https://me@lore.kernel.org/", None),
        ("https://[/a@b", None), ("http:///x/a@b", None), ("<" + "a" * 300 + "@x>", None),
        ("a@x.org:v0", None),
    ],
)  # fmt: skip
def test_words_that_name_a_message(word: str, message: Message | None) -> None:
    assert parse_message(word) == message
    if message:
        assert parse_message(str(message)) == message


def test_version_of_the_mail_with_its_trailers(
    archive: Archive, store: Store, progress: QuietProgress
) -> None:
    review = make_review(2, 1, "Reviewed-by", REVIEWER)
    second = make_series(2, OTHER, TWO, base="1" * 40, parent="v1-0@x.org")
    archive.threads = [[*make_series(1, ONE, TWO), *second, review]]
    for name in ("v2-0@x.org", "v2-2@x.org", "re-2-1@y.org"):
        series = fetch_series(Message(name), store, progress)
        assert (series.name, series.title) == (f"<{name}>", "swap: count (v2)")
        assert [patch.subject for patch in series.patches] == ["swap: count 1", "swap: count 2"]
        assert "entry + 3" in series.patches[0].path.read_text()
        assert f"\nReviewed-by: {REVIEWER}\n" in series.patches[0].path.read_text()
        assert series.base == "1" * 40
    first = fetch_series(Message("v1-1@x.org"), store, progress)
    assert "entry + 2" in first.patches[0].path.read_text()
    assert (first.title, first.base) == ("swap: count", "")
    assert "<v1-1@x.org>: v1; the thread has v1, v2" in progress.notes
    given = fetch_series(Message("v1-0@x.org", version=2), store, progress)
    assert given.patches[0].path.read_bytes() == series.patches[0].path.read_bytes()
    with pytest.raises(UsageError, match="no v3 in the thread") as error:
        fetch_series(Message("v1-0@x.org", version=3), store, progress)
    assert "the thread has v1, v2" in error.value.hint


def test_newest_version_of_another_thread(archive: Archive, store: Store, progress: QuietProgress) -> None:
    archive.threads = [make_series(1, ONE, TWO), make_series(3, OTHER, TWO)]
    newest = fetch_series(Message("v1-0@x.org", is_newest=True), store, progress)
    assert (newest.title, "entry + 3" in newest.patches[0].path.read_text()) == ("swap: count (v3)", True)
    assert fetch_series(Message("v1-0@x.org"), store, progress).title == "swap: count"


def test_thread_is_fetched_once(archive: Archive, store: Store, progress: QuietProgress) -> None:
    archive.threads = [make_series(1, ONE, TWO)]
    before = fetch_series(Message("v1-0@x.org"), store, progress)
    asked = len(archive.asked)
    archive.threads[0].append(make_review(1, 1, "Acked-by", REVIEWER))
    assert fetch_series(Message("v1-0@x.org"), store, progress) == before
    assert len(archive.asked) == asked
    archive.broken = 503
    with pytest.raises(InfraError, match="cannot be fetched"):
        fetch_series(Message("v1-0@x.org"), store, progress, redo=True)
    assert fetch_series(Message("v1-0@x.org"), store, progress) == before
    archive.broken = 0
    after = fetch_series(Message("v1-0@x.org"), store, progress, redo=True)
    assert f"Acked-by: {REVIEWER}" in after.patches[0].path.read_text()


def test_message_that_the_archive_lacks(archive: Archive, store: Store, progress: QuietProgress) -> None:
    with pytest.raises(UsageError, match="there is no such message"):
        fetch_series(Message("404@x.org"), store, progress)
    archive.threads = [[make_mail("a question", "q@x.org", "How does this work?\n")]]
    with pytest.raises(UsageError, match="is not in its thread|no v1"):
        fetch_series(Message("q@x.org"), store, progress)


def test_archive_that_cannot_be_reached(home: Path, store: Store, progress: QuietProgress) -> None:
    with serve() as gone:
        gone.configure(home)
    with pytest.raises(InfraError, match="cannot be fetched"):
        fetch_series(Message("404@x.org"), store, progress)


def test_no_b4(
    store: Store, progress: QuietProgress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(command, "is_installed", lambda name: False)
    with pytest.raises(InfraError, match="b4 is not installed") as error:
        fetch_series(Message("a@x.org"), store, progress)
    assert "cowbell[b4]" in error.value.hint


def test_incomplete_thread(archive: Archive, store: Store, progress: QuietProgress) -> None:
    archive.threads = [make_series(1, ONE, TWO, OTHER)[:-1]]
    with pytest.raises(ExceptionGroup) as errors:
        fetch_series(Message("v1-0@x.org"), store, progress)
    assert "lacks patch 3 of 3" in str(errors.value.exceptions[0])


def test_nothing_of_the_user_changes(
    archive: Archive, store: Store, progress: QuietProgress, home: Path
) -> None:
    """b4 keeps lists of what was applied, and reads the configuration of a repository around it."""
    run_git(store.root.parent, "init", "-q")
    (store.root.parent / ".b4-config").write_text("[b4]\n\tmidmask = http://127.0.0.1:9/%s\n")
    archive.threads = [make_series(1, ONE, TWO)]
    before = sorted(home.rglob("*"))
    config = (home / ".gitconfig").read_bytes()
    fetch_series(Message("v1-0@x.org"), store, progress)
    assert sorted(home.rglob("*")) == before
    assert (home / ".gitconfig").read_bytes() == config


@pytest.mark.parametrize(
    "name", ["../../../etc/passwd@x.org", "-c@x.org", "$(touch owned)@x.org", "%s;a|b@x.org"]
)
def test_hostile_message_ids(
    name: str, archive: Archive, store: Store, progress: QuietProgress, tmp_path: Path
) -> None:
    archive.threads = [[mail.replace("v1-0@x.org", name) for mail in make_series(1, ONE)]]
    if message := parse_message(f"<{name}>"):
        assert len(fetch_series(message, store, progress).patches) == 1
    assert bool(message) == (" " not in name)
    assert not [path for word in ("owned", "passwd") for path in tmp_path.rglob(f"{word}*")]


def test_cover_letter_on_stdin() -> None:
    cover, patch, *_ = make_series(2, ONE, TWO)
    assert find_cover(cover.encode()) == Message("v2-0@x.org")
    assert find_cover(patch.encode()) is None
    assert (
        find_cover(
            f"From x Thu Jan  1 00:00:00 1970\n{cover}\nFrom x Thu Jan  1 00:00:00 1970\n{patch}".encode()
        )
        is None
    )
    assert find_cover(b"") is None


@pytest.fixture
def linux(history: Path, tmp_path: Path) -> Path:
    run_git(tmp_path, "clone", "-q", "--no-local", str(history), str(tmp_path / "linux"))
    run_git(tmp_path / "linux", "checkout", "-q", "-B", "main", "origin/main")
    return tmp_path / "linux"


def test_base_of_a_series_is_taken(archive: Archive, linux: Path) -> None:
    base, head = run_git(linux, "rev-parse", "v5.10^{commit}"), run_git(linux, "rev-parse", "HEAD")
    archive.threads = [make_series(1, ONE, TWO, base=base)]
    words = ("source", "ROW=demo", "SERIES=<v1-0@x.org>")
    done = cowbell(*words, f"KERNEL={linux}")
    assert done.returncode == 0, done.stderr
    told = f"swap: count was made for {base[:12]} (base-commit): taking {linux}:{base[:12]}"
    assert f"{told}; {linux}:HEAD is {head[:12]}" in done.stderr
    plain, patched = (line.split() for line in done.stdout.splitlines())
    assert f":{base[:12]}" in plain[1]
    assert patched[3] == "<v1-0@x.org>"
    done = cowbell(*words, f"KERNEL={linux}:main")
    assert (done.returncode, "was made for" in done.stderr) == (0, False), done.stderr
    # from here the base is HEAD, and then it is one that the checkout lacks
    run_git(linux, "checkout", "-q", base)
    done = cowbell(*words, f"KERNEL={linux}")
    assert (done.returncode, "was made for" in done.stderr) == (0, False), done.stderr
    archive.threads = [make_series(2, ONE, TWO, base="12" * 20)]
    done = cowbell("source", "ROW=demo", "SERIES=v2-0@x.org", f"KERNEL={linux}")
    assert (done.returncode, "was made for" in done.stderr) == (0, False), done.stderr


def test_series_of_a_url_and_of_stdin(archive: Archive, linux: Path, home: Path) -> None:
    (home / ".gitconfig").unlink()
    archive.threads = [make_series(1, ONE, TWO)]
    done = cowbell("-s", "series", f"SERIES={archive.url}/all/v1-0@x.org/", f"KERNEL={linux}")
    assert done.returncode == 0, done.stderr
    assert "applies, 2 patch(es)" in done.stdout
    archive.configure(home)
    done = cowbell("-s", "series", "SERIES=-", f"KERNEL={linux}", stdin=archive.threads[0][0])
    assert (done.returncode, "applies, 2 patch(es)" in done.stdout) == (0, True), done.stderr
    done = cowbell("-s", "series", f"SERIES={archive.url}/all/", f"KERNEL={linux}")
    assert (done.returncode, "names no mail" in done.stderr) == (2, True)
