# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes the evidence of a run: a bundle for each failing trial, and the files to which its page links.

Files that are no longer in the store are listed in MISSING. The same record and store give identical
archives.
"""

import dataclasses
import hashlib
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from orchestrator.kernel.prebuilt import PATCHES
from orchestrator.report.replay import make_command
from orchestrator.result.record import JobRecord, LocalFile, RunRecord, TrialResult, load_result
from orchestrator.result.stored import name_trace
from orchestrator.result.verdict import Verdict, judge_trial
from orchestrator.source.repository import export_patches
from orchestrator.status import Status
from orchestrator.store.pack import pack
from orchestrator.store.store import Store, write_atomic

# size limit of one file in bytes; the middle of a longer one is left out
MEMBER_LIMIT = 4 << 20
_FAILING = (Status.FAIL, Status.CRASH, Status.TIMEOUT, Status.BROKEN)


def is_failing(verdict: Verdict) -> bool:
    """Whether a trial gets a bundle; also if its failure was expected."""
    return verdict.raw in _FAILING


def name_bundle(job: JobRecord, result: TrialResult) -> str:
    trial = f".{result.trial}" if result.trial > 1 else ""
    return f"{result.test.replace('/', '-')}.{job.row}.{job.variant}{trial}.tar.zst"


def make_bundles(run: RunRecord, store: Store, folder: Path) -> list[Path]:
    """Write a bundle for each failing trial to a folder; replaces bundles of the same name.

    Raises ``InfraError`` if zstd is not installed.
    """
    made = []
    for job in run.jobs:
        failing: dict[tuple[str, int], TrialResult] = {}
        for result in job.results:
            if any(map(is_failing, judge_trial(job, result))):
                failing[result.test, result.trial] = result
        if not failing:
            continue
        shared = dict(_list_job_members(job, store))
        for result in failing.values():
            members = {**shared, **dict(_list_result_members(run, job, result, store))}
            path = folder / name_bundle(job, result)
            if path.exists() and not store.path("kernels", job.build_id or "none").is_dir():
                # it was imported and has the kernel, which is not in this store
                continue
            _publish(_pack(path.name.removesuffix(".tar.zst"), members), path)
            made.append(path)
    return made


def write_files(run: RunRecord, store: Store, folder: Path) -> None:
    """Write the config, the patches, the console logs and the traces of each job, as far as they are there.

    They are plain text that a browser shows.
    """
    for job in run.jobs:
        members = dict(_list_job_members(job, store))
        found = {"config": members["kernel/config"], "series": members.get(PATCHES)}
        # the first result of each boot finds its folder
        for boot, result in {result.boot: result for result in reversed(job.results)}.items():
            place = _find_boot(result, store)
            found[boot] = _read(place / "console.log") if place else None
        for result in (result for result in job.results if result.trace):
            name = name_trace(result.test, result.trial)
            place = _find_boot(result, store)
            found[name] = _read(place / name) if place else None
        for what, content in found.items():
            if content is not None:
                write_atomic(folder / name_file(job, what), content)


def name_file(job: JobRecord, what: str) -> str:
    """The name of a job's ``config``, its ``series``, the console log of a boot, or a trace."""
    return f"{job.row}.{job.variant}.{what}.txt"


def _list_job_members(job: JobRecord, store: Store) -> Iterator[tuple[str, bytes | None]]:
    """The files that all trials on one kernel share; None for missing ones."""
    fields = dataclasses.asdict(job)
    yield "job.json", _as_json({key: fields[key] for key in fields if key not in ("results", "tests")})
    kernel = store.path("kernels", job.build_id or "none")
    yield "kernel/config", _read(kernel / "config")
    yield "kernel/build.json", _read(kernel / "build.json")
    if job.commit and job.commit != job.base:
        yield PATCHES, _read(kernel / PATCHES) or export_patches(store, job.base, job.commit)


def _list_result_members(
    run: RunRecord, job: JobRecord, result: TrialResult, store: Store
) -> Iterator[tuple[str, bytes | None]]:
    yield "REPLAY", f"#!/bin/sh\n{make_command(run, job, result.test)}\n".encode()
    yield "result.json", _as_json(dataclasses.asdict(result))
    yield "verdicts.json", _as_json([dataclasses.asdict(verdict) for verdict in judge_trial(job, result)])
    yield "console.log", _encode(result.console)
    yield "said.log", _encode(result.said)
    yield "stdout", _encode(result.stdout)
    yield "stderr", _encode(result.stderr)
    if file := job.files.get(result.test):
        yield from _list_program(file)
    boot = _find_boot(result, store)
    for name in ("qemu.json", "qemu.log", "console.log"):
        yield f"boot/{name}", _read(boot / name) if boot else None
    if result.trace:
        # not by its path: the record may be of another machine
        yield "trace", _read(boot / name_trace(result.test, result.trial)) if boot else None


def _find_boot(result: TrialResult, store: Store) -> Path | None:
    """The folder of a result's boot, found by the stored result, as a record does not name its variant.

    Boots of other machines have different names here.
    """
    found: dict[str, Path] = {}
    for path in sorted(
        store.path("results").glob(f"*/{_escape(result.test)}.{result.content_id[:12]}*.json")
    ):
        known = load_result(path)
        if known and (known.console, known.stdout) == (result.console, result.stdout):
            found.setdefault(known.boot, path.parent / known.boot)
    return found.get(result.boot, next(iter(found.values()), None))


def _escape(test: str) -> str:
    return "".join(f"[{char}]" if char in "*?[" else char for char in test)


def _read(path: Path) -> bytes | None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            if size <= MEMBER_LIMIT:
                return file.read(MEMBER_LIMIT)
            head = file.read(MEMBER_LIMIT // 2)
            file.seek(size - MEMBER_LIMIT // 2)
            left_out = f"\n[{size - MEMBER_LIMIT} bytes left out]\n".encode()
            return head + left_out + file.read(MEMBER_LIMIT // 2)
    except OSError:
        return None


def _list_program(file: LocalFile) -> Iterator[tuple[str, bytes | None]]:
    """The file of a test, or all files of its folder."""
    place = Path(file.path)
    for part in file.parts or (file,):
        path = place / part.path if file.parts else place
        name = f"program/{place.name}/{part.path}" if file.parts else f"program/{place.name}"
        yield name, _encode(part.text) if part.text else _read_same(path, part.sha256)


def _read_same(path: Path, sha256: str) -> bytes | None:
    """A file, if it is still the one that was run."""
    content = _read(path)
    return content if content is not None and hashlib.sha256(content).hexdigest() == sha256 else None


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")


def _as_json(value: object) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _pack(name: str, members: Mapping[str, bytes | None]) -> bytes:
    packed = io.BytesIO()
    missing = sorted(path for path, content in members.items() if content is None)
    added = {"MISSING": "".join(f"{path}\n" for path in missing).encode()} if missing else {}
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in sorted({**members, **added}.items()):
            if content is not None:
                member = tarfile.TarInfo(f"{name}/{path}")
                member.size, member.mode = len(content), 0o755 if path == "REPLAY" else 0o644
                archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _publish(content: bytes, path: Path) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        pack(Path(file.name), path)
