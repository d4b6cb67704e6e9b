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
from orchestrator.store.store import Store, make_id

_PACKAGES = (
    *("busybox", "dash", "dropbear-bin", "libpython3-stdlib", "python3-minimal"),
    *("dmsetup", "e2fsprogs", "mdadm", "xfsprogs"),
)
_LEFT_OUT = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"),
    # what these depend on and a guest has no use for; there is no udev in particular
    *("/lib/udev/*", "/lib/systemd/*", "/usr/lib/udev/*", "/usr/lib/systemd/*", "/bin/udevadm"),
    *("/usr/lib/*/libicu*", "/usr/lib/*/perl-base/*", "/usr/share/perl*", "/usr/share/zoneinfo/*"),
)
# the file system is sparse on the host: room for what the tests write
_SIZE = "2G"
# packages since trixie have nothing in /bin and /lib, and count on the links
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr/setup00.sh")
# what that comes to, for who may not install the package that it makes; Debian has the same
_MERGED = "usr-is-merged"
_LINKS = 'cd "$1" && for dir in bin sbin lib lib64; do mkdir -p usr/$dir && ln -s usr/$dir $dir; done'
_INIT = Path(__file__).with_name("guest-init")
# what an init that is not ours finds no guest without: where to mount, and what with
_FOUND = 'cd "$1" && mkdir -p proc sys run root && ln -s busybox bin/mkdir && ln -s busybox bin/mount'


@dataclass(frozen=True, slots=True)
class Rootfs:
    rootfs_id: str
    image: Path


def make_rootfs(arch: Arch, store: Store, progress: Progress) -> Rootfs:
    """The image for an architecture, built when absent (about 15 s)."""

    # packages are unpacked, and nothing in them is run: who may not even chroot can do that, too
    is_root = os.geteuid() == 0
    packages = _PACKAGES if is_root else (*_PACKAGES, _MERGED)

    def fill(draft: Path) -> None:
        progress.stage("rootfs", f"{arch.name}: Debian {arch.debian_suite}")
        image = draft / "root.img"
        command.run(
            [
                command.find_tool("mmdebstrap", "mmdebstrap"),
                *([] if is_root else ["--mode=chrootless"]),
                "--variant=extract",
                "--format=ext2",
                f"--architectures={arch.debian_arch}",
                f"--include={','.join(packages)}",
                *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
                f"--setup-hook={_MERGED_USR if is_root else _LINKS}",
                f"--extract-hook=copy-in {_INIT} /",
                f"--extract-hook={_FOUND}",
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
    return make_id(arch.debian_arch, arch.debian_suite, _PACKAGES, _LEFT_OUT, _SIZE, links, init, _FOUND)
