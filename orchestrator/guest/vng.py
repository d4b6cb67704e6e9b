# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the QEMU command line that virtme-ng would use to boot a guest.

``vng`` only prints the command line, with its init, kernel command line and devices. Cowbell starts QEMU
itself, as for any other guest, because QEMU started by ``vng`` survives its parent, and its exit status is
lost.
"""

import os
import shlex
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from orchestrator.errors import InfraError, StageFailure
from orchestrator.guest.hardware import ON_ERROR
from orchestrator.guest.qemu import Machine, make_append
from orchestrator.process import command
from orchestrator.process.command import Deadline
from orchestrator.project.arch import Arch

# the fragment that a kernel needs to boot with vng
FRAGMENT = "virtme"
# x86 and arm64 silently truncate a longer command line, and vng does not check it
_CMDLINE_LIMIT = 2047
_SET_UP = "sh /guest-init"
# where vng sends the console by default
_CONSOLE = (("-serial", "chardev:console"), ("-chardev", "file,id=console,path=/dev/null"))


def find_reason_not(arch: Arch) -> str:
    """Why vng cannot boot a guest of this architecture; empty if it can."""
    # its Rust init is for x86_64 only, and its shell init needs bash, which our image does not have
    if arch.name == "x86_64" and arch.is_native:
        return ""
    return f"BOOT=vng works only for x86_64 on x86_64 (the guest has no bash), not for {arch.name}"


def make_vng_argv(machine: Machine, vng: str, qemu: str, board: Sequence[str]) -> list[str]:
    """The ``vng`` command that prints QEMU's argv. ``board`` has the options besides kernel and root disk.

    The root is our image, so the guest has a real disk and sees only the folder of vng's init of the host.
    9p is used because emulation does not notice changes of memory shared by virtiofs. KVM is disabled here,
    as vng uses it without a probe; ``board`` enables it if it works.
    """
    settings = ("snapshot=on", *ON_ERROR.split(","))
    root = [word for setting in settings for word in ("-set", f"drive.virtme-root.{setting}")]
    # vng passes some arguments to a shell unquoted
    return [
        vng,
        "--dry-run",
        *("--run", shlex.quote(str(machine.kernel.image)), "--skip-modules", "--qemu", shlex.quote(qemu)),
        *("--root-disk", str(machine.rootfs.image), "--rw", "--force-9p", "--disable-kvm"),
        # otherwise those of the host
        *("--name", "cowbell", "--cpus", str(machine.shape.cpus)),
        *("--exec", _SET_UP, f"--append={shlex.join(make_append(machine).split())}"),
        f"--qemu-opts={shlex.join([*root, *board])}",
    ]


def read_argv(printed: str, qemu: str) -> list[str]:
    """QEMU's argv from the output of ``vng --dry-run``, without its console options.

    Raises ``InfraError`` if there is none, ``StageFailure`` if the kernel command line is too long.
    """
    lines = [line for line in printed.splitlines() if line.startswith(f"{shlex.quote(qemu)} ")]
    if len(lines) != 1:
        raise InfraError("vng printed no QEMU command", hint=printed or "it printed nothing")
    argv = shlex.split(lines[0])
    for pair in _CONSOLE:
        found = [at for at, words in enumerate(pairwise(argv)) if words == pair]
        if not found:
            raise InfraError(f"vng printed no {' '.join(pair)}; this version is not supported", hint=lines[0])
        # the console of Cowbell follows later
        del argv[found[0] : found[0] + 2]
    cmdline = argv[argv.index("-append") + 1]
    if len(cmdline) > _CMDLINE_LIMIT:
        what = f"the kernel command line has {len(cmdline)} characters, the limit is {_CMDLINE_LIMIT}"
        raise StageFailure("setup", what, hint=cmdline)
    return argv


def ask_vng(machine: Machine, qemu: str, board: Sequence[str], folder: Path) -> list[str]:
    """QEMU's argv for a machine that vng boots. Files of vng go to ``folder``, not to the user's home."""
    beside = Path(sys.executable).with_name("vng")
    vng = str(beside) if beside.exists() else command.find_tool("vng", "virtme-ng")
    done = command.run(
        make_vng_argv(machine, vng, qemu, board),
        # it runs virtme-run from PATH
        env={
            "PATH": f"{Path(vng).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        },
        deadline=Deadline.after(30 * machine.time_scale),
    )
    return read_argv(done.output, qemu)
