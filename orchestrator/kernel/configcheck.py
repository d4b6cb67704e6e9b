# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the ``.config`` of a source before anything is compiled, and without a worktree.

Kconfig reads a small part of a tree, and runs on a copy of that part. Switching a worktree to another
commit and back would change time stamps, and everything that includes the files would be rebuilt.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from orchestrator.errors import StageFailure
from orchestrator.kernel.kconfig import Config, configure
from orchestrator.source.repository import Source, checkout, export_files, list_files
from orchestrator.store.store import Store, make_id

# the Kconfig files, and the scripts and makefiles that run Kconfig or are run by it
_PART = re.compile(
    r"(?!\.config$)[^/]+|(.*/)?Kconfig[^/]*|scripts/.*|arch/(.*/)?Makefile[^/]*|arch/[^/]+/tools/.*",
    re.DOTALL,
)


@contextlib.contextmanager
def open_kconfig_tree(source: Source, store: Store) -> Iterator[Path]:
    """A folder with the part of a source that Kconfig reads; removed at the end of the block."""
    with _open_part(_list_part(source, store), store) as folder:
        yield folder


def find_dotconfig(config: Config, source: Source, words: Sequence[str], identity: str, store: Store) -> Path:
    """The folder in which ``make_dotconfig`` keeps its ``.config``, whether or not it is there."""
    return store.path("configs", _make_key(config, _list_part(source, store), words, identity))


def _make_key(config: Config, part: str, words: Sequence[str], identity: str) -> str:
    return make_id(part, config.config_id, identity, list(words))


def make_dotconfig(
    config: Config,
    source: Source,
    words: Sequence[str],
    identity: str,
    store: Store,
    env: Mapping[str, str],
    run: Callable[[Callable[[], str]], str],
) -> str:
    """The ``.config``; made once for all sources with the same Kconfig files.

    ``words`` is the make command, ``identity`` the versions of the compiler. ``run`` is called with a
    function that runs Kconfig, if needed. Raises ``StageFailure`` naming every requested symbol that was
    dropped or changed, with the reason.
    """
    part = _list_part(source, store)
    key = _make_key(config, part, words, identity)

    def make(tree: Path, folder: Path) -> str:
        return run(lambda: configure(config, tree, folder, [*words, f"O={folder}"], env))

    def fill(draft: Path) -> None:
        with store.scratch(f"config-{key}") as folder:
            try:
                with _open_part(part, store) as tree:
                    text = make(tree, folder)
            except StageFailure as error:
                # Kconfig itself failed, perhaps because of a file that was not copied
                if not error.log:
                    raise
                with checkout(source, store) as tree, _keep_log(store.path("logs", f"kconfig-{key}.log")):
                    text = make(tree, folder)
        (draft / "config").write_text(text)

    return (store.publish("configs", key, fill) / "config").read_text()


@contextlib.contextmanager
def _keep_log(place: Path) -> Iterator[None]:
    """Copy the log of an error, because its folder is removed."""
    try:
        yield
    except StageFailure as error:
        if error.log:
            error.log = Path(shutil.copy(error.log, place))
        raise


def _list_part(source: Source, store: Store) -> str:
    lines = list_files(store, source.commit).splitlines()
    return "\n".join(line for line in lines if _PART.fullmatch(line.partition("\t")[2]))


@contextlib.contextmanager
def _open_part(part: str, store: Store) -> Iterator[Path]:
    with store.scratch(f"kconfig-{make_id(part)}") as folder:
        export_files(store, part, folder)
        yield folder
