# SPDX-License-Identifier: GPL-2.0-or-later
"""help, completion, manpage and schema: texts made of the targets' declarations."""

from collections.abc import Iterable, Mapping

from orchestrator.cli.call import Call
from orchestrator.cli.target import TARGETS as KNOWN
from orchestrator.cli.target import Target, list_products
from orchestrator.errors import UsageError, raise_all
from orchestrator.project.yamlfile import suggest

SHELLS = ("bash", "zsh", "fish")


def run_help(call: Call) -> int:
    from orchestrator.cli import helptext

    raise_all(
        [
            UsageError(
                f"there is no target {word}{suggest(word, KNOWN)}",
                where="help",
                hint="cowbell --help lists them; cowbell explain WORD explains other words",
            )
            for word in call.subjects
            if word not in KNOWN
        ]
    )
    pages = [helptext.render_target(KNOWN[word]) for word in call.subjects]
    call.show("\n".join(pages or [helptext.render_overview()]))
    return 0


def run_manpage(call: Call) -> int:
    from orchestrator.cli import manpage
    from orchestrator.cli.helptext import find_version

    call.show(manpage.render(find_version()))
    return 0


def run_schema(call: Call) -> int:
    products = list_products()
    if not (name := call.choose_subject(products)):
        raise UsageError(f"expected one of {', '.join(products)}", where="schema")
    from orchestrator.cli import schemas

    call.show(schemas.render(name))
    return 0


def run_completion(call: Call) -> int:
    """The script, or the answer to the script: the words that may stand where one was begun."""
    from orchestrator.cli import completion, listing

    if call.subjects[:1] == ("words",):
        begun, first = (*call.subjects[1:], "", "")[:2]
        names: Mapping[str, Iterable[str]] = listing.list_declared(call.declared)
        if begun.startswith("KERNEL=") and ":" in begun:
            names = {**names, "trees": _list_tree_words(begun, call)}
        call.show("".join(f"{word}\n" for word in completion.complete(begun, first, names)))
        return 0
    if not (shell := call.choose_subject(SHELLS)):
        raise UsageError(f"expected {', '.join(SHELLS)}", where="completion")
    call.show(completion.SCRIPTS[shell])
    return 0


def _list_tree_words(begun: str, call: Call) -> list[str]:
    """TREE:VERSION for each version that is known without a network."""
    from orchestrator.source.tree import VERSIONED
    from orchestrator.source.versions import read_versions

    name = begun.removeprefix("KERNEL=").partition(":")[0]
    tree = call.declared.trees.get(name)
    known = read_versions(tree, call.store) if isinstance(tree, VERSIONED) else ()
    return [f"{name}:{version.version}" for version in known]


TARGETS = (
    Target(
        "help",
        "set up and look up",
        "print help, of the named targets if any",
        run_help,
        (
            ("cowbell help", "list targets, variables and options"),
            ("cowbell help bisect", "the variables, options and examples of one target"),
        ),
        takes="[TARGET...]",
        kinds=("targets",),
    ),
    Target(
        "completion",
        "set up and look up",
        "print the completion script for a shell",
        run_completion,
        (
            ('eval "$(cowbell completion bash)"', "complete the words of cowbell in this shell"),
            ("cowbell completion fish", "print the script for fish"),
        ),
        takes="|".join(SHELLS),
        words=SHELLS,
    ),
    Target(
        "manpage",
        "set up and look up",
        "print the manual page",
        run_manpage,
        (
            ("cowbell manpage | man -l -", "read the manual page"),
            ("cowbell manpage > cowbell.1", "save it"),
        ),
    ),
    Target(
        "schema",
        "set up and look up",
        "print the JSON schema of what --json prints",
        run_schema,
        (
            ("cowbell schema report", "print the schema of cowbell report --json"),
            ("cowbell schema steps > steps.json", "save the schema of cowbell -n --json"),
        ),
        takes="NAME",
        kinds=("schemas",),
        more="cowbell list schemas lists the names.",
    ),
)
