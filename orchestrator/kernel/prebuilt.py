# SPDX-License-Identifier: GPL-2.0-or-later
"""Exports kernels for another machine, with all that a run needs, and imports such prebuilt kernels.

A folder of prebuilt kernels has a ``BUILD_ID/`` folder for each kernel, as in the store, and a
``ROW.VARIANT.json`` for each variant of a row, including those that failed to build. The guest root image and
the compiled tests are beside them, compressed and named by their ids.
"""

import contextlib
import hashlib
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, TypeAdapter, ValidationError

from orchestrator.errors import InfraError, StageFailure, UsageError, raise_all
from orchestrator.kernel.build import BuildRequest, Kernel, find_kernel
from orchestrator.source.repository import Source, export_patches
from orchestrator.store.name import check_name, is_name
from orchestrator.store.pack import pack, unpack
from orchestrator.store.store import Store, make_folder, make_id, write_json

# series and fixups of a prebuilt kernel
PATCHES = "patches.mbox"
SCHEMA = "cowbell-built-2"


# they become paths
_Name = Annotated[str, AfterValidator(check_name)]


@dataclass(frozen=True, slots=True)
class BuildFailure:
    """Why there is no kernel, in the fields of ``StageFailure``."""

    stage: str
    what: str
    where: str
    hint: str


@dataclass(frozen=True, slots=True)
class Prebuilt:
    """A prebuilt kernel of a row, or the reason why there is none.

    ``base`` is the commit of the tree, ``source`` the source that was built. ``toolchain`` has the versions
    of the compiler, ``programs`` the ids of the compiled tests of the row. Without a kernel, ``left_out`` or
    ``trouble`` has the reason. ``folder`` is where it was read from.
    """

    row: _Name
    variant: _Name
    series: str
    base: Source
    source: Source | None = None
    toolchain: str = ""
    config_id: str = ""
    build_id: _Name | Literal[""] = ""
    rootfs_id: _Name | Literal[""] = ""
    programs: tuple[_Name, ...] = ()
    left_out: str = ""
    trouble: BuildFailure | None = None
    schema: str = SCHEMA
    folder: str = ""

    @property
    def name(self) -> str:
        return f"{self.row}/{self.variant}"

    def find_source(self) -> Source:
        """The built source; raises the ``StageFailure`` of the build if it failed."""
        if self.trouble:
            raise StageFailure(
                self.trouble.stage, self.trouble.what, where=self.trouble.where, hint=self.trouble.hint
            )
        assert self.source
        return self.source

    def check(self, request: BuildRequest) -> None:
        """Raise ``UsageError`` for a kernel of another request, ``InfraError`` for a damaged one."""
        folder = Path(self.folder) / self.build_id
        if request.build_id != self.build_id:
            what = "has a different config than its row" if request.config.config_id != self.config_id else (
                "was built by another version of cowbell, or with different test modules"
            )  # fmt: skip
            hint = (
                f"cowbell build ROW={self.row} DIR={self.folder} builds it again, with the same "
                "CONFIG=, BOOT=, DEBUG= and TRACE="
            )
            raise UsageError(f"the kernel of {self.name} {what}", where=str(folder), hint=hint)
        try:
            build = json.loads((folder / "build.json").read_bytes())
            with (folder / ("image" if build.get("banner") else "vmlinux")).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            is_image = is_name(build["image"]) and (folder / build["image"]).is_file()
            float(build["wall_s"])
            proof = build.get("banner") or bytes.fromhex(build["gnu_build_id"])
            files = (self.packed_rootfs, *self._list_archives())
            is_whole = is_image and digest == build["vmlinux_sha256"] and proof
            is_whole = is_whole and all(path.is_file() for path in files)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            is_whole = False
        if not is_whole:
            raise InfraError(f"the kernel of {self.name} is incomplete", where=str(folder))

    @property
    def packed_rootfs(self) -> Path:
        return Path(self.folder) / f"root-{self.rootfs_id}.img.zst"

    def _list_archives(self) -> list[Path]:
        return [_find_archive(Path(self.folder), self.programs)] if self.programs else []

    def take_programs(self, store: Store) -> None:
        """Copy the compiled tests into the store like those that were compiled here.

        Raises ``InfraError`` if the archive is damaged or incomplete.
        """
        if all(store.use("programs", name).is_dir() for name in self.programs):
            return
        (archive,) = self._list_archives()
        taken: set[str] = set()
        with tempfile.TemporaryDirectory(dir=store.path("programs").parent) as place:
            unpack(archive, Path(place) / "tar")
            with contextlib.suppress(tarfile.TarError), tarfile.open(Path(place) / "tar") as packed:
                for member in packed:
                    # nothing but PROGRAM_ID/TEST, whatever else an archive may contain
                    found = re.fullmatch(r"([0-9a-f]+)/(\w[\w.-]*)", member.name)
                    if found and found[1] in self.programs and member.isfile():
                        program_id, name = found.groups()
                        store.publish("programs", program_id, partial(_extract, packed, member, name))
                        taken.add(program_id)
        if taken != set(self.programs):
            raise InfraError(f"the compiled tests of {self.name} are incomplete", where=str(archive))

    def take_kernel(self, request: BuildRequest, store: Store) -> Kernel:
        """The kernel, copied into the store like one that was built here; see ``check``."""

        store.publish("kernels", self.build_id, partial(_copy_folder, Path(self.folder) / self.build_id))
        kernel = find_kernel(request, store)
        assert kernel
        return kernel


_PREBUILT = TypeAdapter(Prebuilt)


def _extract(packed: tarfile.TarFile, member: tarfile.TarInfo, name: str, draft: Path) -> None:
    content = packed.extractfile(member)
    assert content
    (draft / name).write_bytes(content.read())
    (draft / name).chmod(0o755)


def _copy_folder(source: Path, draft: Path) -> None:
    shutil.copytree(source, draft, dirs_exist_ok=True)


def _find_archive(folder: Path, programs: Sequence[str]) -> Path:
    return folder / f"programs-{make_id(programs)}.tar.zst"


def export_programs(programs: Mapping[str, Path], folder: Path) -> tuple[str, ...]:
    """Write compiled tests, by program id, to a folder of prebuilt kernels; returns their ids."""
    names = tuple(sorted(programs))
    path = _find_archive(folder, names)
    if names and not path.exists():
        with tempfile.NamedTemporaryFile() as file:
            with tarfile.open(fileobj=file, mode="w") as archive:
                for name in names:
                    archive.add(programs[name], f"{name}/{programs[name].name}")
            file.flush()
            pack(Path(file.name), path)
    return names


def export_kernel(prebuilt: Prebuilt, kernel: Kernel | None, target: Path, store: Store) -> None:
    """Write a kernel, or the reason why there is none, to a folder; replaces an earlier export."""
    make_folder(target)
    if kernel:
        request = kernel.request
        place = target / request.build_id
        if not place.exists():
            draft = Path(tempfile.mkdtemp(prefix=".", dir=target))
            shutil.copytree(kernel.folder, draft, dirs_exist_ok=True)
            src = request.source
            if patches := export_patches(store, src.base, src.commit) if src.commit != src.base else None:
                (draft / PATCHES).write_bytes(patches)
            draft.chmod(0o755)
            draft.rename(place)
        prebuilt = replace(
            prebuilt,
            source=request.source,
            toolchain=request.toolchain.identity,
            config_id=request.config.config_id,
            build_id=request.build_id,
        )
    path = target / f"{prebuilt.row}.{prebuilt.variant}.json"
    write_json(path, asdict(replace(prebuilt, folder="")))


def load_prebuilt(folders: Sequence[Path]) -> Mapping[str, Prebuilt]:
    """The prebuilt kernels of folders, by ``ROW/VARIANT``; raises all errors at once as ``UsageError``."""
    found: dict[str, Prebuilt] = {}
    errors: list[UsageError] = []
    for folder in folders:
        if not folder.is_dir():
            errors.append(UsageError("there is no such folder", where=f"BUILT={folder}"))
        for path in sorted(folder.glob("*.json")):
            try:
                prebuilt = _PREBUILT.validate_python(json.loads(path.read_bytes()), extra="forbid")
            except (OSError, ValueError, ValidationError) as error:
                reason = str(error).splitlines()[0]
                errors.append(UsageError(f"is not a prebuilt kernel: {reason}", where=str(path)))
                continue
            if prebuilt.schema != SCHEMA:
                errors.append(UsageError(f"has schema {prebuilt.schema}, expected {SCHEMA}", where=str(path)))
            if other := found.get(prebuilt.name):
                what = f"is a second kernel of {prebuilt.name}, the first is in {other.folder}"
                errors.append(UsageError(what, where=str(path)))
            found[prebuilt.name] = replace(prebuilt, folder=str(folder.resolve()))
    raise_all(errors)
    return found
