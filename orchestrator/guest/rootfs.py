# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the guest root image of an architecture: Debian packages unpacked by mmdebstrap, plus our init.

No package is configured or run while the image is made, so a foreign architecture needs no binfmt. Every
guest writes to a temporary overlay of the image.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch
from orchestrator.source import debian
from orchestrator.store.pack import unpack
from orchestrator.store.store import Store, make_id

_PACKAGES = (
    *("busybox", "dash", "dropbear-bin", "libpython3-stdlib", "python3-minimal"),
    *("dmsetup", "e2fsprogs", "mdadm", "xfsprogs"),
)
_EXCLUDED = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"),
    # dependencies that a guest does not use, udev in particular
    *("/lib/udev/*", "/lib/systemd/*", "/usr/lib/udev/*", "/usr/lib/systemd/*", "/bin/udevadm"),
    *("/usr/lib/*/libicu*", "/usr/lib/*/perl-base/*", "/usr/share/perl*", "/usr/share/zoneinfo/*"),
)
# sparse on the host; space for files of the tests
_SIZE = "2G"
# packages since trixie have no files in /bin and /lib and need the links
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh")
# the same without root, with the package of Debian instead of a generated one
_MERGED = "usr-is-merged"
_LINKS = 'cd "$1" && for dir in bin sbin lib lib64; do mkdir -p usr/$dir && ln -s usr/$dir $dir; done'
_INIT = Path(__file__).with_name("guest-init")
# mount points and commands that the init of vng needs
_MOUNTS = 'cd "$1" && mkdir -p proc sys run root && ln -s busybox bin/mkdir && ln -s busybox bin/mount'


@dataclass(frozen=True, slots=True)
class Rootfs:
    rootfs_id: str
    image: Path


def make_rootfs(arch: Arch, store: Store, progress: Progress, packed: Path | None = None) -> Rootfs:
    """The image for an architecture; if absent, it is built (about 15 s), or unpacked from a file."""

    # packages are only unpacked, which works without root and chroot
    is_root = os.geteuid() == 0
    packages = _PACKAGES if is_root else (*_PACKAGES, _MERGED)

    def fill(draft: Path) -> None:
        progress.stage("rootfs", f"{arch.name}: Debian {arch.debian_suite}")
        image = draft / "root.img"
        if packed:
            unpack(packed, image)
            return
        command.run(
            [
                command.find_tool("mmdebstrap", "mmdebstrap"),
                *([] if is_root else ["--mode=chrootless"]),
                "--variant=extract",
                "--format=ext2",
                f"--architectures={arch.debian_arch}",
                f"--include={','.join(packages)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED),
                f"--setup-hook={_MERGED_USR if is_root else _LINKS}",
                f"--extract-hook=copy-in {_INIT} /",
                f"--extract-hook={_MOUNTS}",
                arch.debian_suite,
                str(image),
                debian.make_source_line(arch.debian_suite),
            ],
            deadline=command.Deadline.after(900),
        )
        command.run([command.find_tool("resize2fs", "e2fsprogs"), "-f", str(image), _SIZE])

    rootfs_id = make_rootfs_id(arch)
    return Rootfs(rootfs_id, store.publish("rootfs", rootfs_id, fill) / "root.img")


def make_rootfs_id(arch: Arch) -> str:
    links, init = str(_MERGED_USR), _INIT.read_text()
    return make_id(arch.debian_arch, arch.debian_suite, _PACKAGES, _EXCLUDED, _SIZE, links, init, _MOUNTS)
