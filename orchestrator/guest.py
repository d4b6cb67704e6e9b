# SPDX-License-Identifier: GPL-2.0-or-later
"""A running guest as the host sees it: commands over SSH, with the keys of one boot."""

import contextlib
import io
import struct
import tarfile
import time
from dataclasses import dataclass
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator import command
from orchestrator.command import Deadline
from orchestrator.errors import StageFailure
from orchestrator.qemu import Machine, check_qemu

_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one boot: the guest's proves it to us, the client's proves us to it."""

    host: paramiko.PKey
    host_dropbear: bytes
    client: paramiko.PKey

    @classmethod
    def make(cls) -> "Keys":
        host, client = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
        raw = serialization.Encoding.Raw
        seed = host.private_bytes(raw, serialization.PrivateFormat.Raw, serialization.NoEncryption())
        public = host.public_key().public_bytes(raw, serialization.PublicFormat.Raw)
        name = b"ssh-ed25519"
        # dropbear's key file: two SSH strings, the name and seed + public key
        dropbear = struct.pack(">I", len(name)) + name + struct.pack(">I", 64) + seed + public
        return cls(_for_paramiko(host), dropbear, _for_paramiko(client))

    def pack(self) -> bytes:
        """What the guest unpacks onto its root: an archive, because a disk has no names."""
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


def _for_paramiko(key: Ed25519PrivateKey) -> paramiko.PKey:
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return paramiko.Ed25519Key.from_private_key(io.StringIO(pem.decode()))


def connect(port: int, keys: Keys, folder: Path, deadline: Deadline) -> paramiko.SSHClient:
    """Log in; only the key made for this boot is taken for the guest's."""
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
        raise StageFailure(
            "boot", f"the guest is up but SSH does not answer: {error}", log=folder / "console.log"
        ) from error
    return client


@dataclass(slots=True)
class Guest:
    """A guest that has booted, at offset ``ready_at`` of its console, which lies in ``folder``."""

    machine: Machine
    folder: Path
    process: command.Process
    ssh: paramiko.SSHClient
    ready_s: float
    ready_at: int

    @property
    def console(self) -> Path:
        return self.folder / "console.log"

    def is_alive(self) -> bool:
        """Whether QEMU runs and the guest still answers a command."""
        if self.process.poll() is not None:
            return False
        try:
            return self.run("true", Deadline.after(5 * self.machine.time_scale)).status == 0
        except GuestGone:
            return False

    def check_host(self) -> None:
        """After the guest was lost: raise ``InfraError`` when it was QEMU that failed or was killed."""
        # SSH sees the end before the process table does
        command.wait(self.process, 0.5)
        check_qemu(self.process, self.folder)

    def run(self, line: str, deadline: Deadline, stdin: bytes = b"") -> "Answer":
        """Run a shell command in the guest. Raises ``GuestGone`` when guest or deadline ends first."""
        transport = self.ssh.get_transport()
        try:
            if transport is None:
                raise GuestGone("no connection", "")
            channel = transport.open_session(timeout=deadline.remaining_s())
            channel.exec_command(line)
            return self._follow(channel, deadline, stdin)
        except (OSError, EOFError, paramiko.SSHException) as error:
            raise GuestGone(f"the SSH connection ended: {error}", "") from None

    def _follow(self, channel: paramiko.Channel, deadline: Deadline, stdin: bytes) -> "Answer":
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
                if deadline.is_over:
                    raise GuestGone("time is up", out.decode(errors="replace"), is_timeout=True)
                if self.process.poll() is not None or channel.closed:
                    raise GuestGone("the guest ended", out.decode(errors="replace"))
                time.sleep(_POLL_S)
            status = channel.recv_exit_status()
        return Answer(status, out.decode(errors="replace"), err.decode(errors="replace"))


_OUTPUT_LIMIT = 1 << 20


def _keep(buffer: bytearray, block: bytes) -> None:
    """Read on, but keep no more than a MiB of what a guest says."""
    buffer += block[: max(0, _OUTPUT_LIMIT - len(buffer))]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command in the guest came to. A status of -1 means that a signal ended it."""

    status: int
    stdout: str
    stderr: str


class GuestGone(Exception):
    """The guest, its connection or the time ended before the command did; with the output so far."""

    def __init__(self, why: str, stdout: str, *, is_timeout: bool = False) -> None:
        super().__init__(why)
        self.stdout = stdout
        self.is_timeout = is_timeout
