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
from orchestrator.guest.qemu import Machine, make_append
from orchestrator.process import command
from orchestrator.process.command import Deadline
from orchestrator.project.arch import Arch

# the fragment that a kernel needs to boot so
FRAGMENT = "virtme"
# x86 and arm64 silently cut off what is longer, and vng does not look
_CMDLINE_LIMIT = 2047
_SET_UP = "sh /guest-init"
# where vng sends the console: nowhere, unless asked to send it to its own terminal
_CONSOLE = (("-serial", "chardev:console"), ("-chardev", "file,id=console,path=/dev/null"))


def find_reason_not(arch: Arch) -> str:
    """Why vng boots no guest of an architecture here; empty when it does."""
    # its init in Rust is an x86_64 program, and the other one a script for bash, which our image has not
    if arch.name == "x86_64" and arch.is_native:
        return ""
    return f"vng boots x86_64 on x86_64 only from an image without bash, this is {arch.name}"


def make_vng_argv(machine: Machine, vng: str, qemu: str, board: Sequence[str]) -> list[str]:
    """The call of ``vng`` that prints QEMU's argv. ``board`` is what QEMU gets besides kernel and root disk.

    The root is our image, so of the host the guest sees the folder of vng's init alone, and has a real disk.
    It is snapshotted like our own. 9p, because virtiofs shares memory behind the back of emulation. Never
    KVM: vng takes it whenever it opens, ``board`` when a guest has booted on it.
    """
    # what goes to vng as one word it hands to a shell as it is
    return [
        vng,
        "--dry-run",
        *("--run", shlex.quote(str(machine.kernel.image)), "--skip-modules", "--qemu", shlex.quote(qemu)),
        *("--root-disk", str(machine.rootfs.image), "--rw", "--force-9p", "--disable-kvm"),
        # else the host's
        *("--name", "cowbell", "--cpus", str(machine.shape.cpus)),
        *("--exec", _SET_UP, f"--append={shlex.join(make_append(machine).split())}"),
        f"--qemu-opts={shlex.join(['-set', 'drive.virtme-root.snapshot=on', *board])}",
    ]


def read_argv(printed: str, qemu: str) -> list[str]:
    """QEMU's argv of what ``vng --dry-run`` printed, with the console left to us.

    Raises ``InfraError`` when there is none, ``StageFailure`` when the kernel would not see all of its own
    command line.
    """
    lines = [line for line in printed.splitlines() if line.startswith(f"{shlex.quote(qemu)} ")]
    if len(lines) != 1:
        raise InfraError("vng did not say how to boot", hint=printed or "it said nothing")
    argv = shlex.split(lines[0])
    for pair in _CONSOLE:
        found = [at for at, words in enumerate(pairwise(argv)) if words == pair]
        if not found:
            raise InfraError(f"vng does not say {' '.join(pair)} any more", hint=lines[0])
        # ours comes later
        del argv[found[0] : found[0] + 2]
    cmdline = argv[argv.index("-append") + 1]
    if len(cmdline) > _CMDLINE_LIMIT:
        what = f"the kernel command line has {len(cmdline)} characters, and only {_CMDLINE_LIMIT} are read"
        raise StageFailure("setup", what, hint=cmdline)
    return argv


def ask_vng(machine: Machine, qemu: str, board: Sequence[str], folder: Path) -> list[str]:
    """QEMU's argv for a machine that vng boots. vng's own files go to ``folder``, not to the user's home."""
    beside = Path(sys.executable).with_name("vng")
    vng = str(beside) if beside.exists() else command.find_tool("vng", "virtme-ng")
    done = command.run(
        make_vng_argv(machine, vng, qemu, board),
        # it calls virtme-run by name
        env={
            "PATH": f"{Path(vng).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
        },
        deadline=Deadline.after(30 * machine.time_scale),
    )
    return read_argv(done.output, qemu)
