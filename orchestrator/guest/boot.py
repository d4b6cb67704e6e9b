# SPDX-License-Identifier: GPL-2.0-or-later
"""Boots a kernel in a guest and waits until the guest answers over SSH.

A guest is a context manager: nothing of it survives the ``with`` block or this process. It is ready once it
has proven that it runs the right kernel and config on all of its CPUs.
"""

import base64
import contextlib
import socket
import time
import zlib
from collections.abc import Iterator
from enum import StrEnum
from functools import partial
from pathlib import Path

from orchestrator.errors import StageFailure
from orchestrator.guest.connection import PANIC_S, Channels, Guest, GuestGone, Keys, connect
from orchestrator.guest.hang import gather_hang_diagnostics
from orchestrator.guest.hostwatch import HostWatch
from orchestrator.guest.modules import NO_ROOT
from orchestrator.guest.qemu import (
    Machine,
    QemuCrashed,
    check_qemu,
    count_oom_kills,
    make_argv,
    make_board_argv,
)
from orchestrator.guest.qmp import Monitor, MonitorGone
from orchestrator.guest.serial import SerialLine
from orchestrator.guest.setup import set_up
from orchestrator.guest.snapshot import Snapshot, check_restored, keep_images
from orchestrator.guest.vng import ask_vng
from orchestrator.kernel.build import Kernel
from orchestrator.kernel.kconfig import compare_config
from orchestrator.kernel.symbols import show_source_lines
from orchestrator.parse.console import parse_console
from orchestrator.parse.printk import make_printable
from orchestrator.process import command
from orchestrator.process.command import Deadline
from orchestrator.store.store import own_folder, write_json

READY = "cowbell: ready"
_POLL_S = 0.01
# the first archive on the disk with the keys has so much room, the second follows
_KEYS_SIZE = 1 << 20
_UNPACK_S = 30


class BootCrashed(StageFailure):
    """The guest ended, panicked or stalled before it was ready; under emulation a busy host may cause it."""


class Phase(StrEnum):
    """A phase of the boot; the value describes a boot that ended in it."""

    FIRMWARE = "QEMU started, but the kernel printed nothing"
    KERNEL = "the kernel started, but did not reach init"
    INIT = "init started, but did not finish"
    READY = "init is done"


# console output that marks the begin of a phase
_SIGNS = {Phase.READY: READY.encode(), Phase.INIT: b" as init process", Phase.KERNEL: b"\n"}
# the share of the boot limit that each phase may take
_SHARES = {Phase.FIRMWARE: 0.5, Phase.KERNEL: 0.75, Phase.INIT: 0.5, Phase.READY: 1.0}


def find_phase(console: bytes, phase: Phase = Phase.FIRMWARE) -> Phase:
    """The phase that a part of the console shows, or ``phase`` if that is later."""
    order = list(Phase)
    shown = next((known for known, sign in _SIGNS.items() if sign in console), Phase.FIRMWARE)
    return max(shown, phase, key=order.index)


@contextlib.contextmanager
def boot_guest(
    machine: Machine, folder: Path, snapshot: Snapshot | None = None, archive: bytes = b""
) -> Iterator[Guest]:
    """Boot a guest or start it from a snapshot of this machine; it ends with the block.

    ``archive`` is what ``unpack_archive`` unpacks in the guest.

    Raises ``StageFailure`` with the last console lines if the kernel panics or hangs (stage ``boot``) or the
    guest does not match its description (``setup``), and ``InfraError`` if QEMU does not run. If QEMU crashes
    before the guest is ready, or the kernel does under emulation, where a busy host may be the cause, it is
    started once more, and ``Guest.trouble`` has the reason.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(own_folder(folder))
        try:
            guest = stack.enter_context(_boot(machine, folder, snapshot, archive))
        except (QemuCrashed, BootCrashed) as crash:
            if isinstance(crash, BootCrashed) and machine.accel != "tcg":
                raise
            for name in ("qemu.log", "console.log"):
                (folder / name).rename(folder / f"{name}.1")
            guest = stack.enter_context(_boot(machine, folder, snapshot, archive))
            guest.trouble = f"{crash.what} during the boot; the guest was booted again: {crash.hint}"
        yield guest


@contextlib.contextmanager
def _boot(machine: Machine, folder: Path, snapshot: Snapshot | None, archive: bytes) -> Iterator[Guest]:
    qemu = command.find_tool(machine.arch.qemu, machine.arch.qemu_package)
    keys = snapshot.keys if snapshot else Keys.make()
    (folder / "keys.tar").touch(mode=0o600)
    (folder / "keys.tar").write_bytes(keys.pack().ljust(_KEYS_SIZE, b"\0") + archive)
    (folder / "console.log").write_bytes(b"")
    began = time.monotonic()
    oom_kills = count_oom_kills()
    with contextlib.ExitStack() as stack:
        stack.callback((folder / "keys.tar").unlink, missing_ok=True)
        (serial_end, serial_peer), (monitor_end, monitor_peer) = socket.socketpair(), socket.socketpair()
        for end in (serial_end, serial_peer, monitor_end, monitor_peer):
            stack.callback(end.close)
        inherited = (serial_peer.fileno(), monitor_peer.fileno())
        if machine.boot == "vng":
            argv = ask_vng(machine, qemu, make_board_argv(machine, folder, *inherited), folder)
        else:
            argv = make_argv(machine, qemu, folder, *inherited)
        argv += snapshot.argv if snapshot else []
        write_json(folder / "qemu.json", argv)
        stack.enter_context(keep_images(machine, folder, snapshot))
        process = stack.enter_context(
            command.start(argv, output=folder / "qemu.log", death_signal="KILL", pass_fds=inherited)
        )
        waited = partial(command.read_wait_s, process.pid)
        deadline = Deadline.after(machine.boot_limit_s * machine.time_scale, waited)
        # otherwise the end of QEMU would not be noticed
        serial_peer.close()
        monitor_peer.close()
        serial = stack.enter_context(contextlib.closing(SerialLine(serial_end, folder / "console.log")))
        monitor = stack.enter_context(contextlib.closing(Monitor(monitor_end)))
        watch = stack.enter_context(
            contextlib.closing(HostWatch(process, serial, monitor, folder / "qemu.log"))
        )
        watch.on_failure(lambda: monitor_end.shutdown(socket.SHUT_RDWR))
        try:
            if snapshot:
                port = _wait_restored(process, monitor, deadline, oom_kills, folder)
            else:
                port = _wait_ready(process, machine, serial, monitor, watch, deadline, oom_kills)
            ssh = stack.enter_context(contextlib.closing(connect(port, keys, folder, deadline)))
            ready_at = _check_console(folder / "console.log", machine.kernel)
            channels = Channels(serial, monitor, watch, port, keys, oom_kills)
            guest = Guest(machine, folder, process, ssh, time.monotonic() - began, ready_at, channels)
            watch.on_failure(lambda: guest.ssh.close())
            if snapshot:
                check_restored(guest, snapshot, deadline)
            else:
                _check_identity(guest, deadline)
                set_up(guest, deadline)
            guest.ready_at = _check_console(guest.console, machine.kernel)
        except (StageFailure, MonitorGone):
            # the host may be the reason
            watch.look()
            raise
        yield guest


def unpack_archive(guest: Guest, place: str) -> None:
    """Unpack the archive with which the guest was booted, a tar file, into a folder of the guest.

    It comes on a disk: SSH needs a thousand round trips for it, which take minutes on a busy host. Raises
    ``StageFailure`` if the guest is lost or has no space.
    """
    line = f"dd if=/run/cowbell-disk bs={_KEYS_SIZE} skip=1 2>/dev/null | tar xf - -C {place} && sync"
    try:
        answer = guest.run(line, guest.deadline(_UNPACK_S))
    except GuestGone as gone:
        guest.check_host()
        # no test has run yet, so this is a boot failure
        raise StageFailure(
            "boot", f"the guest was lost while tests were copied to it: {gone}", log=guest.console
        ) from None
    if answer.status:
        output = make_printable(answer.stderr)
        raise StageFailure("run", f"the tests cannot be unpacked in the guest: {output}", log=guest.console)


def _wait_restored(
    process: command.Process, monitor: Monitor, deadline: Deadline, oom_kills: int, folder: Path
) -> int:
    """Wait for a guest that is started from a snapshot; returns the host port of its SSH."""
    port = _open_monitor(process, monitor, deadline)
    check_qemu(process, folder, oom_kills)
    if not port:
        raise StageFailure("boot", "the restored guest ended at once", log=folder / "console.log")
    return port


def _wait_ready(
    process: command.Process,
    machine: Machine,
    serial: SerialLine,
    monitor: Monitor,
    watch: HostWatch,
    deadline: Deadline,
    oom_kills: int,
) -> int:
    """Follow the console to the ready marker; returns the host port of the guest's SSH."""
    phase, port, seen = Phase.FIRMWARE, 0, b""
    limit = Deadline.after(_SHARES[phase] * deadline.allowed_s, deadline.waited)
    with serial.log.open("rb") as log:
        while True:
            port = port or _open_monitor(process, monitor, deadline)
            has_ended = process.poll() is not None
            if has_ended:
                serial.finish(1.0)
            seen = seen[-200:] + log.read(1 << 20)
            if (reached := find_phase(seen, phase)) is not phase:
                phase, limit = reached, Deadline.after(_SHARES[reached] * deadline.allowed_s, deadline.waited)
            if phase is Phase.READY and port:
                return port
            check_qemu(process, serial.log.parent, oom_kills, machine.shape.qemu)
            watch.check()
            silent_since = serial.panicked_at or time.monotonic()
            is_dead = time.monotonic() - silent_since > PANIC_S * machine.time_scale
            if has_ended or is_dead or limit.is_over or deadline.is_over:
                spent_s = limit.allowed_s - limit.remaining_s()
                raise _explain_failure(machine, serial, monitor, phase, None if has_ended else spent_s)
            time.sleep(_POLL_S)


def _open_monitor(process: command.Process, monitor: Monitor, deadline: Deadline) -> int:
    """The host port of the guest's SSH, 0 if QEMU has ended; raises ``MonitorGone`` if it does not answer."""
    try:
        monitor.connect(deadline)
        return monitor.read_ssh_port()
    except MonitorGone:
        # the socket closes before the process is reaped
        if command.wait(process, 1.0):
            return 0
        raise


def _explain_failure(
    machine: Machine, serial: SerialLine, monitor: Monitor, phase: Phase, spent_s: float | None
) -> StageFailure:
    """Why a guest did not become ready: a panic, an early end, or a hang after ``spent_s`` in its phase."""
    text = serial.log.read_bytes().decode(errors="replace")
    where = f"{machine.kernel.request.source.version}, accelerator {machine.accel}"
    if NO_ROOT in text:
        what = "the kernel cannot read the root disk: it lacks virtio_blk or ext4, built in or as modules"
        hint = f"MODULES=DIR names the modules of an image\n{make_printable(_tail(text))}"
        return StageFailure("setup", what, where=where, hint=hint, log=serial.log)
    found_in = parse_console(text)
    panic = found_in.panic
    kind = (
        BootCrashed
        if (panic or spent_s is None) and all(one.kind.may_be_host for one in found_in.faults)
        else StageFailure
    )
    shown = "the console's last lines:\n" + _tail(text)
    if panic:
        what = f"{panic} ({phase})"
    elif spent_s is None:
        what = f"the guest ended before it was ready: {phase}"
    else:
        what = f"the guest was not ready: {phase} within {spent_s:.0f} s"
        found = gather_hang_diagnostics(machine, serial, monitor)
        shown += f"\n{found.where}\n{_tail(found.output)}" if found.where or found.output else ""
    return kind(
        "boot",
        make_printable(what),
        where=where,
        hint=make_printable(show_source_lines(machine.kernel, shown)),
        log=serial.log,
    )


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(f"    {line.rstrip()}" for line in text[-8192:].splitlines()[-lines:])


def _check_console(console: Path, kernel: Kernel) -> int:
    """The length of the console so far; raises ``StageFailure`` if the kernel printed a splat."""
    text = console.read_bytes()
    faults = parse_console(text.decode(errors="replace")).faults
    if faults:
        titles = "; ".join(dict.fromkeys(splat.title for splat in faults))
        kind = BootCrashed if all(splat.kind.may_be_host for splat in faults) else StageFailure
        excerpt = show_source_lines(kernel, faults[0].excerpt)
        raise kind("boot", make_printable(titles), hint=make_printable(excerpt), log=console)
    return len(text)


def _check_identity(guest: Guest, deadline: Deadline) -> None:
    """Check the kernel's build id, config and number of CPUs."""
    kernel, shape = guest.machine.kernel, guest.machine.shape
    try:
        line = "nproc && cat /proc/version && cat /proc/config.gz /sys/kernel/notes 2>/dev/null | base64"
        answer = guest.run(line, deadline)
    except GuestGone as gone:
        guest.check_host()
        raise StageFailure(
            "boot", f"the guest was lost after it became ready: {gone}", log=guest.console
        ) from None
    cpus, banner, packed = [*answer.stdout.split("\n", 2), "", ""][:3]
    config_text, notes = _unpack(base64.b64decode(packed))
    is_same = banner == kernel.banner if kernel.banner else bytes.fromhex(kernel.gnu_build_id) in notes
    if not is_same:
        raise StageFailure("setup", "the guest runs a different kernel than the one built", log=guest.console)
    if cpus != str(shape.cpus):
        raise StageFailure("setup", f"{shape.cpus} CPU(s) requested, {cpus} online", log=guest.console)
    # make may have changed the .config during the build; without IKCONFIG this cannot be checked
    outcomes = compare_config(kernel.request.config, config_text) if config_text else ()
    if wrong := [str(outcome) for outcome in outcomes if outcome.is_error]:
        what = f"{len(wrong)} requested symbol(s) are not in the running kernel"
        raise StageFailure("setup", what, hint="\n  ".join(wrong), log=guest.console)


def _unpack(data: bytes) -> tuple[str, bytes]:
    """Unpack a leading gzip stream, if any; returns its text and the remaining data."""
    if not data.startswith(b"\x1f\x8b"):
        return "", data
    unpacker = zlib.decompressobj(wbits=31)
    return unpacker.decompress(data).decode(), unpacker.unused_data
