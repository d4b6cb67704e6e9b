# SPDX-License-Identifier: GPL-2.0-or-later
"""Prints coverage as text: by file, then what no test reaches."""

from orchestrator.coverage.gcov import CodeCoverage, FunctionCoverage, Unreached


def render_names(found: CodeCoverage) -> str:
    return "".join(f"{one.file}:{one.name}\n" for one in found.functions)


def render(found: CodeCoverage) -> str:
    files: dict[str, list[FunctionCoverage]] = {}
    for one in found.functions:
        files.setdefault(one.file, []).append(one)
    width = max((len(file) for file in files), default=4)
    lines = [f"{'file':<{width}}  functions          lines       branches"]
    for name, group in [*files.items(), ("all", list(found.functions))]:
        reached = sum(bool(one.lines_reached) for one in group)
        lines.append(
            f"{name:<{width}}  {_show(reached, len(group)):>9}  "
            f"{_show(sum(one.lines_reached for one in group), sum(one.lines for one in group)):>13}  "
            f"{_show(sum(one.branches_reached for one in group), sum(one.branches for one in group)):>13}"
        )
    if unused := [one for one in found.functions if not one.lines_reached]:
        lines += ["", f"functions that no test reaches: {len(unused)}"]
        lines += [f"  {one.file}:{one.name}" for one in unused]
    missed = [one for function in found.functions if function.lines_reached for one in function.unreached]
    if missed:
        explained = sum(bool(one.reason) for one in missed)
        what = f"lines and branches that no test reaches in other functions: {len(missed)}"
        lines += ["", f"{what}, {explained} with a reason"]
        lines += [f"  {_describe(one)}" for one in missed]
    lines += ["", f"{found.kernel}, {len(found.tests)} tests"]
    return "\n".join(lines) + "\n"


def _describe(one: Unreached) -> str:
    branches = f" ({one.branches} branch{'es' * (one.branches > 1)})" if one.branches else ""
    return f"{one.place} (line {one.line}){branches}: {one.code}" + (f"  -- {one.reason}" * bool(one.reason))


def _show(part: int, total: int) -> str:
    return f"{part}/{total} {100 * part / total if total else 100:.0f}%"
