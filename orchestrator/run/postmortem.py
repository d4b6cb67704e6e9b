# SPDX-License-Identifier: GPL-2.0-or-later
"""Postmortem of a lost guest: how it ended, and the evidence.

Host problems are ruled out first. A guest that does not answer on its connection is tried by another login,
then by its network, its serial line, and an NMI. The verdict is made elsewhere.
"""

import contextlib
import socket
import time
from dataclasses import dataclass

from orchestrator.errors import StageFailure
from orchestrator.guest.connection import GoneReason, Guest, GuestGone, connect, raise_if_host
from orchestrator.guest.hang import gather_hang_diagnostics, keep_core
from orchestrator.guest.qmp import MonitorGone
from orchestrator.result.record import Ended

# native seconds for the guest's network to take a connection, and for SSH to log in on it
_ACCEPT_S, _LOGIN_S = 1.0, 2.0
_WORDS = {
    "answers": "its SSH answers, but the login fails",
    "refuses": "its network refuses SSH",
    "accepts": "its network answers, its SSH server does not",
    "is silent": "it answers neither SSH nor network",
}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a guest ended, one line of evidence, and the kernel's answers to SysRq.

    ``answers``: another login works, and takes commands.

    ``requested_at`` is the offset of the console at which the first request was sent; None if there was none.
    """

    ended: Ended
    how: str
    output: str = ""
    requested_at: int | None = None
    core: str = ""
    answers: bool = False


def find_ending(guest: Guest, reason: GoneReason) -> Ending:
    """Find out how a guest was lost. Raises ``InfraError`` if the host is the cause.

    The guest cannot be used afterwards.
    """
    guest.check_host()
    monitor = guest.channels.monitor
    shutdown = monitor.find_shutdown()
    if guest.has_ended:
        core = keep_core(guest.machine, monitor, guest.folder) if guest.process.poll() is None else ""
        guest.channels.serial.finish(1.0 if guest.process.poll() is not None else 0.0)
        ended = Ended.POWER_OFF if shutdown == "guest-shutdown" else Ended.RESET
        return Ending(ended, f"QEMU reports {shutdown}" if shutdown else "QEMU ended", core=core)
    if reason is GoneReason.FLOOD:
        return Ending(Ended.FLOOD, f"console limit exceeded by {guest.channels.serial.dropped} bytes")
    if reason is GoneReason.PANIC:
        return Ending(Ended.HANG, "it did not end after its panic", core=_keep_core(guest))
    return _try_other_ways(guest, reason)


def _try_other_ways(guest: Guest, reason: GoneReason) -> Ending:
    """Examine a guest that runs and does not answer on its SSH connection."""
    network, requested_at = probe_network(guest), guest.console.stat().st_size
    # if the kernel answers, the test did not end, or SSH was lost
    is_lost = reason is GoneReason.CONNECTION
    ended = Ended.SSH_LOST if is_lost else Ended.TIMEOUT
    if network == "answers" and (output := _show_tasks(guest)) is not None:
        how = "another login works" if is_lost else "the guest answers"
        return Ending(ended, how, output, requested_at, _keep_core(guest), answers=True)
    found = gather_hang_diagnostics(guest.machine, guest.channels.serial, guest.channels.monitor)
    how = _WORDS[network]
    if network == "is silent" and found.answers_sysrq:
        how = "it answers SysRq, but neither SSH nor network"
    elif network == "is silent":
        ended = Ended.HANG
    return Ending(
        ended, f"{how}; {found.where}" if found.where else how, found.output, requested_at, found.core
    )


def probe_network(guest: Guest) -> str:
    """The result of a new connection to the guest's SSH server.

    ``answers`` (with its greeting), ``refuses`` (the kernel closes the connection), ``accepts`` (the kernel
    accepts it, but there is no greeting) or ``is silent`` (the kernel does not answer).
    """
    scale = guest.machine.time_scale
    try:
        with socket.create_connection(("127.0.0.1", guest.channels.port), timeout=_ACCEPT_S * scale) as probe:
            try:
                return "answers" if probe.recv(1) else "refuses"
            except TimeoutError:
                # QEMU itself always accepts; check whether it still waits for the guest
                if "TCP[SYN_SENT]" in guest.channels.monitor.ask("info usernet"):
                    return "is silent"
            probe.settimeout(_LOGIN_S * scale)
            try:
                return "answers" if probe.recv(1) else "refuses"
            except TimeoutError:
                return "accepts"
    except (OSError, MonitorGone) as error:
        raise_if_host(error)
        return "refuses" if guest.process.poll() is None else "is silent"


def _show_tasks(guest: Guest) -> str | None:
    """Log in again and let the kernel print its tasks; returns its output, None if the login failed."""
    deadline = guest.deadline(_LOGIN_S)
    serial = guest.channels.serial
    serial.allow()
    begin = serial.log.stat().st_size
    show = "echo w > /proc/sysrq-trigger; echo t > /proc/sysrq-trigger"
    try:
        with contextlib.closing(
            connect(guest.channels.port, guest.channels.keys, guest.folder, deadline)
        ) as ssh:
            guest.ssh.close()
            guest.ssh = ssh
            guest.run(show, deadline)
    except (StageFailure, GuestGone):
        return None
    serial.wait_answer(0.1, 0.1)
    return serial.read_from(begin)


def end_guest(guest: Guest, limit_s: float = 1.0) -> None:
    """Shut a guest down, so that its kernel reports problems that it detects during cleanup.

    Dropping caches and freeing tasks checks pages that were not checked before. Takes at most ``limit_s``
    native seconds.
    """
    deadline = guest.deadline(limit_s)
    guest.channels.serial.allow()
    with contextlib.suppress(GuestGone):
        guest.run("sync; echo 3 > /proc/sys/vm/drop_caches; sleep 0.1; reboot -nf", deadline)
    while not guest.has_ended and not deadline.is_over:
        time.sleep(0.01)
    guest.channels.serial.finish(deadline.remaining_s() if guest.process.poll() is not None else 0.0)


def _keep_core(guest: Guest) -> str:
    return keep_core(guest.machine, guest.channels.monitor, guest.folder)
