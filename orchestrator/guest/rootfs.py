# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the guest root image of an architecture: Debian packages unpacked by mmdebstrap, plus our init.

No package is configured or run while the image is made, so a foreign architecture needs no binfmt. Every
guest writes to a temporary overlay of the image.
"""

from dataclasses import dataclass
from pathlib import Path

from orchestrator.process import command
from orchestrator.process.progress import Progress
from orchestrator.project.arch import Arch
from orchestrator.source import debian
from orchestrator.store.pack import unpack
from orchestrator.store.store import Store, make_id

_PACKAGES = (
    # static, as the initramfs of kernels with modules has nothing else
    *("busybox-static", "dash", "dropbear-bin", "libpython3-stdlib", "python3-minimal"),
    *("btrfs-progs", "dmsetup", "e2fsprogs", "kmod", "mdadm", "xfsprogs"),
    # many of the kernel's selftests are scripts that need them
    *("bash", "libc-bin", "procps"),
)
_EXCLUDED = (
    *("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*"),
    # dependencies that a guest does not use, udev in particular
    *("/lib/udev/*", "/lib/systemd/*", "/usr/lib/udev/*", "/usr/lib/systemd/*", "/bin/udevadm"),
    *("/usr/lib/*/libicu*", "/usr/lib/*/perl-base/*", "/usr/share/perl*", "/usr/share/zoneinfo/*"),
)
# sparse on the host; space for files of the tests
_SIZE = "2G"
_FEATURES = "extents"
_INIT = Path(__file__).with_name("guest-init")
# mount points and commands that the init of vng needs
_MOUNTS = 'cd "$1" && mkdir -p proc sys run root && ln -s busybox bin/mkdir && ln -s busybox bin/mount'


@dataclass(frozen=True, slots=True)
class Rootfs:
    rootfs_id: str
    image: Path


def make_rootfs(arch: Arch, store: Store, progress: Progress, packed: Path | None = None) -> Rootfs:
    """The image for an architecture; if absent, it is built (about 15 s), or unpacked from a file."""

    def fill(draft: Path) -> None:
        progress.stage("rootfs", f"{arch.name}: Debian {arch.debian_suite}")
        image = draft / "root.img"
        if packed:
            unpack(packed, image)
            return
        options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _EXCLUDED]
        options += [f"--extract-hook=copy-in {_INIT} /", f"--extract-hook={_MOUNTS}"]
        debian.unpack_packages(arch.debian_suite, arch.debian_arch, _PACKAGES, image, *options, kind="ext2")
        command.run([command.find_tool("resize2fs", "e2fsprogs"), "-f", str(image), _SIZE])
        # as disks have that tests are written for: without extents there is no fallocate()
        command.run([command.find_tool("tune2fs", "e2fsprogs"), "-O", _FEATURES, str(image)])

    rootfs_id = make_rootfs_id(arch)
    return Rootfs(rootfs_id, store.publish("rootfs", rootfs_id, fill) / "root.img")


def make_rootfs_id(arch: Arch) -> str:
    return make_id(
        arch.debian_arch,
        arch.debian_suite,
        _PACKAGES,
        _EXCLUDED,
        _SIZE,
        _FEATURES,
        _INIT.read_text(),
        _MOUNTS,
    )
