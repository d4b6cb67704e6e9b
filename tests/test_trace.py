# SPDX-License-Identifier: GPL-2.0-or-later
"""TRACE=: its words, and the scripts that record in a guest, on a folder with the files of tracefs.

tests/test_debug.py records on a kernel.
"""

import subprocess
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from orchestrator.errors import StageFailure
from orchestrator.guest import tracing
from orchestrator.guest.connection import CommandResult, GoneReason, Guest, GuestGone
from orchestrator.guest.qemu import Machine
from orchestrator.guest.tracing import explain_lost, keep_trace, make_start, start_trace, unpack_trace
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.project.guest import GuestShape
from orchestrator.project.trace import FRAGMENT, TraceRequest, parse_trace
from orchestrator.result.stored import find_results_dir
from orchestrator.store.store import Store
from tests.conftest import ROOT, cowbell

GRAPH = TraceRequest("function_graph", ("do_wp_page",))
STATS = "entries: 3\noverrun: {}\ncommit overrun: 0\ndropped events: 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", TraceRequest()),
        ("function_graph:do_wp_page", GRAPH),
        ("function:do_wp_page,wp_*, kmem:*", TraceRequest("function", ("do_wp_page", "wp_*"), ("kmem:*",))),
        ("event:kmem:mm_page_alloc,function:a", TraceRequest("function", ("a",), ("kmem:mm_page_alloc",))),
        ("p:do_wp_page", TraceRequest(kprobes=("p:cowbell/do_wp_page do_wp_page",))),
        ("r4:back do_wp_page ret=$retval", TraceRequest(kprobes=("r4:cowbell/back do_wp_page ret=$retval",))),
        (
            "p do_wp_page+0x4 vmf=%di flags=+8(%di):u32,kmem:mm_page_free",
            TraceRequest(
                events=("kmem:mm_page_free",),
                kprobes=("p:cowbell/do_wp_page do_wp_page+0x4 vmf=%di flags=+8(%di):u32",),
            ),
        ),
    ],
)
def test_words(text: str, expected: TraceRequest) -> None:
    assert parse_trace(text) == expected
    assert expected.is_on == bool(text)


def test_all_wrong_words_are_named_before_anything_is_done(store: Store) -> None:
    text = "irqsoff,function:a b,function_graph:c,bpftrace:BEGIN,p:x y/z;reboot"
    done = cowbell("test", "ROW=demo", f"TRACE={text}", COWBELL_STORE=str(store.root))
    assert (done.returncode, done.stdout) == (2, "")
    for part in (
        "TRACE: ",
        "expected names of functions after function:, got a b",
        "got irqsoff",
        "the guest has no bpftrace",
        "function and function_graph cannot record at the same time",
    ):
        assert part in " ".join(done.stderr.split())
    assert not list(store.root.rglob("*.config"))


def test_a_kernel_with_ftrace_is_built_and_its_results_have_a_folder_of_their_own(store: Store) -> None:
    declared = load_declarations(ROOT)
    (plain,), (traced,) = (
        make_plan(Request(rows=("demo",), series=("none",), trace=trace), declared) for trace in (False, True)
    )
    assert traced.row.kconfig == (*plain.row.kconfig, FRAGMENT)
    kernel = SimpleNamespace(request=SimpleNamespace(build_id="b", config=SimpleNamespace(append="")))
    machine = Machine(kernel, SimpleNamespace(rootfs_id="r"), GuestShape(2, 256), "tcg", 20)  # type: ignore[arg-type]
    others = [replace(machine, trace=parse_trace(word)) for word in ("function:a", "function_graph:a")]
    folders = {find_results_dir(one, store) for one in (machine, *others)}
    assert len(folders) == 3


@pytest.fixture
def tracefs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files that a kernel with all of it has; writes are appended, as to most of them."""
    folder = tmp_path / "tracing"
    (folder / "events/cowbell").mkdir(parents=True)
    (folder / "per_cpu/cpu0").mkdir(parents=True)
    (folder / "per_cpu/cpu1").mkdir(parents=True)
    for number in range(2):
        (folder / f"per_cpu/cpu{number}/stats").write_text(STATS.format(number * 70))
    for name in (
        *("tracing_on", "current_tracer", "set_event", "set_ftrace_filter", "set_graph_function"),
        *("kprobe_events", "buffer_size_kb", "trace_options", "trace", "events/cowbell/enable"),
    ):
        (folder / name).touch()
    (folder / "available_tracers").write_text("blk function_graph function nop\n")
    monkeypatch.setattr(tracing, "_FOLDER", str(folder))
    monkeypatch.setattr(tracing, "_FILE", str(tmp_path / "text"))
    return folder


def make_guest(trace: TraceRequest, gone: GoneReason | None = None) -> Guest:
    """A guest whose commands run here."""

    def run(line: str, deadline: object) -> CommandResult:
        if gone:
            raise GuestGone(gone, gone)
        # no tracefs of this host
        line = line.replace("mount -t", "false -t")
        done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
        return CommandResult(done.returncode, done.stdout, done.stderr)

    kernel = SimpleNamespace(request=SimpleNamespace(source=SimpleNamespace(version="5.10.1")))
    machine = SimpleNamespace(trace=trace, shape=GuestShape(2, 256), kernel=kernel)
    deadline = SimpleNamespace(allowed_s=50.0)
    return cast(Guest, SimpleNamespace(machine=machine, run=run, deadline=lambda _: deadline))


def test_recording(tracefs: Path, tmp_path: Path) -> None:
    guest = make_guest(parse_trace("function_graph:do_wp_page,wp_page_copy,kmem:*,p:do_fault"))
    start_trace(guest)
    files = {path.name: path.read_text() for path in tracefs.glob("*") if path.is_file()}
    assert files["set_graph_function"] == "do_wp_page\nwp_page_copy\n"
    assert files["set_event"] == "kmem:*\n"
    assert files["kprobe_events"] == "p:cowbell/do_fault do_fault\n"
    assert files["current_tracer"].endswith("function_graph\n")
    assert (files["tracing_on"], files["buffer_size_kb"]) == ("1\n", "1024\n")
    (tracefs / "trace").write_text(" 0) 7.1 us | do_wp_page();\n" * 3)
    path = tmp_path / "boot-1" / "a.1.trace"
    assert keep_trace(guest, path) == str(path)
    lines = path.read_text().splitlines()
    assert lines == ["# cowbell: lost: 72 older events", *[" 0) 7.1 us | do_wp_page();"] * 3]
    for name in ("set_graph_function", "set_event", "kprobe_events"):
        assert (tracefs / name).read_text() == ""
    assert (tracefs / "tracing_on").read_text() == "0\n"
    assert not (tmp_path / "text").exists(), "it stays in no guest"


def test_a_long_trace_keeps_its_end_and_tells_its_loss(tracefs: Path, tmp_path: Path) -> None:
    number = 120_000
    (tracefs / "trace").write_text("".join(f"{line:07} do_wp_page();\n" for line in range(number)))
    keep_trace(make_guest(GRAPH), tmp_path / "trace")
    first, *lines = (tmp_path / "trace").read_text().splitlines()
    size = number * len("0000000 do_wp_page();\n")
    assert (
        first == f"# cowbell: lost: 72 older events and {size - tracing.TEXT_LIMIT} bytes of the older text"
    )
    assert lines == [f"{line:07} do_wp_page();" for line in range(number - len(lines), number)]
    assert tracing.TEXT_LIMIT - 100 < (tmp_path / "trace").stat().st_size < tracing.TEXT_LIMIT + 100


@pytest.mark.parametrize(
    ("word", "missing", "reason"),
    [
        ("function:a", "tracing_on", "lacks CONFIG_FTRACE"),
        ("function_graph:a", "available_tracers", "lacks CONFIG_FUNCTION_GRAPH_TRACER"),
        ("function:a", "set_ftrace_filter", "does not trace the function a"),
        ("kmem:a", "set_event", "has no event kmem:a"),
        ("p:a", "kprobe_events", "lacks CONFIG_KPROBE_EVENTS"),
        ("p:a", "events/cowbell/enable", "cannot enable the kprobes"),
    ],
)
def test_what_the_kernel_cannot_record_is_no_failure_of_the_kernel(
    tracefs: Path, word: str, missing: str, reason: str
) -> None:
    (tracefs / missing).unlink()
    if not reason.startswith("lacks"):
        # not even root can write to it
        (tracefs / missing).mkdir()
    with pytest.raises(StageFailure, match=f"kernel 5.10.1 {reason}") as caught:
        start_trace(make_guest(parse_trace(word)))
    assert (caught.value.stage, caught.value.where) == ("setup", "TRACE")


def test_words_are_no_commands(tmp_path: Path) -> None:
    line = make_start(TraceRequest(kprobes=(f"p:a b $(touch {tmp_path}/x) `touch {tmp_path}/x` '",)), 2)
    assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0
    subprocess.run(["sh", "-c", line], check=False, capture_output=True)
    assert not (tmp_path / "x").exists()


def test_lost_traces(tracefs: Path, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    slow = make_guest(GRAPH, GoneReason.TIMEOUT)
    assert keep_trace(slow, path) == "none: the time limit was reached while it was read"
    with pytest.raises(StageFailure, match="does not start it within 50 s"):
        start_trace(slow)
    lost = make_guest(GRAPH, GoneReason.END)
    for call in (lambda: keep_trace(lost, path), lambda: start_trace(lost)):
        with pytest.raises(GuestGone):
            call()
    assert explain_lost(lost.machine).startswith("none: it was lost with the guest")
    (tracefs / "trace").unlink()
    assert keep_trace(make_guest(GRAPH), path).startswith("none: it could not be read: ")
    for output in ("", "7\n\n", "x\n\nH4sI", "7\n\nH4sI!"):
        with pytest.raises((ValueError, zlib.error)):
            unpack_trace(output)
    assert not path.exists()


def test_nothing_is_done_without_it(tmp_path: Path) -> None:
    guest = make_guest(TraceRequest(), GoneReason.END)
    start_trace(guest)
    assert keep_trace(guest, tmp_path / "trace") == explain_lost(guest.machine) == ""
