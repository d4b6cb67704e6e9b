# SPDX-License-Identifier: GPL-2.0-or-later
"""A request and the declarations in, jobs out, with every wrong word of the request told at once.

Nothing is fetched, built or looked up in the store here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from orchestrator.project.arch import ARCHES
from orchestrator.project.yamlfile import suggest
from orchestrator.project.guesttest import SELFTEST, GuestCase, is_match, select_cases
from orchestrator.project.knownissues import KnownSplat
from orchestrator.project.matrix import Cell, Expectation, Row
from orchestrator.project.guest import find_misfits, list_needs
from orchestrator.errors import InfraError, UsageError, raise_all
from orchestrator.guest.vng import FRAGMENT
from orchestrator.kernel.fragment import Fragment
from orchestrator.source.fixup import Fixup
from orchestrator.source.series import Series
from orchestrator.source.tree import AbsentTree, Tree

if TYPE_CHECKING:
    # pydantic takes a while, and who lists rows has no use for it
    from orchestrator.kernel.prebuilt import Handover


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, in the words of the command line; empty means the row's own.

    ``boot`` is ``qemu`` or ``vng``, or empty for ``vng`` where the kernel is made for it.
    """

    rows: tuple[str, ...] = ()
    tree: str = ""
    series: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    arch: str = ""
    config: tuple[str, ...] = ()
    accel: str = "auto"
    boot: str = "qemu"


@dataclass(frozen=True, slots=True)
class Declarations:
    """All that the project's files declare, by name.

    ``own`` names what is of the user's own folder, by the kinds of ``cowbell list``. ``built`` are kernels
    that were built elsewhere, by ROW/CELL; where there are any, they alone are meant.
    """

    rows: Mapping[str, Row]
    trees: Mapping[str, Tree]
    series: Mapping[str, Series]
    fragments: Mapping[str, Fragment]
    cases: tuple[GuestCase, ...]
    expectations: tuple[Expectation, ...] = ()
    fixups: tuple[Fixup, ...] = ()
    known_splats: tuple[KnownSplat, ...] = ()
    built: "Mapping[str, Handover]" = field(default_factory=dict)
    own: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @property
    def usual_rows(self) -> tuple[str, ...]:
        """The rows that are meant where none is named: the user's own where there are any."""
        own = self.own.get("rows")
        return tuple(name for name in self.rows if not own or name in own)


@dataclass(frozen=True, slots=True)
class Job:
    """One kernel of one row, who boots it, and the cases to run on it.

    ``built`` is the kernel, where it comes from elsewhere.
    """

    row: Row
    cell: Cell
    tree: Tree
    series: Series
    cases: tuple[GuestCase, ...]
    boot: str = "qemu"
    built: "Handover | None" = None

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.cell.name}"


def make_plan(request: Request, declared: Declarations) -> tuple[Job, ...]:
    """The jobs in the order of the matrix, a row's kernel without series first.

    Raises ``UsageError`` for every unknown row, tree, series, fragment or case at once, and ``InfraError``
    where kernels of ``BUILT=`` are asked for that are not there.
    """
    errors: list[UsageError] = []
    rows = [
        declared.rows[name]
        for name in dict.fromkeys(request.rows or declared.usual_rows)
        if _is_known(name, declared.rows, "row", "ROW", errors)
    ]
    if request.tree and _is_known(request.tree, declared.trees, "kernel", "KERNEL", errors):
        rows = [replace(row, tree=request.tree) for row in rows]
    if request.arch and _is_known(request.arch, ARCHES, "architecture", "ARCH", errors):
        rows = [replace(row, arch=request.arch) for row in rows]
    if request.config:
        rows = [replace(row, kconfig=request.config) for row in rows]
    if request.boot == "vng":
        rows = [replace(row, kconfig=tuple(dict.fromkeys((*row.kconfig, FRAGMENT)))) for row in rows]
    wanted = tuple(name for name in dict.fromkeys(request.series) if name != "none")
    for name in wanted:
        _is_known(name, declared.series, "series", "SERIES", errors)
    asked = _choose_cases(declared, request.tests, "TESTS", errors) if request.tests else ()
    jobs: list[Job] = []
    for row in rows:
        where = f"{row.where or 'matrix.yaml'}: row {row.name}"
        for name in row.kconfig:
            blamed = "CONFIG" if request.config else where
            _is_known(name, declared.fragments, "fragment", blamed, errors)
        changed = [name.upper() for name in ("arch", "config") if getattr(request, name)]
        blamed = f"{', '.join(changed)}: row {row.name}" if changed else ""
        errors += check_machine(row, declared.fragments, blamed)
        cases = asked if request.tests else _choose_cases(declared, row.tests, where, errors)
        boot = request.boot or ("vng" if FRAGMENT in row.kconfig else "qemu")
        if declared.built:
            jobs += _list_built(row, cases, boot, declared.built, errors)
            continue
        cells = _choose_cells(row, request.series, wanted)
        for cell in cells:
            # an unknown word of the request has been told already
            blame = errors if cell in row.cells else []
            known = _is_known(row.tree, declared.trees, "kernel", where, errors)
            if cell.series and not _is_known(cell.series, declared.series, "series", where, blame):
                continue
            if known:
                series = declared.series[cell.series] if cell.series else Series()
                jobs.append(Job(row, cell, declared.trees[row.tree], series, cases, boot))
    raise_all(list({str(error): error for error in errors}.values()))
    jobs = [replace(job, cell=_add_expectations(job.cell, job.cases, declared)) for job in jobs]
    if unbuilt := [row.name for row in rows if declared.built and row.name not in {j.row.name for j in jobs}]:
        # where it was to be built something went wrong that was not the kernel's fault
        told = f"there is no kernel of row {', '.join(unbuilt)}, nor a reason why"
        raise InfraError(told, where="BUILT", hint=f"there are: {', '.join(declared.built)}")
    return tuple(jobs)


def _add_expectations(cell: Cell, cases: Sequence[GuestCase], declared: Declarations) -> Cell:
    """The cell with what is expected of its tests in every row, after what its own row says."""
    names = [name for case in cases for name in (case.id, *case.subtests)]
    undeclared = tuple(f"{case.id}/" for case in cases if not case.subtests)
    return replace(
        cell,
        expect=cell.expect
        + tuple(
            expected
            for expected in declared.expectations
            if cell.series in expected.series
            and (expected.test.startswith(undeclared) or any(is_match(expected.test, name) for name in names))
        ),
    )


def _list_built(
    row: Row,
    cases: tuple[GuestCase, ...],
    boot: str,
    built: "Mapping[str, Handover]",
    errors: list[UsageError],
) -> Iterator[Job]:
    """A job for each kernel of the row that was built elsewhere."""
    own = [handover for handover in built.values() if handover.row == row.name]
    for case in cases:
        if case.language == SELFTEST:
            what = f"{case.id} is compiled from the kernel's source, and only kernels are here"
            errors.append(UsageError(what, where="BUILT"))
    cells = {cell.name: cell for cell in row.cells}
    # in the order of the row, the kernel without series first
    own.sort(key=lambda one: (list(cells).index(one.cell) if one.cell in cells else len(cells), one.cell))
    for handover in sorted(own, key=lambda one: bool(one.series)):
        cell = cells.get(handover.cell, Cell(handover.cell, handover.series, ()))
        yield Job(row, cell, AbsentTree(handover.base.tree), Series(handover.series), cases, boot, handover)


def check_machine(row: Row, fragments: Mapping[str, Fragment], blamed: str = "") -> Iterator[UsageError]:
    """What the row's guest asks for, and its config or its architecture's page size can not give.

    Each is told where the row says it, or ``blamed`` for it.
    """
    known = [fragments[name] for name in row.kconfig if name in fragments]
    symbols = {request.symbol: request.value for fragment in known for request in fragment.requests}

    def where(key: str) -> str:
        return blamed or str(row.places.get(key, row.places[""]))

    for need in list_needs(row.guest):
        if symbols.get(need.symbol) != "y":
            having = [
                fragment.name
                for fragment in fragments.values()
                if any((need.symbol, "y") == (r.symbol, r.value) for r in fragment.requests)
            ]
            yield UsageError(
                f"{need.key}: needs {need.symbol}, and no fragment of the row asks for it",
                where=where(need.key),
                hint=f"add to kconfig: {' or '.join(having) or 'a fragment that sets it'}",
            )
    for key, what in find_misfits(row.guest, row.arch, symbols):
        yield UsageError(what, where=where(key))


def _choose_cases(
    declared: Declarations, globs: Sequence[str], where: str, errors: list[UsageError]
) -> tuple[GuestCase, ...]:
    try:
        return select_cases(declared.cases, globs, where)
    except* UsageError as group:
        errors += (error for error in group.exceptions if isinstance(error, UsageError))
    return ()


def _choose_cells(row: Row, asked: Sequence[str], wanted: Sequence[str]) -> tuple[Cell, ...]:
    """The row's cells; with SERIES= the one without series, and one for each series asked for."""
    if not asked:
        return row.cells
    plain = [cell for cell in row.cells if not cell.series] or [Cell("plain", "", ())]
    known = {cell.series: cell for cell in row.cells}
    return (*plain, *(known.get(name, Cell(name, name, ())) for name in wanted))


def _is_known(
    name: str, known: Mapping[str, object], kind: str, where: str, errors: list[UsageError]
) -> bool:
    if name in known:
        return True
    hint = f"there are: {', '.join(known)}"
    errors.append(UsageError(f"there is no {kind} {name}{suggest(name, known)}", where=where, hint=hint))
    return False
