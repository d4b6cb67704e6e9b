# SPDX-License-Identifier: GPL-2.0-or-later
"""Mutation operators: finds the mutation sites of C functions, and writes all of them into the source.

Each site is an expression or a statement with a number. Switched on by it, the kernel does the mistake,
otherwise what was written. Nothing is mutated that does not parse, that is constant for the compiler, that is
an assertion or a statistic, or that only a loop's condition ends.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from orchestrator.parse.csource import find_functions, is_assertion, walk

if TYPE_CHECKING:
    from tree_sitter import Node

# assertions, statistics, tracing and scheduling points: dropping them breaks no rule
_HARMLESS = re.compile(
    r"VM_|BUG|WARN|ASSERT|trace_|count_|__count_|mod_.*(state|stat)$|__mod_|add_mm_counter|inc_mm_counter|"
    r"dec_mm_counter|might_|cond_resched|lockdep_|pr_|print|printk|dump_|build|data_race|prefetch|"
    r"mem_cgroup_|psi_|delayacct|task_io_|lru_gen_|workingset_|perf_|cpuset_|mm_account|add_mm_rss|init_rss|"
    r"page_counter|vm_events|this_cpu_|__this_cpu|INIT_|init_|kfree|kvfree|free_|mempool_free|page_table_check|"
    r"arch_(?:enter|leave)_lazy|sync_mm_rss|update_mmu|reliable_|hugetlb_count|set_page_owner|split_page_owner|ksm_might|barrier$"
)
# a lock alone, without its counterpart, is only a hang
_LOCKS = re.compile(
    r"(?:\w*_)?(?<!dirty_)(?:un|try)?lock(?:_\w*)?$|(?:down|up)_(?:read|write)|pte_unmap|local_irq_|\w*seqcount_(?:begin|end)$"
)
_PAIRS = {
    "spin_lock": "spin_unlock",
    "lock_page": "unlock_page",
    "folio_lock": "folio_unlock",
    "raw_write_seqcount_begin": "raw_write_seqcount_end",
    "mmu_notifier_invalidate_range_start": "mmu_notifier_invalidate_range_end",
    "get_page": "put_page",
    "folio_get": "folio_put",
    "i_mmap_lock_write": "i_mmap_unlock_write",
    "anon_vma_lock_write": "anon_vma_unlock_write",
    "take_rmap_locks": "drop_rmap_locks",
}
# entry = mk(entry): what is made of a page table entry
_MAKERS = re.compile(
    r"(?:huge_)?(?:pte|pmd|pud)_(?:(?:swp_)?mk\w+|wrprotect|(?:swp_)?clear_(?:soft_dirty|uffd_wp|exclusive|flags))$|"
    r"(?:huge_)?maybe_(?:p[mu]d_)?mkwrite$"
)
_FLAG = re.compile(rb"_*[A-Z][A-Z0-9_]+$")
_RELATIONS = {b"<": b"<=", b"<=": b"<", b">": b">=", b">=": b">"}


_UNTOUCHED = ("sizeof_expression", "comment", "preproc_def", "preproc_call", "preproc_function_def")
_KEPT_FIELDS = {
    "case_statement": ("value",),
    "while_statement": ("condition",),
    "do_statement": ("condition",),
    "for_statement": ("initializer", "condition", "update"),
    "preproc_if": ("condition",),
    "preproc_elif": ("condition",),
}


# the operator of the mutants that people wrote
WRITTEN = "written"


@dataclass(frozen=True, slots=True)
class Site:
    """One mutant: ``code`` is what it changes.

    ``name`` is file:function:operator:n, where n is the line counted from the function's first, or a name for
    those that people wrote. Of several on one line, the second ends in ``.2``.
    """

    number: int
    name: str
    line: int
    code: str

    @property
    def file(self) -> str:
        return self.name.split(":")[0]

    @property
    def function(self) -> str:
        return self.name.split(":")[1]

    @property
    def function_name(self) -> str:
        return f"{self.file}:{self.function}"

    @property
    def operator(self) -> str:
        return self.name.split(":")[2]

    @property
    def identity(self) -> str:
        """Names the mutant in each source that has the same code there, whatever its number."""
        return f"{self.name} {self.code}"


def mutate(file: str, text: bytes, functions: Sequence[str], first: int) -> tuple[bytes, list[Site]]:
    """The source with every site of the functions, which may be globs; sites are numbered from ``first``."""
    writer = _Writer(file, text, first)
    parts, at = [], 0
    for node, name in find_functions(text):
        if any(fnmatchcase(name, wanted) for wanted in functions):
            body = node.child_by_field_name("body")
            assert body
            parts += [text[at : body.start_byte], writer.write_function(name, node, body)]
            at = body.end_byte
    return b"".join([*parts, text[at:]]), writer.sites


@dataclass(slots=True)
class _Writer:
    file: str
    text: bytes
    next: int
    sites: list[Site] = field(default_factory=list)
    _function: str = ""
    _first_row: int = 0
    _counts: dict[tuple[str, int], int] = field(default_factory=dict)
    # by call and arguments, the number of the mutant that drops both halves of a pair
    _pairs: dict[tuple[str, bytes], int] = field(default_factory=dict)

    def write_function(self, name: str, function: "Node", body: "Node") -> bytes:
        self._function, self._counts, self._pairs = name, {}, {}
        self._first_row = function.start_point.row
        self._find_pairs(body)
        return self._write(body)

    def _add(self, operator: str, node: "Node") -> int:
        row = node.start_point.row
        count = self._counts[operator, row] = self._counts.get((operator, row), 0) + 1
        place = f"{row - self._first_row + 1}{f'.{count}' if count > 1 else ''}"
        code = " ".join(self._source(node).decode(errors="replace").split())
        name = f"{self.file}:{self._function}:{operator}:{place}"
        self.sites.append(Site(self.next, name, row + 1, code[:160]))
        self.next += 1
        return self.next - 1

    def _source(self, node: "Node") -> bytes:
        return self.text[node.start_byte : node.end_byte]

    def _write(self, node: "Node") -> bytes:
        """The node with the sites in it and around it."""
        if node.type in _UNTOUCHED or self._is_static(node) or self._is_harmless(node):
            return self._source(node)
        # a loop that does not end is only a hang, and a label must be constant
        kept = {
            child.id for name in _KEPT_FIELDS.get(node.type, ()) if (child := node.child_by_field_name(name))
        }
        parts, at = [], node.start_byte
        for child in node.children:
            parts.append(self.text[at : child.start_byte])
            parts.append(self._source(child) if child.id in kept else self._write(child))
            at = child.end_byte
        inner = b"".join([*parts, self.text[at : node.end_byte]])
        # one mistake at a time
        if node.has_error or b"mutant(" in self._source(node):
            return inner
        return self._wrap_as_part(node, self._wrap(node, inner))

    def _is_harmless(self, node: "Node") -> bool:
        if node.type != "expression_statement" or not node.children:
            return False
        name = self._name_call(node.children[0])
        return name.isupper() or bool(_HARMLESS.match(name))

    def _is_static(self, node: "Node") -> bool:
        return node.type == "declaration" and any(
            child.type == "storage_class_specifier" and self._source(child) == b"static"
            for child in node.children
        )

    def _wrap(self, node: "Node", inner: bytes) -> bytes:
        match node.type:
            case "expression_statement":
                return self._wrap_statement(node, inner)
            case "call_expression" if _MAKERS.match(self._name_call(node)):
                return self._wrap_maker(node, inner)
            case "binary_expression":
                return self._wrap_binary(node, inner)
        return inner

    def _wrap_as_part(self, node: "Node", inner: bytes) -> bytes:
        """What the node's parent makes of it: a condition, or an operand of one."""
        parent = node.parent
        if is_assertion(self._source(node)):
            return inner
        if parent and parent.type == "if_statement" and node.type == "parenthesized_expression":
            never, always = self._add("if-never", node), self._add("if-always", node)
            return b"(mutant_false(%d, mutant_true(%d, %s)))" % (never, always, inner)
        if not parent or parent.type != "binary_expression" or not node.is_named:
            return inner
        kind = self._operator(parent)
        # of a chain, each operand but the chain itself
        if kind in (b"&&", b"||") and not (node.type == "binary_expression" and self._operator(node) == kind):
            macro = b"mutant_true" if kind == b"&&" else b"mutant_false"
            return b"%s(%d, %s)" % (macro, self._add("drop-operand", node), inner)
        return inner

    def _operator(self, node: "Node") -> bytes:
        operator = node.child_by_field_name("operator")
        return self._source(operator) if operator else b""

    def _wrap_binary(self, node: "Node", inner: bytes) -> bytes:
        kind = self._operator(node)
        left, right = node.child_by_field_name("left"), node.child_by_field_name("right")
        assert left and right
        if kind in _RELATIONS:
            number = self._add("off-by-one", node)
            other = b"%s %s %s" % (self._source(left), _RELATIONS[kind], self._source(right))
            return b"(mutant(%d) ? (%s) : (%s))" % (number, other, inner)
        if kind == b"|" and _FLAG.match(self._source(right)):
            number = self._add("drop-flag", right)
            return inner[: len(inner) - (right.end_byte - right.start_byte)] + b"(mutant(%d) ? 0 : %s)" % (
                number, self._source(right),
            )  # fmt: skip
        return inner

    def _wrap_statement(self, node: "Node", inner: bytes) -> bytes:
        expression = node.children[0] if node.children else None
        if not expression:
            return inner
        if expression.type == "call_expression":
            name = self._name_call(expression)
            pair = self._pairs.get((name, self._arguments(expression)))
            if pair:
                return b"do { if (!mutant(%d)) %s } while (0);" % (pair, inner)
            if not name or _LOCKS.match(name):
                return inner
            return self._drop(node, inner, "drop-call")
        if expression.type == "assignment_expression":
            target = expression.child_by_field_name("left")
            # without its assignment a plain variable would have no value
            if target and (target.type != "identifier" or self._operator(expression) != b"="):
                return self._drop(node, inner, "drop-assignment")
        return inner

    def _drop(self, node: "Node", inner: bytes, operator: str) -> bytes:
        return b"do { if (!mutant(%d)) %s } while (0);" % (self._add(operator, node), inner)

    def _wrap_maker(self, node: "Node", inner: bytes) -> bytes:
        arguments = node.child_by_field_name("arguments")
        assert arguments
        entry = next(child for child in arguments.children if child.is_named and child.type != "comment")
        return b"(mutant(%d) ? (%s) : %s)" % (self._add("drop-maker", node), self._source(entry), inner)

    def _name_call(self, node: "Node") -> str:
        name = node.child_by_field_name("function")
        return self._source(name).decode() if name and name.type == "identifier" else ""

    def _arguments(self, node: "Node") -> bytes:
        arguments = node.child_by_field_name("arguments")
        return b"".join(self._source(arguments).split()) if arguments else b""

    def _find_pairs(self, body: "Node") -> None:
        calls: dict[tuple[str, bytes], Node] = {}
        for node in walk(body):
            if node.type == "expression_statement" and node.children[0].type == "call_expression":
                call = node.children[0]
                calls.setdefault((self._name_call(call), self._arguments(call)), node)
        for (name, arguments), node in calls.items():
            other = _PAIRS.get(name, "")
            if (other, arguments) in calls:
                number = self._add("drop-pair", node)
                self._pairs |= {(name, arguments): number, (other, arguments): number}
