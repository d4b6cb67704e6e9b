# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the W=1 warnings that a series adds.

Every touched file that was compiled is compiled again with the flags of W=1, and if it has warnings, the file
without the series as well. The objects of the build are not touched.
"""

import re
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from orchestrator.process import command

# computes the W=1 flags as the top Makefile of the tree does; Makefile.extrawarn is Makefile.warn in 7.3
_FLAGS = """\
KBUILD_CFLAGS :=
KBUILD_CPPFLAGS :=
-include $(objtree)/include/config/auto.conf
include $(srctree)/scripts/Kbuild.include
-include $(srctree)/scripts/Makefile.compiler
include $(or $(wildcard $(srctree)/scripts/Makefile.extrawarn),$(srctree)/scripts/Makefile.warn)
flags: ; @echo $(KBUILD_CPPFLAGS) $(KBUILD_CFLAGS)
"""
_COMPILED_BY = re.compile(r"^(?:saved)?cmd_\S+ := (.*?)(?:\s;.*)?$", re.M)
_DROPPED = re.compile(r"-Wp,-MM?D\S*|-c|ccache")
_LIMIT_S = 300


def find_new_warnings(
    worktree: Path, base: str, commit: str, build_dir: Path, make_words: Sequence[str]
) -> list[str]:
    """New warnings in the C files that differ between two commits; the later one is checked out and built.

    A warning that also occurs without the series, on any line, is not new. ``make_words`` select the
    toolchain. Files that this config does not compile are skipped.
    """
    git = [command.find_tool("git", "git"), "-C", str(worktree)]
    listed = command.run([*git, "diff", "--name-only", "--diff-filter=d", base, commit, "--", "*.c"])
    commands = {name: _find_command(build_dir, name) for name in listed.output.splitlines()}
    if not any(commands.values()):
        return []
    flags = find_flags(worktree, build_dir, make_words)
    found: list[str] = []
    for name, argv in commands.items():
        if not argv:
            continue
        after = _compile(name, (worktree / name).read_bytes(), [*argv, *flags], worktree, build_dir)
        if not after:
            continue
        old = command.run([*git, "show", f"{base}:{name}"], check=False)
        text = old.output.encode() if old.returncode == 0 else b""
        before = Counter(map(_without_place, _compile(name, text, [*argv, *flags], worktree, build_dir)))
        for line in after:
            if before[_without_place(line)]:
                before[_without_place(line)] -= 1
            else:
                found.append(line)
    return found


def _find_command(build_dir: Path, name: str) -> list[str]:
    """The compiler command of a file, without input and output; empty if it was not compiled."""
    path = build_dir / Path(name).parent / f".{Path(name).stem}.o.cmd"
    match = _COMPILED_BY.search(path.read_text()) if path.exists() else None
    if not match:
        return []
    *words, _ = shlex.split(match[1].replace("$(pound)", "#").replace("$$", "$"))
    output = words.index("-o")
    del words[output : output + 2]
    return [word for word in words if not _DROPPED.fullmatch(word)]


def find_flags(worktree: Path, build_dir: Path, make_words: Sequence[str]) -> list[str]:
    """The compiler flags of W=1."""
    places = [f"srctree={worktree}", f"objtree={build_dir}"]
    words = [*make_words, *places, "KBUILD_EXTRA_WARN=1", "CONFIG_CC_IS_GCC=y"]
    done = command.run([command.find_tool("make", "make"), "-s", "-f", "-", *words], stdin=_FLAGS.encode())
    return shlex.split(done.output.splitlines()[-1])


def _compile(name: str, text: bytes, argv: Sequence[str], worktree: Path, build_dir: Path) -> list[str]:
    """The warnings for a file with the given content."""
    folder = worktree / Path(name).parent
    done = command.run(
        [*argv, "-iquote", str(folder), "-x", "c", "-c", "-o", "/dev/null", "-"],
        cwd=build_dir,
        stdin=f'# 1 "{name}"\n'.encode() + text,
        deadline=command.Deadline.after(_LIMIT_S),
        check=False,
    )
    return [line for line in done.output.splitlines() if line.startswith(f"{name}:") and "warning:" in line]


def _without_place(line: str) -> str:
    return re.sub(r":\d+", "", line)
