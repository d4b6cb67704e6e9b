# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes jobs from a request and the declarations, and reports all usage errors at once.

Nothing is fetched, built or looked up in the store here.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import InfraError, UsageError, raise_all
from orchestrator.guest.vng import FRAGMENT
from orchestrator.kernel.fragment import Fragment
from orchestrator.kernel.symbols import DEBUG_FRAGMENT
from orchestrator.project.arch import ARCHES
from orchestrator.project.guest import GuestShape, find_misfits, list_needs
from orchestrator.project.guesttest import SELFTEST, GuestTest, is_match, select_tests
from orchestrator.project.knownissues import KnownIssue
from orchestrator.project.matrix import Expectation, Row, Variant
from orchestrator.project.selftest import FRAGMENT as SELFTEST_FRAGMENT
from orchestrator.project.trace import FRAGMENT as TRACE_FRAGMENT
from orchestrator.project.yamlfile import suggest
from orchestrator.source.fixup import Fixup
from orchestrator.source.series import Series
from orchestrator.source.tree import IMAGES, AbsentTree, DebianImageTree, Tree
from orchestrator.store.name import is_name, make_name
from orchestrator.store.store import make_id

if TYPE_CHECKING:
    # pydantic takes a while, and who lists rows has no use for it
    from orchestrator.kernel.prebuilt import Prebuilt


# the row of a kernel that is not built here, where none is named
IMAGE_ROW = "released"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, in the words of the command line; empty means the row's own.

    ``added`` are fragments and symbols for the config of every row. ``boot`` is ``qemu`` or ``vng``, or empty
    for ``vng`` where the kernel is made for it. ``programs`` are the paths of ``TESTS=``, of which ``tests``
    has the ids. ``debug`` and ``trace`` add the fragments with debug info and with ftrace. ``append``, kernel
    parameters, and ``qemu``, arguments, are added to every guest.
    """

    rows: tuple[str, ...] = ()
    tree: str = ""
    series: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    arch: str = ""
    config: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    accel: str = "auto"
    boot: str = "qemu"
    debug: bool = False
    trace: bool = False
    append: str = ""
    qemu: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Declarations:
    """All that the project's files declare, by name.

    ``own`` names what is of the user's own folder, by the kinds of ``cowbell list``. ``built`` are kernels
    that were built elsewhere, by ROW/VARIANT; where there are any, they alone are meant. ``faults`` are the
    errors of fragments and series by KIND/NAME: they stop only what uses these.
    """

    rows: Mapping[str, Row]
    trees: Mapping[str, Tree]
    series: Mapping[str, Series]
    fragments: Mapping[str, Fragment]
    tests: tuple[GuestTest, ...]
    expectations: tuple[Expectation, ...] = ()
    fixups: tuple[Fixup, ...] = ()
    known_splats: tuple[KnownIssue, ...] = ()
    built: "Mapping[str, Prebuilt]" = field(default_factory=dict)
    own: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faults: Mapping[str, tuple[UsageError, ...]] = field(default_factory=dict)

    def find_faults(self, kind: str, names: Iterable[str]) -> list[UsageError]:
        """The errors in the files of some ``fragments`` or ``series``."""
        return [error for name in names for error in self.faults.get(f"{kind}/{name}", ())]

    @property
    def named_trees(self) -> dict[str, Tree]:
        """The trees that are declared, without the versions of them that rows name."""
        return {name: tree for name, tree in self.trees.items() if ":" not in name}

    @property
    def usual_rows(self) -> tuple[str, ...]:
        """The rows that are meant where none is named: the user's own where there are any."""
        own = self.own.get("rows")
        return tuple(name for name in self.rows if not own or name in own)


@dataclass(frozen=True, slots=True)
class Job:
    """One kernel of one row, who boots it, and the tests to run on it.

    ``built`` is the kernel, where it comes from elsewhere.
    """

    row: Row
    variant: Variant
    tree: Tree
    series: Series
    tests: tuple[GuestTest, ...]
    boot: str = "qemu"
    built: "Prebuilt | None" = None

    @property
    def name(self) -> str:
        return f"{self.row.name}/{self.variant.name}"


def make_plan(request: Request, declared: Declarations) -> tuple[Job, ...]:
    """The jobs in the order of the matrix, a row's kernel without series first.

    Raises ``UsageError`` for every unknown row, tree, series, fragment or test at once, and ``InfraError``
    where kernels of ``BUILT=`` are asked for that are not there.
    """
    errors: list[UsageError] = []
    rows = [
        declared.rows[name]
        for name in dict.fromkeys(request.rows or _list_rows(request, declared))
        if _is_known(name, declared.rows, "row", "ROW", errors)
    ]
    if request.tree and _is_known(request.tree, declared.trees, "kernel", "KERNEL", errors):
        rows = [_take_tree(row, request.tree) for row in rows]
    if request.arch and _is_known(request.arch, ARCHES, "architecture", "ARCH", errors):
        rows = [replace(row, arch=request.arch) for row in rows]
    if request.config:
        rows = [replace(row, kconfig=request.config) for row in rows]
    optional = (
        (FRAGMENT, request.boot == "vng"),
        (DEBUG_FRAGMENT, request.debug),
        (TRACE_FRAGMENT, request.trace),
    )
    added = [*request.added, *(name for name, is_added in optional if is_added)]
    rows = [replace(row, kconfig=tuple(dict.fromkeys((*row.kconfig, *added)))) for row in rows]
    rows = [replace(row, guest=_add_to_guest(row.guest, request)) for row in rows]
    wanted = tuple(name for name in dict.fromkeys(request.series) if name != "none")
    for name in wanted:
        _is_known(name, declared.series, "series", "SERIES", errors)
    asked = _choose_tests(declared, request.tests, "TESTS", errors) if request.tests else ()
    jobs: list[Job] = []
    for row in rows:
        where = f"{row.where or 'matrix.yaml'}: row {row.name}"
        tests = asked if request.tests else _choose_tests(declared, row.tests, where, errors)
        if any(test.language == SELFTEST for test in tests):
            row = replace(row, kconfig=tuple(dict.fromkeys((*row.kconfig, SELFTEST_FRAGMENT))))
        for name in row.kconfig:
            blamed = "CONFIG+" if name in request.added else "CONFIG" if request.config else where
            _is_known(name, declared.fragments, "fragment", blamed, errors)
        errors += declared.find_faults("fragments", list_fragments(row.kconfig, row.arch))
        changed = [name.upper() for name in ("arch", "config") if getattr(request, name)]
        blamed = f"{', '.join(changed)}: row {row.name}" if changed else ""
        errors += check_machine(row, declared, blamed)
        errors += _find_foreign(tests, row)
        boot = request.boot or ("vng" if FRAGMENT in row.kconfig else "qemu")
        if declared.built:
            jobs += _list_built(row, tests, boot, declared.built, errors)
            continue
        variants = _choose_variants(row, request.series, wanted)
        for variant in variants:
            # an unknown word of the request has been told already
            blame = errors if variant in row.variants else []
            name = variant.tree or row.tree
            known = _is_known(name, declared.trees, "kernel", where, errors)
            if variant.series and not _is_known(variant.series, declared.series, "series", where, blame):
                continue
            errors += declared.find_faults("series", [variant.series])
            if known and isinstance(declared.trees[name], IMAGES):
                errors += _find_without_source(tests, f"KERNEL={name}" if request.tree else where)
            if known and isinstance(declared.trees[name], IMAGES) and variant.series:
                # of a row with series, a built kernel takes what is tested without
                if wanted or not request.tree:
                    what = f"{name} is a built kernel, to which no series can be applied"
                    errors.append(UsageError(what, where="SERIES" if wanted else where))
            elif known:
                series = declared.series[variant.series] if variant.series else Series()
                own = replace(row, tree=name, arch=request.arch or variant.arch or row.arch)
                tree = declared.trees[name]
                if isinstance(tree, DebianImageTree):
                    tree = replace(tree, arch=own.arch)
                jobs.append(Job(own, variant, tree, series, tests, boot))
    raise_all(list({str(error): error for error in errors}.values()))
    jobs = [replace(job, variant=add_expectations(job.variant, job.tests, declared)) for job in jobs]
    if unbuilt := [row.name for row in rows if declared.built and row.name not in {j.row.name for j in jobs}]:
        # where it was to be built something went wrong that was not the kernel's fault
        told = f"there is no kernel of row {', '.join(unbuilt)}, nor a reason why"
        raise InfraError(told, where="BUILT", hint=f"there are: {', '.join(declared.built)}")
    return tuple(jobs)


def _add_to_guest(shape: GuestShape, request: Request) -> GuestShape:
    append = " ".join(filter(None, (shape.append, request.append)))
    return replace(shape, append=append, qemu=(*shape.qemu, *request.qemu))


def _list_rows(request: Request, declared: Declarations) -> Iterator[str]:
    """The rows that are meant where none is named: for a built kernel those of such, else the others.

    Without a kernel it is every row, or every one to which a series can be applied.
    """
    tree = declared.trees.get(request.tree)
    for name in declared.usual_rows:
        is_of_images = _is_of_images(declared.rows[name], declared)
        if (tree and is_of_images != isinstance(tree, IMAGES)) or (is_of_images and request.series):
            continue
        yield name


def _is_of_images(row: Row, declared: Declarations) -> bool:
    trees = {variant.tree or row.tree for variant in row.variants}
    return all(isinstance(declared.trees.get(name), IMAGES) for name in trees)


def _take_tree(row: Row, tree: str) -> Row:
    """The row with another tree; of variants that have one of their own, one is left."""
    variants = tuple(variant for variant in row.variants if not variant.tree)
    first, *others = row.variants
    # what the row expects of each of them
    expect = tuple(one for one in first.expect if all(one in other.expect for other in others))
    return replace(row, tree=tree, variants=variants or (Variant("plain", "", expect),))


def add_expectations(variant: Variant, tests: Sequence[GuestTest], declared: Declarations) -> Variant:
    """The variant with what is expected of its tests in every row, after what its own row says."""
    names = [name for test in tests for name in (test.id, *test.subtests)]
    undeclared = tuple(f"{test.id}/" for test in tests if not test.subtests)
    return replace(
        variant,
        expect=variant.expect
        + tuple(
            expected
            for expected in declared.expectations
            if variant.series in expected.series
            and (expected.test.startswith(undeclared) or any(is_match(expected.test, name) for name in names))
        ),
    )


def _list_built(
    row: Row,
    tests: tuple[GuestTest, ...],
    boot: str,
    built: "Mapping[str, Prebuilt]",
    errors: list[UsageError],
) -> Iterator[Job]:
    """A job for each kernel of the row that was built elsewhere."""
    own = [handover for handover in built.values() if handover.row == row.name]
    errors += _find_without_source(tests, "BUILT")
    variants = {variant.name: variant for variant in row.variants}
    # in the order of the row, the kernel without series first
    own.sort(
        key=lambda one: (
            list(variants).index(one.variant) if one.variant in variants else len(variants),
            one.variant,
        )
    )
    for handover in sorted(own, key=lambda one: bool(one.series)):
        variant = variants.get(handover.variant, Variant(handover.variant, handover.series, ()))
        yield Job(
            row, variant, AbsentTree(handover.base.tree), Series(handover.series), tests, boot, handover
        )


def _find_without_source(tests: Sequence[GuestTest], where: str) -> Iterator[UsageError]:
    """The selftests, for a kernel without its source."""
    for test in tests:
        if test.language == SELFTEST:
            what = f"{test.id} is built from the kernel's source, and only a kernel is here"
            yield UsageError(what, where=where, hint="test a tree: cowbell list trees")


def list_fragments(names: Sequence[str], arch: str) -> list[str]:
    """The fragments that are used: with ``base`` that of the architecture, and never those of others."""
    used = [name for name in names if name == arch or name not in ARCHES]
    return [*used, arch] if "base" in used and arch not in used else used


def check_machine(row: Row, declared: Declarations, blamed: str = "") -> Iterator[UsageError]:
    """What the row's guest asks for, and its config or its architecture's page size can not give.

    Each is told where the row says it, or ``blamed`` for it. What an image was built with is known only when
    it is read.
    """
    fragments = declared.fragments
    if _is_of_images(row, declared):
        return
    known = [fragments[name] for name in row.kconfig if name in fragments]
    symbols = {request.symbol: request.value for fragment in known for request in fragment.requests}

    def where(key: str) -> str:
        return blamed or str(row.places.get(key, row.places[""]))

    for need in list_needs(row.guest):
        if symbols.get(need.symbol) != "y":
            having = [
                fragment.name
                for fragment in fragments.values()
                if any(
                    (r.symbol, r.value, r.is_optional) == (need.symbol, "y", False) for r in fragment.requests
                )
            ]
            yield UsageError(
                f"{need.key}: needs {need.symbol}, and no fragment of the row asks for it",
                where=where(need.key),
                hint=f"add to kconfig: {' or '.join(having) or 'a fragment that sets it'}",
            )
    for key, what in find_misfits(row.guest, row.arch, symbols):
        yield UsageError(what, where=where(key))


def _find_foreign(tests: Sequence[GuestTest], row: Row) -> Iterator[UsageError]:
    """The binaries of another architecture than the row's."""
    for test in tests:
        if test.arch and test.arch != row.arch:
            what = f"is a program for {test.arch}, and row {row.name} is for {row.arch}"
            yield UsageError(what, where=str(test.path), hint="compile it for the row, or choose ARCH=")


def _choose_tests(
    declared: Declarations, globs: Sequence[str], where: str, errors: list[UsageError]
) -> tuple[GuestTest, ...]:
    try:
        return select_tests(declared.tests, globs, where)
    except* UsageError as group:
        errors += (error for error in group.exceptions if isinstance(error, UsageError))
    return ()


def _choose_variants(row: Row, asked: Sequence[str], wanted: Sequence[str]) -> tuple[Variant, ...]:
    """The row's variants; with SERIES= the one without series, and one for each series asked for."""
    if not asked:
        return row.variants
    plain = [variant for variant in row.variants if not variant.series] or [Variant("plain", "", ())]
    known = {variant.series: variant for variant in row.variants}
    return (*plain, *(known.get(name, Variant(_name_variant(name), name, ())) for name in wanted))


def _name_variant(series: str) -> str:
    """The name of a variant whose series may be a path, a range of commits, or - for stdin."""
    if is_name(series):
        return series
    return "stdin" if series == "-" else f"{make_name(Path(series).name)[:50]}-{make_id(series)[:6]}"


def _is_known(
    name: str, known: Mapping[str, object], kind: str, where: str, errors: list[UsageError]
) -> bool:
    if name in known:
        return True
    hint = f"there are: {', '.join(known)}"
    errors.append(UsageError(f"there is no {kind} {name}{suggest(name, known)}", where=where, hint=hint))
    return False
