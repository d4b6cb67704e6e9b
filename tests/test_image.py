# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are already built: read, taken into the store with modules, refused if they do not fit."""

import gzip
import json
import lzma
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.errors import InfraError, UsageError
from orchestrator.guest import modules
from orchestrator.guest.rootfs import Rootfs
from orchestrator.kernel import toolbox
from orchestrator.kernel.build import Kernel
from orchestrator.plan.declarations import load_declarations
from orchestrator.plan.plan import Request, make_plan
from orchestrator.project.condition import Version
from orchestrator.source.debianimage import read_image_offers
from orchestrator.source.fetch import fetch_tree, find_fetched
from orchestrator.source.image import KIND
from orchestrator.source.imagefile import read_image
from orchestrator.source.tree import DebianImageTree, ImageTree, find_tree
from orchestrator.source.versions import complete_version, read_versions
from orchestrator.store.store import Store
from tests import images
from tests.conftest import ROOT, Mirror, QuietProgress, cowbell
from tests.images import BANNER, CONFIG, RELEASE

ELF = images.make_kernel(config=CONFIG)
NEWEST = DebianImageTree("debian-image-6.12", "6.12", "cloud", "trixie bookworm")


def read(tmp_path: Path, data: bytes) -> tuple[str, str, bytes]:
    path = tmp_path / "image"
    path.write_bytes(data)
    image = read_image(path)
    return image.arch, image.banner, image.boots


# --- formats


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-qc"], input=data, stdout=subprocess.PIPE, check=True).stdout


@pytest.mark.parametrize(
    "compress",
    [gzip.compress, lzma.compress, lambda data: lzma.compress(data, lzma.FORMAT_ALONE), zstd],
    ids=["gzip", "xz", "lzma", "zstd"],
)
def test_the_kernel_in_a_bzimage_boots_without_being_decompressed_in_the_guest(
    tmp_path: Path, compress: Callable[[bytes], bytes]
) -> None:
    assert read(tmp_path, images.make_bzimage(ELF, compress)) == ("x86_64", BANNER, ELF)


def test_without_pvh_the_bzimage_boots_itself(tmp_path: Path) -> None:
    image = images.make_bzimage(images.make_kernel(has_pvh=False))
    assert read(tmp_path, image) == ("x86_64", BANNER, image)


def test_images_of_arm64(tmp_path: Path) -> None:
    image = images.make_arm64()
    for form in (image, gzip.compress(image), images.make_zboot(image)):
        assert read(tmp_path, form) == ("aarch64", BANNER, image)


def test_version_and_config_are_read_from_the_image(tmp_path: Path) -> None:
    path = tmp_path / "bzImage"
    path.write_bytes(images.make_bzimage(ELF))
    image = read_image(path)
    assert (image.release, image.version, image.config) == (RELEASE, Version((6, 12, 118)), CONFIG)
    # the release of Debian's older kernels has no sublevel, the banner has
    old = "Linux version 5.10.0-46-cloud-amd64 (x) (gcc-10) #1 SMP Debian 5.10.262-1 (2026-07-31)"
    path.write_bytes(images.make_bzimage(images.make_kernel(old)))
    assert read_image(path).version == Version((5, 10, 262))


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (images.make_bzimage(ELF)[:-20], r"is truncated: it has \d+ of \d+ bytes"),
        (gzip.compress(images.make_arm64())[:-20], "is truncated: its compressed data does not end"),
        (images.make_zboot(images.make_arm64())[:-20], "is truncated"),
        (b"", "is no kernel image"),
        (b"root:x:0:0\n" * 100, "is no kernel image: expected a vmlinuz, bzImage, Image or vmlinux"),
        (images.make_kernel(has_pvh=False), "has no CONFIG_PVH"),
        (images.make_kernel(machine=183), "is an ELF file that QEMU does not boot"),
        (images.make_kernel(machine=3), "is an ELF file that QEMU does not boot"),
        (images.make_bzimage(images.make_kernel(machine=3)), "is a bzImage of a 32-bit kernel"),
        (images.make_bzimage(ELF, lambda data: b"XXXX" + data), "is compressed in an unknown way"),
        (images.make_arm64("no banner"), "is no Linux kernel"),
        (gzip.compress(gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"x"))))), "again and again"),
    ],
    # the images have times in them
    ids=lambda value: value if isinstance(value, str) else "image",
)
def test_what_cannot_be_booted_is_refused_with_the_reason(tmp_path: Path, data: bytes, what: str) -> None:
    with pytest.raises(UsageError, match=what) as error:
        read(tmp_path, data)
    assert str(tmp_path / "image") in str(error.value)


# --- what belongs to an image


def take(path: Path, store: Store, progress: QuietProgress, modules: str = "") -> Path:
    source = fetch_tree(ImageTree("image", str(path), modules), store, progress)
    return store.path(KIND, source.image)


def test_an_image_in_boot_has_its_config_and_modules(
    tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    image = images.make_boot(tmp_path)
    tree = ImageTree("image", str(image))
    assert find_fetched(tree, store) is None
    place = take(image, store, progress)
    assert (place / "config").read_text() == CONFIG
    assert (place / f"modules/lib/modules/{RELEASE}/kernel/ext4.ko.xz").is_file()
    # depmod was here
    assert (place / f"modules/lib/modules/{RELEASE}/modules.dep").is_file()
    told = json.loads((place / "image.json").read_text())
    assert (told["release"], told["banner"], told["arch"]) == (RELEASE, BANNER, "x86_64")
    source = find_fetched(tree, store)
    assert source
    assert (source.version, source.image) == (Version((6, 12, 118)), place.name)
    # another module is another kernel
    (tmp_path / f"lib/modules/{RELEASE}/kernel/jbd2.ko.xz").write_bytes(lzma.compress(b"\x7fELFchanged"))
    assert find_fetched(tree, store) is None


def test_a_bare_image_takes_modules_by_name(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(images.make_bzimage(ELF))
    with pytest.raises(UsageError, match=r"needs modules to boot \(VIRTIO_BLK, VIRTIO_NET, EXT4_FS\)"):
        take(image, store, progress)
    for given in (images.make_modules(tmp_path), tmp_path):
        assert (take(image, store, progress, str(given)) / f"modules/lib/modules/{RELEASE}").is_dir()
    images.make_modules(tmp_path, "6.1.0")
    with pytest.raises(UsageError, match="has modules of several kernels"):
        take(image, store, progress, str(tmp_path))
    with pytest.raises(
        UsageError, match=rf"has the modules of 6.1.0, and .*bzImage is {RELEASE}".replace("+", r"\+")
    ):
        take(image, store, progress, str(tmp_path / "lib/modules/6.1.0"))
    with pytest.raises(UsageError, match="there is no such folder"):
        take(image, store, progress, str(tmp_path / "nowhere"))


def test_an_image_without_config_says_so(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    image = tmp_path / "bzImage"
    image.write_bytes(images.make_bzimage(images.make_kernel()))
    assert not (take(image, store, progress) / "config").exists()
    assert "its config is unknown" in progress.notes[-1]


def test_a_config_of_another_kernel_is_refused(tmp_path: Path, store: Store, progress: QuietProgress) -> None:
    image = images.make_boot(tmp_path)
    image.write_bytes(images.make_bzimage(images.make_kernel(config=CONFIG.replace("SWAP=y", "KSM=y"))))
    with pytest.raises(UsageError, match=r"is not the config of vmlinuz-.*: 1 symbol\(s\) differ"):
        take(image, store, progress)


def test_a_kernel_that_cannot_be_a_guest_is_refused_before_it_boots(
    tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    config = CONFIG.replace("CONFIG_VIRTIO_NET=m\n", "").replace("CONFIG_BLK_DEV_INITRD=y\n", "")
    image = images.make_boot(tmp_path, config=config)
    with pytest.raises(UsageError, match="was built without VIRTIO_NET, BLK_DEV_INITRD"):
        take(image, store, progress)


def make_build_folder(folder: Path) -> Path:
    build = folder / "build"
    for name in ("arch/x86/boot", "include/config", "fs"):
        (build / name).mkdir(parents=True)
    (build / "arch/x86/boot/bzImage").write_bytes(images.make_bzimage(ELF))
    (build / ".config").write_text(CONFIG)
    (build / "include/config/kernel.release").write_text(f"{RELEASE}\n")
    (build / "fs/ext4.ko").write_bytes(b"\x7fELFext4")
    (build / "modules.order").write_text("fs/ext4.o\n")
    return build


def test_a_build_folder_has_its_modules_where_make_installs_them(
    tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    build = make_build_folder(tmp_path)
    place = take(build, store, progress)
    assert (place / f"modules/lib/modules/{RELEASE}/kernel/fs/ext4.ko").is_file()
    assert json.loads((place / "image.json").read_text())["headers"] == str(build)
    (build / "arch/x86/boot/bzImage").unlink()
    with pytest.raises(UsageError, match="has no image"):
        take(build, store, progress)


def test_packages_that_make_up_one_kernel_are_found_by_one_of_them(
    tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    packages = make_split_packages(tmp_path, tmp_path / "debs")
    place = take(packages[0], store, progress)
    assert (place / f"modules/lib/modules/{RELEASE}/kernel/ext4.ko.xz").is_file()
    packages[0].unlink()
    with pytest.raises(UsageError, match="contains no kernel image"):
        take(packages[1], store, progress)
    packages[1].write_bytes(packages[1].read_bytes()[:500])
    with pytest.raises(UsageError, match="is not a complete Debian package"):
        take(packages[1], store, progress)


def make_split_packages(folder: Path, target: Path, version: str = "6.12.118-1") -> list[Path]:
    """As since 7.2: the image in one package, the modules in another."""
    binary, modules = folder / "binary", folder / "modules"
    place = images.make_modules(modules / "usr")
    image = binary / "usr" / "lib" / "modules" / RELEASE / "vmlinuz"
    image.parent.mkdir(parents=True)
    image.write_bytes(images.make_bzimage(ELF))
    (place / "config").write_text(CONFIG)
    return [
        images.make_package(content, f"linux-{content.name}-{RELEASE}", version, target)
        for content in (binary, modules)
    ]


# --- the command line


@pytest.mark.parametrize("name", ["bzImage", "vmlinuz-6.12", "linux.deb", "build"])
def test_what_is_an_image_and_what_a_tree(tmp_path: Path, name: str) -> None:
    path = make_build_folder(tmp_path) if name == "build" else tmp_path / name
    if name != "build":
        path.write_bytes(b"x")
    assert isinstance(find_tree(str(path), {}), ImageTree)
    (tmp_path / "linux.tar.xz").write_bytes(b"x")
    assert not isinstance(find_tree(str(tmp_path / "linux.tar.xz"), {}), ImageTree)


def test_an_image_takes_no_series_and_a_tree_no_modules(tmp_path: Path) -> None:
    image = images.make_boot(tmp_path)
    done = cowbell("-n", "test", "ROW=demo", f"KERNEL={image}")
    assert (done.returncode, "demo/cow" in done.stdout) == (0, False)
    done = cowbell("-n", "test", "ROW=demo", "SERIES=cow", f"KERNEL={image}")
    assert done.returncode == 2
    assert "is a built kernel, to which no series can be applied" in done.stderr
    done = cowbell("-n", "test", "ROW=demo", "KERNEL=debian-5.10", "MODULES=/lib/modules")
    assert done.returncode == 2
    assert "MODULES: is for KERNEL= with the path of a kernel image" in done.stderr


def test_an_image_of_another_architecture_names_the_variable(tmp_path: Path, store: Store) -> None:
    image = tmp_path / "Image"
    image.write_bytes(images.make_arm64())
    done = cowbell("build", f"KERNEL={image}", COWBELL_STORE=str(store.root))
    assert (done.returncode, "add ARCH=aarch64" in done.stderr) == (2, True)


def test_without_a_row_it_is_the_row_for_built_kernels(tmp_path: Path) -> None:
    done = cowbell("-n", "test", f"KERNEL={images.make_boot(tmp_path)}")
    assert (done.returncode, "released/plain" in done.stdout) == (0, True)


def test_one_kernel_of_a_row_of_several_is_expected_what_the_row_expects() -> None:
    declared = load_declarations(ROOT)
    row = declared.rows["released"]
    (job,) = make_plan(Request(rows=("released",), tree="debian-image-6.12"), declared)
    assert (job.variant.name, job.row.tree) == ("plain", "debian-image-6.12")
    own = set(row.variants[0].expect)
    assert own and own <= set(job.variant.expect)


def test_a_guest_that_the_image_cannot_be_is_left_out_with_the_reason(tmp_path: Path, store: Store) -> None:
    image = images.make_boot(tmp_path)
    take(image, store, QuietProgress())
    done = cowbell("-n", "test", f"KERNEL={image}", COWBELL_STORE=str(store.root))
    assert "left out, the image was built without NUMA (numa)" in done.stdout


# --- Debian's images


@pytest.fixture
def offered(mirror: Mirror, tmp_path: Path) -> Mirror:
    """Images of two releases and flavours, meta packages, and packages of other kinds."""
    for suite, names in (
        ("trixie", (f"linux-binary-{RELEASE}_6.12.118-1", f"linux-modules-{RELEASE}_6.12.118-1",
                    f"linux-image-{RELEASE}_6.12.118-1", "linux-image-6.12.118+deb13-amd64_6.12.118-1",
                    f"linux-image-{RELEASE}-unsigned_6.12.118-1", "linux-image-cloud-amd64_6.12.118-1",
                    "linux-image-6.12.118+deb13-rt-amd64_6.12.118-1", f"linux-headers-{RELEASE}_6.12.118-1")),
        ("bookworm", ("linux-image-6.12.117+deb12-cloud-amd64_6.12.117-1~bpo12+1",
                      "linux-image-6.12-cloud-amd64_6.12.117-1~bpo12+1",
                      # of this one there are no modules any more
                      "linux-image-6.12.116+deb12-cloud-amd64_6.12.116-1",
                      "linux-binary-6.12.116+deb12-cloud-amd64_6.12.116-1",
                      "linux-image-6.1.0-57-cloud-amd64_6.1.192-3")),
    ):  # fmt: skip
        folder = mirror.folder.parent / suite
        folder.mkdir(exist_ok=True)
        for name in names:
            (folder / f"{name}_amd64.deb").touch()
    made = make_split_packages(tmp_path / "made", tmp_path / "made")
    for package in [
        *made,
        images.make_package(tmp_path / "meta", f"linux-image-{RELEASE}", "6.12.118-1", tmp_path),
    ]:
        shutil.copy(package, mirror.folder.parent / "trixie" / package.name)
    return mirror


def test_the_packages_of_a_version_are_found_by_the_names_of_a_flavour(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    fetch_tree(NEWEST, store, progress)
    first, second = read_image_offers(NEWEST, store)
    assert (first.version, first.suites) == ("6.12.118-1", ("trixie",))
    assert first.packages == (f"linux-image-{RELEASE}", f"linux-binary-{RELEASE}", f"linux-modules-{RELEASE}")
    # and not the meta package beside it
    assert second.packages == ("linux-image-6.12.117+deb12-cloud-amd64",)
    generic = DebianImageTree("x", "", "generic", "trixie bookworm")
    assert [one.packages for one in read_image_offers(generic, store)] == [
        ("linux-image-6.12.118+deb13-amd64",)
    ]
    every = DebianImageTree("x", "", "cloud", "trixie bookworm")
    assert [one.version for one in read_image_offers(every, store)][-1] == "6.1.192-3"


def test_a_released_kernel_is_downloaded_once(offered: Mirror, store: Store, progress: QuietProgress) -> None:
    source = fetch_tree(NEWEST, store, progress)
    assert (source.version, source.origin) == (Version((6, 12, 118)), f"linux-image-{RELEASE}_6.12.118-1")
    with offered.unreachable():
        assert fetch_tree(NEWEST, store, progress) == source
        exact = fetch_tree(NEWEST.at("6.12.118-1"), store, progress)
    assert exact == source and source.tree == "debian-image-6.12:6.12.118-1"
    found = {version.version: version.is_fetched for version in read_versions(NEWEST, store)}
    assert found == {"6.12.118-1": True, "6.12.117-1~bpo12+1": False}


def test_a_version_that_is_not_offered_names_the_nearest(
    offered: Mirror, store: Store, progress: QuietProgress
) -> None:
    every = DebianImageTree("debian-image", "", "cloud", "trixie bookworm", "6.1.190-1")
    with pytest.raises(UsageError, match=r"no image of version 6\.1\.190-1 for x86_64") as error:
        fetch_tree(every, store, progress)
    assert "the nearest ones: 6.1.192-3," in str(error.value)


def test_a_version_may_be_short() -> None:
    from orchestrator.source.versions import DebianVersion

    versions = [
        DebianVersion(one, (), is_fetched=False)
        for one in ("6.12.117-2~deb12u1", "6.12.117-1", "6.12.117-1~bpo12+1", "6.12.11-1", "6.1.1-1~bpo12+1")
    ]
    assert complete_version("6.12.117", versions) == "6.12.117-1"
    assert complete_version("6.12.117-1~bpo12+1", versions) == "6.12.117-1~bpo12+1"
    assert complete_version("6.1.1", versions) == "6.1.1-1~bpo12+1"
    assert not complete_version("6.12.1", versions)


# --- what it boots with


def test_modules_come_after_those_that_they_need(tmp_path: Path) -> None:
    (tmp_path / "modules.dep").write_text(
        "kernel/ext4.ko.xz: kernel/jbd2.ko.xz kernel/mbcache.ko.xz\n"
        "kernel/jbd2.ko.xz:\nkernel/mbcache.ko.xz:\n"
        "kernel/virtio_blk.ko.xz: kernel/virtio.ko.xz kernel/virtio_ring.ko.xz\n"
        "kernel/virtio.ko.xz: kernel/virtio_ring.ko.xz\nkernel/virtio_ring.ko.xz:\n"
        "kernel/crc32c_generic.ko.xz:\nkernel/other.ko.xz:\n"
    )
    (tmp_path / "modules.softdep").write_text("# comment\nsoftdep ext4 pre: crc32c post: other\n")
    (tmp_path / "modules.alias").write_text("alias pci:v00001AF4* virtio_pci\nalias crc32c crc32c_generic\n")
    names = [path.name.partition(".")[0] for path in modules.list_first(tmp_path)]
    assert sorted(names) == [
        "crc32c_generic",
        "ext4",
        "jbd2",
        "mbcache",
        "virtio",
        "virtio_blk",
        "virtio_ring",
    ]
    for needed, needing in (
        ("virtio_ring", "virtio"), ("virtio", "virtio_blk"), ("jbd2", "ext4"), ("crc32c_generic", "ext4"),
    ):  # fmt: skip
        assert names.index(needed) < names.index(needing)


def test_a_kernel_that_was_built_here_has_a_disk_if_it_has_modules(tmp_path: Path, store: Store) -> None:
    """A selftest loads hwpoison_inject; nothing loads what is built in."""
    request = SimpleNamespace(build_id="0123", source=SimpleNamespace(image=""))
    kernel = Kernel(request, tmp_path / "kernel", tmp_path / "image", "ab")  # type: ignore[arg-type]
    rootfs = Rootfs("root", tmp_path)
    listed = kernel.folder / "modules/lib/modules/7.3.4"
    listed.mkdir(parents=True)
    (listed / "modules.builtin").write_text("kernel/mm/zsmalloc.ko\n")
    assert modules.make_modules(kernel, rootfs, store) is None
    (listed / "kernel").mkdir()
    (listed / "kernel/hwpoison-inject.ko").write_bytes(b"module")
    (kernel.folder / "config").write_text("CONFIG_HWPOISON_INJECT=m\n")
    made = modules.make_modules(kernel, rootfs, store)
    assert made and not made.initrd
    done = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "ls -p /modules/7.3.4/kernel", made.disk],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "/hwpoison-inject.ko/6/" in done.stdout


def test_the_archive_is_one_that_cpio_would_unpack() -> None:
    files = {"init": b"#!/bin/busybox sh\n", "modules/00-virtio": b"odd"}
    packed, found, at = modules.pack(files, ("dev",)), {}, 0
    while packed[at : at + 6] == b"070701":
        fields = [int(packed[at + 6 + i * 8 : at + 14 + i * 8], 16) for i in range(13)]
        size, length = fields[6], fields[11]
        name = packed[at + 110 : at + 110 + length - 1].decode()
        begin = -(-(at + 110 + length) // 4) * 4
        found[name] = (oct(fields[1]), packed[begin : begin + size])
        at = -(-(begin + size) // 4) * 4
    assert found == {
        "dev": ("0o40755", b""),
        "modules": ("0o40755", b""),
        "init": ("0o100755", files["init"]),
        "modules/00-virtio": ("0o100755", b"odd"),
        "TRAILER!!!": ("0o0", b""),
    }


# --- a compiler that is not installed


def test_a_program_is_started_by_the_loader_of_its_toolbox(tmp_path: Path) -> None:
    box = tmp_path / "tool box"
    programs = box / "usr" / "bin"
    programs.mkdir(parents=True)
    shutil.copy("/bin/echo", programs / "echo")
    (programs / "script").write_text("#!/bin/sh\n")
    # the well-known name of the loader leads out of the toolbox
    (box / "lib64").mkdir()
    (box / "lib64/ld-linux-x86-64.so.2").symlink_to("/nowhere")
    with pytest.raises(InfraError, match="has no loader"):
        toolbox.wrap(programs / "echo", box)
    (box / "usr/lib").mkdir()
    (box / "usr/lib/x-linux-gnu").symlink_to(f"/usr/lib/{platform.machine()}-linux-gnu")
    assert list(toolbox.list_elf(programs)) == [programs / "echo"]
    toolbox.wrap(programs / "echo", box)
    # its own loader and libraries, and not those of the host
    maps = subprocess.run([programs / "echo", "a b"], capture_output=True, text=True, check=True)
    assert maps.stdout == "a b\n"
    assert str(box) in (programs / "echo").read_text()
