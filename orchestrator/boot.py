# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel and a root image in, a running guest that answers over SSH out.

The QEMU command line is a pure function of the guest's description. A guest's life is a context manager:
nothing of it outlives the ``with`` block, nor us. An accelerator counts as usable only after a guest has
really booted on it.
"""

import base64
import contextlib
import io
import signal
import socket
import struct
import tarfile
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from orchestrator import command
from orchestrator.arch import Arch
from orchestrator.build import Kernel
from orchestrator.command import Deadline
from orchestrator.console import parse_console
from orchestrator.errors import InfraError, StageFailure
from orchestrator.kconfig import compare_config
from orchestrator.matrix import GuestShape
from orchestrator.progress import Progress
from orchestrator.rootfs import Rootfs
from orchestrator.store import Store, make_id, write_atomic, write_json

READY = "cowbell: ready"
_KVM = Path("/dev/kvm")
# a guest that works is ready in a second or two; one that is stuck stays stuck
_PROBE_S = 8.0
_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Machine:
    """All that decides how a guest runs, apart from the port and keys of one boot.

    ``boot_limit_s`` is native wall time in seconds; the accelerator stretches it.
    """

    kernel: Kernel
    rootfs: Rootfs
    shape: GuestShape
    accel: str
    boot_limit_s: float

    @property
    def arch(self) -> Arch:
        return self.kernel.request.arch

    @property
    def append(self) -> str:
        return self.kernel.request.config.append

    @property
    def time_scale(self) -> float:
        """By how much every time limit is stretched: emulation is slow."""
        return self.arch.time_scale[self.accel]


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


def make_cmdline(machine: Machine) -> str:
    """The kernel command line: every message reaches the console, a panic ends the guest."""
    arch = machine.arch
    words = (
        f"console={arch.console} {arch.earlycon} ignore_loglevel panic=-1 root=/dev/vda rw rootfstype=ext4 "
        f"{arch.append.get(machine.accel, '')} {machine.append} init=/bin/busybox -- sh /guest-init"
    )
    return " ".join(words.split())


def make_argv(machine: Machine, qemu: str, port: int, folder: Path) -> list[str]:
    """QEMU's argv. ``folder`` has the keys and receives the console, ``port`` leads to the guest's SSH.

    The guest reaches no network and QEMU may start no program; the root disk's writes go to an unlinked
    temporary file of QEMU's.
    """
    arch = machine.arch
    accel = "tcg,thread=multi" if machine.accel == "tcg" else machine.accel
    return [
        qemu,
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-machine", arch.machine, "-accel", accel, "-cpu", arch.cpus[machine.accel]),
        # a socket a CPU: the MP table, all there is without ACPI, lists one CPU a socket
        *("-smp", f"cpus={machine.shape.cpus},sockets={machine.shape.cpus},cores=1,threads=1"),
        *("-m", f"{machine.shape.memory_mib}M"),
        *("-kernel", str(machine.kernel.image), "-append", make_cmdline(machine)),
        *("-drive", f"file={machine.rootfs.image},if=none,id=root,format=raw,snapshot=on"),
        *("-device", "virtio-blk-pci,drive=root"),
        *("-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-10.0.2.15:22"),
        *("-device", "virtio-net-pci,netdev=net,romfile="),
        *("-device", "virtio-rng-pci"),
        *("-drive", f"file={folder / 'keys.tar'},if=none,id=keys,format=raw,readonly=on"),
        *("-device", "virtio-blk-pci,drive=keys,serial=cowbell-keys"),
        *("-serial", f"file:{folder / 'console.log'}"),
    ]


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
        _check_qemu(self.process, self.folder)

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


class QemuKilled(InfraError):
    """Somebody ended QEMU, for want of memory most likely; it did not fail by itself."""


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
    with command.start(argv, output=folder / "qemu.log", death_signal="KILL") as process:
        _wait_ready(process, machine, folder, deadline)
        with contextlib.closing(_connect(port, keys, folder, deadline)) as ssh:
            ready_at = _check_console(folder / "console.log")
            guest = Guest(machine, folder, process, ssh, time.monotonic() - began, ready_at)
            _check_identity(guest, deadline)
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
            _check_qemu(process, folder)
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


def _check_qemu(process: command.Process, folder: Path) -> None:
    """Raise ``InfraError`` when QEMU failed or was killed; a guest that ends makes it exit with 0."""
    status = process.poll()
    if not status:
        return
    said = (folder / "qemu.log").read_text(errors="replace").strip()
    if -status in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        raise QemuKilled(f"QEMU was killed by signal {-status}", hint="is the host out of memory?")
    raise InfraError(f"QEMU ended with status {status}", hint=said or "it said nothing")


def _tail(path: Path, lines: int = 12) -> str:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 8192))
        kept = file.read().decode(errors="replace").splitlines()[-lines:]
    return "\n".join(f"    {line}" for line in kept)


def _connect(port: int, keys: Keys, folder: Path, deadline: Deadline) -> paramiko.SSHClient:
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


def choose_accel(wanted: str, machine: Machine, store: Store, progress: Progress) -> str:
    """The accelerator to use: ``wanted``, or for ``auto`` KVM when a guest has booted on it here, else TCG.

    Raises ``InfraError`` when ``kvm`` was asked for by name and does not work.
    """
    known = find_accel(wanted, machine.arch, store) or _probe_kvm(machine, store, progress)
    name, _, why = known.partition(" ")
    if wanted == "kvm" and name != "kvm":
        raise InfraError(f"KVM does not work here: {why}", hint="ACCEL=tcg runs without it, slower")
    return name


def find_accel(wanted: str, arch: Arch, store: Store) -> str:
    """What is known without booting a guest, as ``NAME why``; empty when only a probe can tell.

    A probe's outcome holds for this host, until it reboots, and this QEMU.
    """
    if wanted == "tcg":
        return "tcg as asked"
    if not arch.is_native:
        return f"tcg the host is not {arch.name}"
    try:
        _KVM.open("r+b").close()
    except OSError as error:
        return f"tcg {_KVM}: {error.strerror}"
    known = _probe_path(arch, store)
    return known.read_text().strip() if known.exists() else ""


def _probe_kvm(machine: Machine, store: Store, progress: Progress) -> str:
    """Boot a guest on KVM. What came of it is remembered, unless it may be the kernel's or the host's."""
    progress.stage("boot", "trying KVM")
    trial = replace(machine, accel="kvm", shape=GuestShape(cpus=1, memory_mib=256), boot_limit_s=_PROBE_S)
    outcome, folder = "kvm a guest has booted", store.path("accel", "probe")
    with store.lock("accel-probe"):
        try:
            with boot_guest(trial, folder):
                pass
        except QemuKilled:
            raise
        except (StageFailure, InfraError) as error:
            outcome = f"tcg {error.what}"
            progress.note(f"{_KVM} opens, but no guest boots on it ({error.what}); using TCG")
            if b"Linux version" in (folder / "console.log").read_bytes():
                return outcome
        write_atomic(_probe_path(machine.arch, store), f"{outcome}\n")
    return outcome


def _probe_path(arch: Arch, store: Store) -> Path:
    qemu = Path(command.find_tool(arch.qemu, arch.qemu_package))
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text()
    return store.path("accel", make_id(str(qemu), qemu.stat().st_mtime, boot_id))
