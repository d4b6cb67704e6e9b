# SPDX-License-Identifier: GPL-2.0-or-later
"""Shell completion: a script per shell, and the words that these scripts ask for.

With each Tab the scripts ask ``cowbell completion words``, which prints one word per line.
"""

from collections.abc import Iterable, Mapping

from orchestrator.cli.options import OPTIONS
from orchestrator.cli.target import TARGETS, list_products
from orchestrator.cli.variables import VARIABLES

SCRIPTS = {
    # readline splits words at = and :, so only the part after the last of them is replaced
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


def complete(begun: str, first: str, names: Mapping[str, Iterable[str]]) -> list[str]:
    """The words that complete ``begun``, ``first`` being the first word of the command line.

    ``names`` has the names of each kind of ``list``, the trees also as TREE:VERSION. Lists continue after a
    comma.
    """
    target = TARGETS.get(first)
    variable, is_setting, value = begun.partition("=")
    words: Iterable[str]
    if is_setting:
        before, comma, last = value.rpartition(",")
        known = VARIABLES.get(variable)
        values = known.choices or names.get(known.kind, ()) if known else ()
        prefix = f"{variable}={before}{comma}"
        return [f"{prefix}{name}" for name in values if name.startswith(last)]
    if begun.startswith("-"):
        options = target.options if target else OPTIONS.values()
        words = [flag for option in options for flag in option.flags]
    elif target and target.takes:
        kinds = {**names, "targets": TARGETS, "variables": VARIABLES, "schemas": list_products()}
        words = [*target.words, *(word for kind in target.kinds for word in kinds.get(kind, ()))]
        words += [f"{name}=" for name in target.variables]
    else:
        words = [*TARGETS, *(f"{name}=" for name in (target.variables if target else VARIABLES))]
    return [word for word in words if word.startswith(begun)]
