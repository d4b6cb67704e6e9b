# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel and a root image in, a running guest that answers over SSH out.

A guest's life is a context manager: nothing of it outlives the ``with`` block, nor us. It is ready when it
has proven that it runs the kernel that was built, so configured, on all its CPUs.
"""

import base64
import contextlib
import socket
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

from orchestrator import command
from orchestrator.command import Deadline
from orchestrator.console import parse_console
from orchestrator.errors import StageFailure
from orchestrator.guest import Guest, GuestGone, Keys, connect
from orchestrator.hardware import make_images
from orchestrator.kconfig import compare_config
from orchestrator.laboratory import set_up
from orchestrator.qemu import Machine, check_qemu, make_argv
from orchestrator.store import write_json

READY = "cowbell: ready"
_POLL_S = 0.01


@contextlib.contextmanager
def boot_guest(machine: Machine, folder: Path) -> Iterator[Guest]:
    """Boot; the guest is ready inside the ``with`` block and gone after it.

    Raises ``StageFailure`` with the console's end when the kernel panics, hangs or is not the one that was
    built, and ``InfraError`` when QEMU does not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    qemu = command.find_tool(machine.arch.qemu, machine.arch.qemu_package)
    keys = Keys.make()
    (folder / "keys.tar").touch(mode=0o600)
    (folder / "keys.tar").write_bytes(keys.pack())
    (folder / "console.log").write_bytes(b"")
    port = _find_free_port()
    argv = make_argv(machine, qemu, port, folder)
    write_json(folder / "qemu.json", argv)
    began = time.monotonic()
    deadline = Deadline.after(machine.boot_limit_s * machine.time_scale)
    with (
        make_images(machine.shape, folder),
        command.start(argv, output=folder / "qemu.log", death_signal="KILL") as process,
    ):
        _wait_ready(process, machine, folder, deadline)
        with contextlib.closing(connect(port, keys, folder, deadline)) as ssh:
            ready_at = _check_console(folder / "console.log")
            guest = Guest(machine, folder, process, ssh, time.monotonic() - began, ready_at)
            _check_identity(guest, deadline)
            set_up(guest, deadline)
            guest.ready_at = _check_console(guest.console)
            yield guest


def _wait_ready(process: command.Process, machine: Machine, folder: Path, deadline: Deadline) -> None:
    """Follow the console to the ready marker."""
    console = folder / "console.log"
    with console.open("rb") as log:
        seen = b""
        while True:
            seen = seen[-200:] + log.read(1 << 20)
            if READY.encode() in seen:
                return
            ended = process.poll() is not None
            check_qemu(process, folder)
            if ended or deadline.is_over:
                raise StageFailure(
                    "boot",
                    "the guest ended before it was ready"
                    if ended
                    else f"the guest was not ready after {deadline.allowed_s:.0f} s",
                    where=f"{machine.kernel.request.source.version}, accelerator {machine.accel}",
                    hint="the console's last lines:\n" + _tail(console),
                    log=console,
                )
            time.sleep(_POLL_S)


def _tail(path: Path, lines: int = 12) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        kept = file.read().decode(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in kept)


def _check_console(console: Path) -> int:
    """The console's length so far. A kernel that complained while it booted has failed already."""
    text = console.read_bytes()
    faults = parse_console(text.decode(errors="replace")).faults
    if faults:
        titles = "; ".join(dict.fromkeys(splat.title for splat in faults))
        raise StageFailure("boot", titles, hint=faults[0].excerpt, log=console)
    return len(text)


def _check_identity(guest: Guest, deadline: Deadline) -> None:
    """The guest runs the kernel that was built (by its build id note), so configured, on all its CPUs."""
    kernel, shape = guest.machine.kernel, guest.machine.shape
    try:
        seen = guest.run("nproc && cat /proc/config.gz /sys/kernel/notes 2>/dev/null | base64", deadline)
    except GuestGone as gone:
        raise StageFailure("boot", f"the guest was lost: {gone}", log=guest.console) from None
    cpus, _, packed = seen.stdout.partition("\n")
    config_text, notes = _unpack(base64.b64decode(packed))
    if bytes.fromhex(kernel.gnu_build_id) not in notes:
        raise StageFailure("boot", "the guest runs another kernel than the one built", log=guest.console)
    if cpus != str(shape.cpus):
        raise StageFailure("boot", f"{shape.cpus} CPU(s) asked for, {cpus} up", log=guest.console)
    # make may have changed the .config while it built; without IKCONFIG there is nothing to see
    outcomes = compare_config(kernel.request.config, config_text) if config_text else ()
    if wrong := [str(outcome) for outcome in outcomes if outcome.is_error]:
        what = f"{len(wrong)} requested symbol(s) are not in the running kernel"
        raise StageFailure("boot", what, hint="\n  ".join(wrong), log=guest.console)


def _unpack(data: bytes) -> tuple[str, bytes]:
    """A gzip stream and what comes after it; without such a stream, all is what comes after."""
    if not data.startswith(b"\x1f\x8b"):
        return "", data
    unpacker = zlib.decompressobj(wbits=31)
    return unpacker.decompress(data).decode(), unpacker.unused_data


def _find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
