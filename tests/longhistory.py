# SPDX-License-Identifier: GPL-2.0-or-later
"""A git history of 64 commits upon a real kernel, in which one flips tests, and some are in the way.

``v0`` is the kernel as it is. Of the commits after it, FLIP is the patch of the series ``cow``. BROKEN_BUILD
and the one after it do not build, PANICS and the one after it panic at boot. From CRASHES on,
remap_file_pages(), which no test uses, crashes the kernel; before it, at CRASHES_ELSEWHERE and the one after,
munlockall() does. Odd ones change no code, so that their images are those of their parents; the others
change a little of mm/.
"""

from pathlib import Path

from tests.conftest import ROOT
from tests.gitserver import run_git

COMMITS = 64
FLIP = 37
BROKEN_BUILD = 32
PANICS = 39
CRASHES = 24
CRASHES_ELSEWHERE = 20
_FILES = ("mm/mempool.c", "mm/dmapool.c", "mm/vmstat.c", "mm/util.c")
_PATCH = ROOT / "patches/cow/0001-mm-reuse-anonymous-pages-by-mapcount.patch"


def make_long_history(place: Path, repository: Path, commit: str) -> list[str]:
    """A checkout in ``place`` on branch main, upon a commit of a repository; its commits, ``v0`` first."""
    start_history(place, repository, commit)
    return [commit, *(_add(place, number) for number in range(1, COMMITS + 1))]


def make_short_history(place: Path, repository: Path, commit: str, mark: int) -> None:
    """The same with eight commits that change code in mm/; the fifth is the patch, none is in the way.

    With another ``mark`` they are other commits.
    """
    start_history(place, repository, commit)
    for number in (2, 4, 6, 8, FLIP, 10, 12, 14):
        _add(place, number, mark)


def start_history(place: Path, repository: Path, commit: str) -> None:
    """A checkout on branch main at a commit of a repository, whose objects it borrows; tagged v0."""
    place.mkdir(parents=True)
    run_git(place, "init", "-q", "-b", "main")
    (place / ".git/objects/info/alternates").write_text(f"{repository / 'objects'}\n")
    (place / ".git/shallow").write_text(f"{commit}\n")
    run_git(place, "reset", "-q", "--hard", commit)
    run_git(place, "tag", "v0")


def _add(place: Path, number: int, mark: int = 0) -> str:
    file = place / _FILES[number % len(_FILES)]
    text = file.read_text()
    if number == FLIP:
        run_git(place, "am", "-q", "--3way", str(_PATCH))
        return run_git(place, "rev-parse", "HEAD")
    if number in (BROKEN_BUILD, BROKEN_BUILD + 2):
        file, what = place / "mm/init-mm.c", "break the build"
        text, line = file.read_text(), '#error "in the way"\n'
        text = text + line if number == BROKEN_BUILD else text.replace(line, "")
    elif number in (PANICS, PANICS + 2):
        file, what = place / "init/main.c", "panic at boot"
        text, line = file.read_text(), "\trest_init();\n"
        panicking = f'\tpanic("in the way");\n{line}'
        text = text.replace(line, panicking) if number == PANICS else text.replace(panicking, line)
    elif number == CRASHES:
        file, what = place / "mm/mmap.c", "check the size in remap_file_pages"
        text, line = file.read_text(), '\tpr_warn_once("%s (%d) uses deprecated remap_file_pages()'
        text = text.replace(line, f"\tBUG_ON(size > PAGE_SIZE);\n{line}")
    elif number in (CRASHES_ELSEWHERE, CRASHES_ELSEWHERE + 2):
        file, what = place / "mm/mlock.c", "check the flags in munlockall"
        text, line = file.read_text(), "SYSCALL_DEFINE0(munlockall)\n{\n\tint ret;\n"
        crashing = f"{line}\n\tBUG_ON(!current->mm->def_flags);\n"
        text = text.replace(line, crashing) if number == CRASHES_ELSEWHERE else text.replace(crashing, line)
    elif number % 2:
        what = "say something in a comment"
        text += f"/* change {number} */\n"
    else:
        what = "add a function"
        text += f"int change_{number}(void);\nint change_{number}(void)\n{{\n\treturn {mark};\n}}\n"
    file.write_text(text)
    run_git(place, "add", "-f", str(file))
    run_git(place, "commit", "-q", "-m", f"mm: change {number}, {what}")
    return run_git(place, "rev-parse", "HEAD")
