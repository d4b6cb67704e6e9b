# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels that are not built here, in guests: a released one with modules, a build folder, a bare image."""

import shutil
from pathlib import Path

import pytest

from orchestrator.result.record import load_run
from orchestrator.result.verdict import judge_job
from orchestrator.status import Status
from tests.conftest import cowbell_with_store

pytestmark = pytest.mark.kernel


def test_a_released_kernel_needs_no_build(kernel_store_root: Path) -> None:
    """Its drivers are modules, and one of the tests needs a module of ours."""
    words = ("KERNEL=debian-image-6.12", "TESTS=odirect.rd-mprotect,ropin.shared,swap.shared-entry")
    done = cowbell_with_store(kernel_store_root, "test", *words)
    assert done.returncode == 0, done.stdout + done.stderr
    (job,) = load_run(kernel_store_root / "runs" / "latest" / "record.json").jobs
    assert (job.tree.partition(":")[0], job.version.rpartition(".")[0]) == ("debian-image-6.12", "6.12")
    assert job.origin.startswith("linux-image-6.12.")
    verdicts = judge_job(job)
    assert {verdict.status for verdict in verdicts} == {Status.PASS}, done.stdout
    # nothing is done twice
    again = cowbell_with_store(kernel_store_root, "-n", "test", *words)
    assert again.stdout.count("up to date") == 4, again.stdout


MODULE = """#include <linux/module.h>

static int __init tried_init(void)
{
	%s;
	return 0;
}

static void __exit tried_exit(void)
{
}

module_init(tried_init);
module_exit(tried_exit);
MODULE_LICENSE("GPL");
"""


def test_modules_as_reproducers(kernel_store_root: Path, tmp_path: Path) -> None:
    """One is loaded and removed, one has a script and splats, one does not compile for this kernel."""
    body = {"loads": 'pr_info("loaded\\n")', "splats": "WARN_ON(1)", "wrong": "return no_such_name"}
    for name, line in body.items():
        folder = tmp_path / name
        folder.mkdir()
        (folder / "Kbuild").write_text("obj-m := tried.o\n")
        (folder / "tried.c").write_text(MODULE % line)
    (tmp_path / "splats/run.sh").write_text("test $1 = x || exit 9\nbusybox insmod ./tried.ko\n")
    found = {}
    for name in body:
        words = ("-s", "test", "KERNEL=debian-image-6.12", f"TESTS={tmp_path / name}")
        cowbell_with_store(kernel_store_root, *words, *(("--", "x") if name == "splats" else ()))
        (job,) = load_run(kernel_store_root / "runs" / "latest" / "record.json").jobs
        (found[name],) = judge_job(job)
    assert found["loads"].status is Status.PASS, found["loads"]
    assert found["splats"].status is Status.CRASH and "tried_init" in found["splats"].fingerprint
    wrong = found["wrong"]
    assert wrong.status is Status.BROKEN and ": tried.c:5:" in wrong.reason, wrong


def test_a_build_folder_and_an_image_alone(kernel_store_root: Path, tmp_path: Path) -> None:
    """Without a patch the row's bug is there, whoever built the kernel."""
    built = cowbell_with_store(kernel_store_root, "build", "ROW=demo", "SERIES=none")
    kernel = Path(built.stdout.strip()).parent
    folder = tmp_path / "build"
    folder.mkdir()
    shutil.copy(kernel / "vmlinux", folder)
    shutil.copy(kernel / "config", folder / ".config")
    row = ("ROW=demo", "SERIES=none", "TESTS=odirect.rd-mprotect,odirect.rd-control")
    for path in (folder, shutil.copy(kernel / "vmlinux", tmp_path / "image")):
        done = cowbell_with_store(kernel_store_root, "test", *row, f"KERNEL={path}")
        assert done.returncode == 0, done.stdout + done.stderr
        (job,) = load_run(kernel_store_root / "runs" / "latest" / "record.json").jobs
        found = {verdict.name: verdict.status for verdict in judge_job(job)}
        assert found == {"odirect.rd-mprotect": Status.XFAIL, "odirect.rd-control": Status.PASS}
