# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels: built once, rebuilt by the file, the same bytes everywhere, and failures that name their cause."""

import hashlib
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import InfraError, StageFailure
from orchestrator.kernel import hostneeds
from orchestrator.kernel.build import (
    Kernel,
    build_kernel,
    check_config,
    find_kernel,
    find_toolchain,
    read_gnu_build_id,
)
from orchestrator.kernel.fragment import SymbolRequest
from orchestrator.kernel.hostneeds import check_host_needs
from orchestrator.kernel.kconfig import Config
from orchestrator.kernel.kconfigreason import make_environment
from orchestrator.kernel.newwarnings import find_flags
from orchestrator.process import command
from orchestrator.project.arch import ARCHES
from orchestrator.source.apply import apply_series
from orchestrator.source.fetch import fetch_tree
from orchestrator.source.repository import Source
from orchestrator.store.store import Store
from tests.conftest import (
    FAKE_TREE,
    FAKELINUX,
    MakeSeries,
    QuietProgress,
    find_processes,
    start_python,
    wait_for,
)
from tests.kernels import X86, build, request_build, write_config

REUSE = {"mm/memory.c": ("	if (references != 1)\n", "	if (references != 1 && mapcount != 1)\n")}
EVERY_FILE = {"init/main.o", "mm/memory.o", "mm/swap.o"}


@pytest.fixture
def config(base: Source, tmp_path: Path) -> Config:
    return write_config(tmp_path / "kconfigs", base)


def compiled(kernel: Kernel) -> set[str]:
    lines = (kernel.folder / "build.log").read_text().splitlines()
    return {line.split()[1] for line in lines if line.split()[:1] == ["CC"]}


def list_kernels(store: Store) -> list[Path]:
    folder = store.root / "kernels"
    return [path for path in folder.glob("*") if not path.name.startswith(".")]


def test_kernel_folder(base: Source, config: Config, store: Store, progress: QuietProgress) -> None:
    kernel = build(base, config, store, progress)
    assert {path.name for path in kernel.folder.iterdir()} == {
        "vmlinux",
        "config",
        "build.log",
        "build.json",
    }
    assert kernel.image == kernel.folder / "vmlinux"
    assert kernel.image.read_bytes().startswith(b"\x7fELF")
    assert kernel.gnu_build_id == read_gnu_build_id(kernel.image)
    assert len(kernel.gnu_build_id) == 40
    assert "CONFIG_SWAP=y\n" in (kernel.folder / "config").read_text()
    told = json.loads((kernel.folder / "build.json").read_text())
    assert "KBUILD_BUILD_HOST=cowbell" in told["make"]
    assert told["warnings"] == []
    assert told["ccache"] == {"hits": 0, "misses": len(EVERY_FILE)}
    assert told["vmlinux_sha256"] == hashlib.sha256(kernel.image.read_bytes()).hexdigest()
    assert compiled(kernel) == EVERY_FILE
    assert progress.stages[-2:] == [("kconfig", "fake-5.10 5.10.226"), ("build", "fake-5.10 5.10.226")]
    assert [done for done, _, _ in progress.counts] == [1, 2, 3]


def test_second_time_it_is_found(base: Source, config: Config, store: Store, progress: QuietProgress) -> None:
    assert find_kernel(request_build(base, config), store) is None
    kernel = build(base, config, store, progress)
    stages = list(progress.stages)
    assert build(base, config, store, progress) == kernel
    assert find_kernel(request_build(base, config), store) == kernel
    assert progress.stages == stages


def test_series_compiles_what_it_touches(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    plain = build(base, config, store, progress)
    patched = build(
        apply_series(base, make_series("cow", REUSE), (), store, progress), config, store, progress
    )
    assert compiled(patched) == {"mm/memory.o"}
    assert patched.gnu_build_id != plain.gnu_build_id
    # and back: the next commit's build starts from what this one left
    other = make_series("other", {"mm/swap.c": ("entry + 1", "entry + 2")})
    assert compiled(build(apply_series(base, other, (), store, progress), config, store, progress)) == {
        "mm/memory.o",
        "mm/swap.o",
    }


def test_image_is_one_that_the_config_can_boot(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    """QEMU starts an ELF kernel by PVH; without it the compressed image boots."""
    kernel = build(
        base, write_config(tmp_path / "1", base, "CONFIG_SWAP=y\nCONFIG_BLOCK=y\n"), store, progress
    )
    assert kernel.image == kernel.folder / "bzImage"
    assert kernel.gnu_build_id == read_gnu_build_id(kernel.folder / "vmlinux")
    assert find_kernel(kernel.request, store) == kernel


def test_modules_are_installed_without_links_to_this_machine(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    kernel = build(
        base, write_config(tmp_path / "1", base, "CONFIG_PVH=y\nCONFIG_MODULES=y\n"), store, progress
    )
    found = [path for path in (kernel.folder / "modules").rglob("*") if not path.is_dir()]
    assert found == [kernel.folder / "modules/lib/modules/5.10.226/kernel/lib/frob.ko"]


def test_what_ccache_knew_is_reported(
    base: Source, config: Config, store: Store, progress: QuietProgress
) -> None:
    build(base, config, store, progress)
    shutil.rmtree(store.root / "trees")
    kernel = build_kernel(request_build(base, config), store, progress, limit_s=60, redo=True)
    told = json.loads((kernel.folder / "build.json").read_text())
    assert told["ccache"] == {"hits": len(EVERY_FILE), "misses": 0}


@pytest.mark.parametrize("is_another_store", [False, True])
def test_objects_are_the_same_wherever_the_tree_is(
    base: Source,
    config: Config,
    store: Store,
    tmp_path: Path,
    progress: QuietProgress,
    monkeypatch: pytest.MonkeyPatch,
    is_another_store: bool,
) -> None:
    monkeypatch.setenv("CCACHE_DIR", str(tmp_path / "ccache"))
    first = build(base, config, store, progress)
    other = Store(tmp_path / "elsewhere" / "store") if is_another_store else store
    src = fetch_tree(FAKE_TREE, other, progress)
    elsewhere = replace(src, tree="another-name", source_id="another-id")
    second = build(elsewhere, config, other, progress)
    assert second.source_dir != first.source_dir
    told = json.loads((second.folder / "build.json").read_text())
    assert told["ccache"] == {"hits": len(EVERY_FILE), "misses": 0}
    assert second.image.read_bytes() == first.image.read_bytes()


def test_other_config_is_another_kernel(
    base: Source, tmp_path: Path, store: Store, progress: QuietProgress
) -> None:
    one = build(base, write_config(tmp_path / "1", base), store, progress)
    other = build(base, write_config(tmp_path / "2", base, "CONFIG_PVH=y\n"), store, progress)
    assert one.request.build_id != other.request.build_id
    assert one.gnu_build_id != other.gnu_build_id


def test_same_input_gives_the_same_bytes(
    base: Source,
    config: Config,
    store: Store,
    tmp_path: Path,
    progress: QuietProgress,
    make_series: MakeSeries,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A series built on top of the base's objects, and from nothing in another store by somebody else."""
    series = make_series("cow", REUSE)
    build(base, config, store, progress)
    one = build(apply_series(base, series, (), store, progress), config, store, progress)
    monkeypatch.setenv("USER", "somebody")
    monkeypatch.setenv("LOCALVERSION", "-mine")
    monkeypatch.setenv("KBUILD_BUILD_HOST", "elsewhere")
    store2 = Store(tmp_path / "other")
    base2 = fetch_tree(FAKE_TREE, store2, progress)
    two = build(apply_series(base2, series, (), store2, progress), config, store2, progress)
    assert compiled(two) == EVERY_FILE
    assert one.request.build_id == two.request.build_id
    assert one.image.read_bytes() == two.image.read_bytes()


def test_configs_of_a_family_share_a_build_folder(base: Source, config: Config) -> None:
    one, other = (replace(config, config_id=name, family="these") for name in "ab")
    assert (
        request_build(base, one).folder_id
        == request_build(base, other).folder_id
        != request_build(base, config).folder_id
    )
    assert request_build(base, one).build_id != request_build(base, other).build_id


def test_redo_builds_again(base: Source, config: Config, store: Store, progress: QuietProgress) -> None:
    kernel = build(base, config, store, progress)
    (kernel.folder / "vmlinux").write_text("spoiled")
    again = build_kernel(request_build(base, config), store, progress, limit_s=60, redo=True)
    assert again == kernel
    assert again.image.read_bytes().startswith(b"\x7fELF")


def test_compile_error_is_shown_and_its_log_kept(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    bad = make_series(
        "bad", {"mm/memory.c": ("static int copies;\n", "static int copies;\n#error no pages\n")}
    )
    with pytest.raises(StageFailure) as raised:
        build(apply_series(base, bad, (), store, progress), config, store, progress)
    error = raised.value
    assert error.stage == "build"
    assert "mm/memory.c:3:2: error: #error no pages" in error.hint.splitlines()[0]
    assert ">     3: #error no pages" in error.hint
    assert "      4: " in error.hint
    assert error.log
    assert "#error no pages" in error.log.read_text()
    assert list_kernels(store) == []
    # the objects that did compile are good, and the next build does not start anew
    assert "mm/swap.o" not in compiled(build(base, config, store, progress))
    assert error.log.exists()


def test_warnings_are_kept(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    series = make_series("warn", {"mm/swap.c": ("int swap_in", "static int unused;\nint swap_in")})
    kernel = build(apply_series(base, series, (), store, progress), config, store, progress)
    (warning,) = json.loads((kernel.folder / "build.json").read_text())["warnings"]
    assert "unused" in warning


def test_warnings_of_w_1_that_a_series_brings_out(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    """Of the touched files only, and not those that were there before, on whatever line they are now."""
    series = make_series(
        "warn",
        {"mm/swap.c": ("int swap_in", "int swap_more(void)\n{\n\treturn 2;\n}\n\nint swap_in")},
    )
    plain = build(base, config, store, progress)
    assert json.loads((plain.folder / "build.json").read_text())["new_warnings"] == []
    kernel = build(apply_series(base, series, (), store, progress), config, store, progress)
    told = json.loads((kernel.folder / "build.json").read_text())
    (warning,) = told["new_warnings"]
    assert warning.startswith("mm/swap.c:")
    assert "no previous prototype for 'swap_more' [-Wmissing-prototypes]" in warning
    assert told["warnings"] == []


@pytest.mark.parametrize("name", ["Makefile.extrawarn", "Makefile.warn"])
def test_the_flags_of_w_1_are_in_a_file_of_two_names(tmp_path: Path, name: str) -> None:
    scripts = tmp_path / "scripts"
    shutil.copytree(FAKELINUX / "scripts", scripts)
    (scripts / "Makefile.extrawarn").rename(scripts / name)
    assert "-Wmissing-prototypes" in find_flags(tmp_path, tmp_path, ["ARCH=x86_64", "CC=gcc"])


def test_clean_series_brings_no_warnings_out(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    kernel = build(
        apply_series(base, make_series("cow", REUSE), (), store, progress), config, store, progress
    )
    assert json.loads((kernel.folder / "build.json").read_text())["new_warnings"] == []


def fail(how: str, base: Source, store: Store, progress: QuietProgress, make_series: MakeSeries) -> Source:
    return apply_series(base, make_series(how, {"FAIL": ("", f"{how}\n")}), (), store, progress)


def test_link_error_is_the_kernel_s(
    base: Source, config: Config, store: Store, progress: QuietProgress, make_series: MakeSeries
) -> None:
    with pytest.raises(StageFailure, match="undefined reference to `reuse_swap_page'"):
        build(fail("linker", base, store, progress, make_series), config, store, progress)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("full", "no space left on device"),
        ("oom", "killed|memory"),
        ("killed", "killed|signal|status -9"),
        ("hang", "make did not end within"),
    ],
)
def test_host_s_trouble_is_not_the_kernel_s(
    base: Source,
    config: Config,
    store: Store,
    progress: QuietProgress,
    make_series: MakeSeries,
    how: str,
    told: str,
) -> None:
    with pytest.raises(InfraError, match=f"(?i){told}"):
        build(
            fail(how, base, store, progress, make_series),
            config,
            store,
            progress,
            limit_s=2 if how == "hang" else 60,
        )
    assert list_kernels(store) == []
    assert find_processes(str(store.root)) == []
    assert build(base, config, store, progress).image.exists()


def test_objects_of_a_killed_build_are_not_trusted(
    base: Source,
    config: Config,
    store: Store,
    progress: QuietProgress,
    make_series: MakeSeries,
    tmp_path: Path,
) -> None:
    hanging = make_series("hang", {"FAIL": ("", "hang\n")})
    script = (
        "import sys; from pathlib import Path\n"
        "from orchestrator.source.fetch import fetch_tree\n"
        "from orchestrator.source.series import load_series\n"
        "from orchestrator.source.apply import apply_series\n"
        "from orchestrator.store.store import Store; from tests import conftest, kernels\n"
        "store, progress = Store(Path(sys.argv[1])), conftest.QuietProgress()\n"
        "base = fetch_tree(conftest.FAKE_TREE, store, progress)\n"
        "src = apply_series(base, load_series(Path(sys.argv[2])), (), store, progress)\n"
        "kernels.build(src, kernels.write_config(Path(sys.argv[3]), src), store, progress)\n"
    )
    words = [store.root, hanging.patches[0].path.parent, tmp_path / "kconfigs"]
    with start_python(script, *words):
        wait_for(lambda: len(list(store.root.glob("trees/*/*/*/*.o"))) == len(EVERY_FILE))
    wait_for(lambda: not find_processes(f"O={store.root}"))
    (build_dir,) = {path.parents[1] for path in store.root.glob("trees/*/*/*/*.o")}
    (build_dir / "mm/memory.o").write_bytes(b"half an object")
    kernel = build(base, config, store, progress)
    assert compiled(kernel) == EVERY_FILE
    assert any("killed" in note for note in progress.notes)
    assert list_kernels(store) == [kernel.folder]


def test_toolchain_is_part_of_the_identity(base: Source, config: Config) -> None:
    known = request_build(base, config)
    other = replace(known, toolchain=replace(known.toolchain, identity="gcc 99"))
    assert known.build_id != other.build_id
    assert known.folder_id != other.folder_id
    assert "gcc" in known.toolchain.identity


def test_compiler_of_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CC= and LLVM=1 compile the kernel, never the guest tests, and are part of the identity."""
    for name in ("gcc", "ld", "gcc-99", "clang", "ld.lld", "llvm-ar", "ccache"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name} 1.0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    gnu, other, llvm = find_toolchain(X86), find_toolchain(X86, "gcc-99"), find_toolchain(X86, llvm="1")
    assert gnu.compiler == other.compiler == llvm.compiler == str(tmp_path / "gcc")
    assert gnu.make_words == ("ARCH=x86_64", "CC=ccache gcc")
    assert other.make_words == ("ARCH=x86_64", "CC=ccache gcc-99")
    assert llvm.make_words == ("ARCH=x86_64", "LLVM=1", "CC=ccache clang")
    assert gnu.identity == "gcc 1.0 ld 1.0"
    assert other.identity == "gcc-99 1.0 ld 1.0"
    assert llvm.identity == "LLVM=1 clang 1.0 ld.lld 1.0"


def test_llvm_of_a_version_or_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel's makefiles since 5.18 have it, but on every kernel."""
    (tmp_path / "llvm").mkdir()
    for name in ("gcc", "clang-15", "ld.lld-15", "llvm-ar-15", "llvm/clang", "llvm/ld.lld", "llvm/llvm-ar"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name.replace('-15', '')} 15.0\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    suffix = find_toolchain(X86, llvm="-15")
    assert {"LLVM=1", "LD=ld.lld-15", "OBJCOPY=llvm-objcopy-15", "HOSTCC=clang-15"} < set(suffix.make_words)
    assert suffix.make_words[-1].endswith("clang-15")
    assert suffix.identity == "LLVM=1 clang 15.0 ld.lld 15.0"
    folder = find_toolchain(X86, llvm=f"{tmp_path}/llvm/")
    assert f"LD={tmp_path}/llvm/ld.lld" in folder.make_words
    assert folder.make_words[-1].endswith(f"{tmp_path}/llvm/clang")
    environment = make_environment(tmp_path, "6.1", suffix.make_words)
    assert (environment["LD"], environment["CC"]) == ("ld.lld-15", "clang-15")
    with pytest.raises(InfraError, match=r"ld\.lld-16 is not installed") as raised:
        find_toolchain(X86, llvm="-16")
    assert raised.value.hint == "apt-get install --no-install-recommends lld-16 llvm-16"


def test_what_a_config_needs_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pahole", "lz4", "gcc", "setpriv"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/true")
    monkeypatch.setattr(command, "find_path", lambda: str(tmp_path))
    check_host_needs(["DEBUG_INFO_BTF", "KERNEL_LZ4", "SMP"], "x")
    (tmp_path / "pahole").unlink()
    (tmp_path / "lz4").unlink()
    (tmp_path / "gcc").unlink()
    (tmp_path / "gcc").symlink_to("/bin/false")
    with pytest.raises(InfraError) as raised:
        check_host_needs(["DEBUG_INFO_BTF", "KERNEL_LZ4", "SMP", "MODULE_SIG_FORMAT"], "x")
    assert raised.value.what == (
        "the config needs pahole (for DEBUG_INFO_BTF), libelf.h (for DEBUG_INFO_BTF), "
        "openssl/opensslv.h (for MODULE_SIG_FORMAT), lz4 (for KERNEL_LZ4)"
    )
    assert raised.value.hint == "apt-get install --no-install-recommends dwarves libelf-dev libssl-dev lz4"


def test_what_is_missing_on_the_host_is_found_before_the_build(
    base: Source, config: Config, store: Store, progress: QuietProgress, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what is requested, as Kconfig may drop it, and by what is set."""
    monkeypatch.setattr(hostneeds, "_is_there", lambda need: False)
    asked = SymbolRequest("DEBUG_INFO_BTF", "y", "x")
    known = request_build(base, replace(config, requests=(*config.requests, asked)))
    with pytest.raises(InfraError, match="needs pahole"):
        check_config(known, store, progress)
    monkeypatch.setitem(hostneeds._NEEDS, "pahole", ("dwarves", ("PVH",)))
    optional = replace(config, requests=tuple(replace(r, is_optional=True) for r in config.requests))
    with pytest.raises(InfraError, match="needs pahole"):
        check_config(request_build(base, optional), store, progress)


def test_missing_compiler_names_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for arch in ARCHES.values():
        package = "gcc" if arch.is_native else arch.cross_packages
        with pytest.raises(InfraError, match="gcc is not installed") as raised:
            find_toolchain(arch)
        assert raised.value.hint == f"apt-get install --no-install-recommends {package}"


def test_image_without_build_id(tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("int a;\n")
    subprocess.run(["gcc", "-c", "a.c"], cwd=tmp_path, check=True)
    with pytest.raises(InfraError, match="has no GNU build id"):
        read_gnu_build_id(tmp_path / "a.o")


def test_fakelinux_needs_nothing_of_the_caller() -> None:
    """What makes the small kernel fail is in its tree, never in the environment that a command filters."""
    assert not (FAKELINUX / "FAIL").exists()
