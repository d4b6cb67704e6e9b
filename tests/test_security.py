# SPDX-License-Identifier: GPL-2.0-or-later
"""What docs/security.md claims, as far as it needs no guest."""

import json
import re
import shutil
from pathlib import Path

import pytest

from orchestrator.guest.connection import _OUTPUT_LIMIT
from orchestrator.guest.serial import LIMIT
from orchestrator.process import command
from tests.conftest import ROOT, cowbell

PAGE = (ROOT / "docs/security.md").read_text()


def test_programs_see_few_variables_of_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CI_JOB_TOKEN", "SSH_AUTH_SOCK", "LD_PRELOAD", "MAKEFLAGS", "KBUILD_OUTPUT", "PYTHONPATH"):
        monkeypatch.setenv(name, "secret")
    for name in ("PATH", "HOME", "USER", "TMPDIR"):
        assert f"`{name}`" in PAGE
    env = command.run([command.find_tool("env", "coreutils")]).output
    assert "secret" not in env
    assert {line.partition("=")[0] for line in env.splitlines()} <= {
        "PATH", "HOME", "USER", "TMPDIR", "LC_ALL", *re.findall(r"^(?:CCACHE|SSL_CERT)_\w+", env, re.M),
        *re.findall(r"^\w+_(?:proxy|PROXY)", env, re.M),
    }  # fmt: skip


def test_limits_of_output() -> None:
    assert (LIMIT, _OUTPUT_LIMIT) == (1 << 20, 1 << 20)
    assert PAGE.count("1 MiB") == 2


@pytest.mark.parametrize("words", [("list", "tests"), ("-n", "test", "ROW=demo", "TESTS=own.*")], ids=str)
def test_tests_of_an_overlay_are_not_run_on_the_host(tmp_path: Path, words: tuple[str, ...]) -> None:
    folder, proof = tmp_path / "guest-tests" / "own", tmp_path / "proof"
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "guest-tests" / "odirect" / "rd-control.c", folder / "c-test.c")
    found = next(path for path in ROOT.glob("guest-tests/*/*.py") if path.parent.name != "lib")
    code = f"open({json.dumps(str(proof))}, 'w')\n"
    (folder / "py-test.py").write_text(re.sub(r"(?m)^(?=TEST = )", code, found.read_text(), count=1))
    assert code in (folder / "py-test.py").read_text()
    done = cowbell("-C", str(tmp_path), *words)
    assert done.returncode == 0, done.stderr
    assert not proof.exists()
