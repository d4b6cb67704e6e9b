# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion: a script per shell, and the words that these scripts ask for.

The scripts know nothing: with each Tab they ask ``cowbell completion words``, which answers a line a word.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.cli.grammar import CHOICES, KINDS, PRODUCTS, SHELLS, TARGETS, VARIABLES

# what names there are for a variable, by the kinds of list
_NAMES = {
    "ROW": "rows", "KERNEL": "trees", "SERIES": "series", "TESTS": "tests",
    **dict.fromkeys(("CONFIG", "CONFIG_GOOD", "CONFIG_BAD"), "fragments"),
}  # fmt: skip

_SCRIPTS = {
    # readline splits words at = and :, so only what follows the last of them is replaced
    "bash": """\
_cowbell() {
    local cur=${COMP_LINE:0:COMP_POINT} keep
    cur=${cur##*[[:space:]]}
    keep=${cur%"${COMP_WORDS[COMP_CWORD]}"}
    [[ ${COMP_WORDS[COMP_CWORD]} == [=:] ]] && keep=$cur
    mapfile -t COMPREPLY < <("${COMP_WORDS[0]}" completion words -- "$cur" "${COMP_WORDS[1]}" 2>/dev/null)
    COMPREPLY=("${COMPREPLY[@]#"$keep"}")
    [[ ${COMPREPLY[0]-} == *= ]] && compopt -o nospace
}
complete -o default -F _cowbell cowbell
""",
    "zsh": """\
#compdef cowbell
_cowbell() {
    local -a found
    found=("${(@f)$("${words[1]}" completion words -- "${words[CURRENT]}" "${words[2]}" 2>/dev/null)}")
    compadd -S '' -- ${found:#^*=}
    compadd -- ${found:#*=}
}
compdef _cowbell cowbell
""",
    "fish": """\
complete -c cowbell -f -a '(cowbell completion words -- (commandline -ct) (commandline -opc)[2] 2>/dev/null)'
""",
}


def render_script(shell: str) -> str:
    assert shell in SHELLS
    return _SCRIPTS[shell]


def complete(
    begun: str, first: str, names: Mapping[str, Iterable[str]], parser: argparse.ArgumentParser
) -> list[str]:
    """The words that may stand where ``begun`` is, ``first`` being the first word of the command line.

    ``names`` has what there is by the kinds of ``list``, its trees also as TREE:VERSION. Lists go on after a
    comma.
    """
    variable, is_setting, value = begun.partition("=")
    if is_setting:
        before, comma, last = value.rpartition(",")
        values = CHOICES.get(variable) or names.get(_NAMES.get(variable, ""), ())
        prefix = f"{variable}={before}{comma}"
        return [f"{prefix}{name}" for name in values if name.startswith(last)]
    if begun.startswith("-"):
        words: Iterable[str] = [word for action in parser._actions for word in action.option_strings]
    else:
        words = _list_subjects(first, names) if first in TARGETS and TARGETS[first].takes else ()
        words = words or [*TARGETS, *(f"{name}=" for name in VARIABLES)]
    return [word for word in words if word.startswith(begun)]


def _list_subjects(target: str, names: Mapping[str, Iterable[str]]) -> Sequence[str]:
    match target:
        case "list":
            return KINDS
        case "history":
            return list(names.get("tests", ()))
        case "diff" | "merge":
            return ()
        case "completion":
            return SHELLS
        case "explain":
            return [
                *names.get("tests", ()),
                *names.get("rows", ()),
                *names.get("trees", ()),
                *TARGETS,
                *VARIABLES,
            ]
        case _:
            return PRODUCTS
