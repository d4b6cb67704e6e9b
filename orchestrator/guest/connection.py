# SPDX-License-Identifier: GPL-2.0-or-later
"""Commands in a running guest over SSH, with keys that are made for one boot."""

import contextlib
import errno
import io
import logging
import struct
import tarfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.hostwatch import HostWatch
from orchestrator.guest.qemu import Machine, check_qemu
from orchestrator.guest.qmp import Monitor, MonitorGone
from orchestrator.guest.serial import SerialLine
from orchestrator.parse.printk import make_printable
from orchestrator.process import command
from orchestrator.process.command import Deadline

# it also logs the errors that it raises
logging.getLogger("paramiko").addHandler(logging.NullHandler())

if TYPE_CHECKING:
    # imported late: the import takes 0.1 s, which a dry run does not need
    import paramiko
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_POLL_S = 0.01
# how long after its panic a guest may take to end, native seconds
PANIC_S = 1.0


@dataclass(frozen=True, slots=True)
class Keys:
    """The SSH keys of one boot: the host key of the guest and the key of the client."""

    host: "paramiko.PKey"
    host_dropbear: bytes
    client: "paramiko.PKey"

    @classmethod
    def make(cls) -> "Keys":
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        host, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        seed = host.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = host.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        name = b"ssh-ed25519"
        # dropbear's key file: two SSH strings, the name and seed + public key
        dropbear = struct.pack(">I", len(name)) + name + struct.pack(">I", 64) + seed + public
        return cls(_for_paramiko(host), dropbear, _for_paramiko(client))

    def pack(self) -> bytes:
        """The key files as a tar archive, which the guest unpacks onto its root."""
        client = f"{self.client.get_name()} {self.client.get_base64()}\n".encode()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            for name, content in (
                ("run/host-key", self.host_dropbear),
                ("root/.ssh/authorized_keys", client),
            ):
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(content), 0o600
                archive.addfile(member, io.BytesIO(content))
        return packed.getvalue()


def _for_paramiko(key: "Ed25519PrivateKey") -> "paramiko.PKey":
    import paramiko
    from cryptography.hazmat.primitives import serialization

    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(pem.decode()))


def connect(port: int, keys: Keys, folder: Path, deadline: Deadline) -> "paramiko.SSHClient":
    """Log in; only the host key of this boot is accepted."""
    import paramiko

    client = paramiko.SSHClient()
    client.get_host_keys().add(f"[127.0.0.1]:{port}", keys.host.get_name(), keys.host)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    limit = max(1.0, deadline.remaining_s())
    try:
        client.connect(
            "127.0.0.1",
            port,
            username="root",
            pkey=keys.client,
            look_for_keys=False,
            allow_agent=False,
            timeout=limit,
            banner_timeout=limit,
            auth_timeout=limit,
        )
    except (OSError, EOFError, paramiko.SSHException) as error:
        client.close()
        raise_if_host(error)
        raise StageFailure(
            "boot",
            f"the guest is up but SSH does not answer: {make_printable(str(error))}",
            log=folder / "console.log",
        ) from error
    return client


# what a guest cannot cause: no loopback network, no more open files, no memory
_HOST_ERRNOS = (
    errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE,
    errno.ENOBUFS, errno.ENOMEM,
)  # fmt: skip


def raise_if_host(error: Exception) -> None:
    """Raise ``InfraError`` if the connection failed for lack of something on the host."""
    # paramiko collects the errors of all addresses
    causes = [error, *getattr(error, "errors", {}).values()]
    for cause in causes:
        if isinstance(cause, OSError) and cause.errno in _HOST_ERRNOS:
            raise InfraError(f"the host cannot connect to its guest: {cause.strerror}") from error


@dataclass(frozen=True, slots=True)
class Channels:
    """Connections to a guest besides SSH: serial line, QEMU's monitor, port and keys for another login.

    ``oom_kills`` is the host's count of OOM kills when QEMU was started.
    """

    serial: SerialLine
    monitor: Monitor
    watch: HostWatch
    port: int
    keys: Keys
    oom_kills: int


@dataclass(slots=True)
class Guest:
    """A guest that has booted, at offset ``ready_at`` of its console, a file in ``folder``.

    ``trouble`` is the reason why it was booted twice, if it was.
    """

    machine: Machine
    folder: Path
    process: command.Process
    ssh: "paramiko.SSHClient"
    ready_s: float
    ready_at: int
    channels: Channels
    trouble: str = ""

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    @property
    def has_ended(self) -> bool:
        """Whether the guest or QEMU has ended."""
        if self.machine.keep_core and self.channels.monitor.find_shutdown():
            return True
        return self.process.poll() is not None

    def read_wait_s(self) -> float:
        """How long the host has kept the guest waiting for a CPU."""
        return command.read_wait_s(self.process.pid)

    def deadline(self, native_s: float) -> Deadline:
        """A deadline that the guest can meet, however slow its accelerator and busy the host."""
        return Deadline.after(native_s * self.machine.time_scale, self.read_wait_s)

    def check_host(self) -> None:
        """After the guest was lost: raise ``InfraError`` if QEMU or the host failed."""
        # SSH notices the end before the process is reaped
        command.wait(self.process, 0.5)
        check_qemu(self.process, self.folder, self.channels.oom_kills)
        self.channels.watch.look()
        if self.process.poll() is not None:
            return
        try:
            state = self.channels.monitor.read_status()
        except MonitorGone as gone:
            if not command.wait(self.process, 0.5):
                raise InfraError(
                    f"QEMU runs, but does not answer: {gone}", log=self.folder / "qemu.log"
                ) from None
            check_qemu(self.process, self.folder, self.channels.oom_kills)
            return
        if state == "internal-error":
            raise InfraError(
                "the accelerator failed (reported by QEMU)",
                hint="ACCEL=tcg runs without KVM, slower",
                log=self.folder / "qemu.log",
            )

    def run(self, line: str, deadline: Deadline, stdin: bytes = b"") -> "CommandResult":
        """Run a shell command in the guest. Raises ``GuestGone`` if the guest or the deadline ends first.

        Raises ``InfraError`` as soon as the host fails.
        """
        import paramiko

        transport = self.ssh.get_transport()
        try:
            if transport is None:
                raise GuestGone("no connection", GoneReason.CONNECTION)
            channel = transport.open_session(timeout=deadline.remaining_s())
            channel.exec_command(line)
            return self._follow(channel, deadline, stdin)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise_if_host(error)
            self.channels.watch.check()
            raise GuestGone(
                f"the SSH connection ended: {make_printable(str(error))}", GoneReason.CONNECTION
            ) from None

    def _follow(self, channel: "paramiko.Channel", deadline: Deadline, stdin: bytes) -> "CommandResult":
        out, err = bytearray(), bytearray()
        with contextlib.closing(channel):
            channel.settimeout(max(0.1, deadline.remaining_s()))
            if stdin:
                channel.sendall(stdin)
            channel.shutdown_write()
            while True:
                while channel.recv_ready():
                    _keep(out, channel.recv(1 << 16))
                while channel.recv_stderr_ready():
                    _keep(err, channel.recv_stderr(1 << 16))
                if channel.exit_status_ready() and channel.eof_received and not channel.recv_ready():
                    break
                self.channels.watch.check()
                if reason := self._find_reason(channel, deadline):
                    raise GuestGone(reason, reason, _decode(out))
                time.sleep(_POLL_S)
            status = channel.recv_exit_status()
        return CommandResult(status, _decode(out), _decode(err))

    def has_panicked(self) -> bool:
        """Whether the kernel has panicked, where the console says so: it runs no program any more.

        A program can write the same message to the kernel log. A guest that panicked has ``PANIC_S`` to end.
        """
        serial, said_at = self.channels.serial, self.channels.serial.panicked_at
        if said_at is None:
            return False
        while not self.has_ended and not self._is_panic_over(said_at):
            time.sleep(_POLL_S)
        # asked once for each message
        serial.panicked_at = None
        try:
            self.run(":", self.deadline(PANIC_S))
        except GuestGone:
            serial.panicked_at = said_at
            return True
        return False

    def _is_panic_over(self, said_at: float) -> bool:
        return time.monotonic() - said_at > PANIC_S * self.machine.time_scale

    def _find_reason(self, channel: "paramiko.Channel", deadline: Deadline) -> "GoneReason | None":
        said_at = self.channels.serial.panicked_at
        if self.has_ended:
            return GoneReason.END
        if said_at is not None and self._is_panic_over(said_at) and self.has_panicked():
            return GoneReason.PANIC
        if self.channels.serial.dropped:
            return GoneReason.FLOOD
        if channel.closed and not channel.eof_received:
            return GoneReason.CONNECTION
        return GoneReason.TIMEOUT if deadline.is_over else None


_OUTPUT_LIMIT = 1 << 20
# the last line of output that was cut; a comment in KTAP
CUT = f"\n# cowbell: the output after {_OUTPUT_LIMIT >> 20} MiB was dropped\n"


def _keep(buffer: bytearray, block: bytes) -> None:
    """Keep a guest's output up to the limit and one byte more; the rest is read and dropped."""
    buffer += block[: max(0, _OUTPUT_LIMIT + 1 - len(buffer))]


def _decode(buffer: bytearray) -> str:
    is_cut = len(buffer) > _OUTPUT_LIMIT
    return buffer[:_OUTPUT_LIMIT].decode(errors="replace") + (CUT if is_cut else "")


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The result of a command in the guest. A status of -1 means that a signal killed it."""

    status: int
    stdout: str
    stderr: str


class GoneReason(StrEnum):
    """Why a command in the guest was abandoned."""

    END = "the guest ended"
    PANIC = "the kernel panicked"
    FLOOD = "the console was flooded"
    CONNECTION = "the SSH connection ended"
    TIMEOUT = "the time limit was reached"


class GuestGone(Exception):
    """The guest was lost, or the time limit was reached, before the command ended. Has the output so far."""

    def __init__(self, why: str, reason: GoneReason, stdout: str = "") -> None:
        super().__init__(why)
        self.reason = reason
        self.stdout = stdout
