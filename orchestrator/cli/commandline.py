# SPDX-License-Identifier: GPL-2.0-or-later
"""Words of the command line: options, targets, the words that follow a target, and ``VAR=value``.

Everything that does not fit is reported at once, before anything is read or done.
"""

import argparse
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from orchestrator.cli.call import WITH_PROGRAMS, CommandLine
from orchestrator.cli.options import OPTIONS, list_given, parse_options
from orchestrator.cli.registry import TARGETS
from orchestrator.cli.target import FIRST_ROW, Target
from orchestrator.cli.variables import VARIABLES, Setting, check_settings
from orchestrator.errors import UsageError, raise_all
from orchestrator.process.jobserver import read_options
from orchestrator.project.yamlfile import suggest


def read_command_line(words: Sequence[str], preferences: Mapping[str, Setting] | None = None) -> CommandLine:
    """Raises ``UsageError`` for every wrong word, option and value at once."""
    typed, arguments = _split_arguments(words)
    options, wrong = parse_options([*read_options(os.environ), *typed])
    given, _ = parse_options(typed)
    errors = [
        UsageError(f"there is no option {word}{suggest(word, OPTIONS)}", hint="cowbell --help lists them")
        for word in wrong
    ]
    settings = _find_defaults() | dict(preferences or {})
    settings |= {
        name: Setting(os.environ[name], "environment")
        for name, variable in VARIABLES.items()
        if variable.is_inherited and os.environ.get(name)
    }
    named: list[str] = []
    subjects: list[str] = []
    for word in options.words:
        name, is_setting, value = word.partition("=")
        takes_words = bool(named) and bool(TARGETS[named[0]].takes)
        if named == ["completion"]:
            subjects.append(word)
        elif is_setting and name in VARIABLES:
            known = settings[name]
            is_more = name.endswith("+") and known.is_typed
            settings[name] = Setting(f"{known.value} {value}" if is_more else value, "command line")
        elif is_setting and (not takes_words or re.fullmatch(r"[A-Z_]+\+?", name)):
            own = TARGETS[named[0]].variables if named else tuple(VARIABLES)
            hint = f"there are: {', '.join(own)}"
            errors.append(
                UsageError(f"there is no variable {name}{suggest(name, own)}", where=word, hint=hint)
            )
        elif takes_words:
            subjects.append(word)
        elif word in TARGETS:
            named.append(word)
        else:
            what = f"there is no target {word}{suggest(word, TARGETS)}"
            errors.append(UsageError(what, hint="cowbell --help lists them"))
    if options.help:
        raise_all(errors)
        named, subjects = ["help"], named
    targets = [TARGETS[name] for name in dict.fromkeys(named or ["test"])]
    names = tuple(target.name for target in targets)
    errors += check_settings(settings)
    errors += [
        UsageError("cannot be combined with other targets", where=target.name)
        for target in targets
        if not target.is_joined and targets[1:]
    ]
    if not (options.help or options.version or options.print_variables):
        errors += _list_unused(targets, settings, given)
        if arguments and not set(names) <= WITH_PROGRAMS:
            hint = "they are the arguments of a program, as in cowbell test TESTS=./repro.c -- -n 5"
            errors.append(UsageError("takes no words after --", where=", ".join(names), hint=hint))
    raise_all(errors)
    is_bare = not named and not settings["ROW"].value and not any(s.is_typed for s in settings.values())
    used = {name for target in targets for name in target.variables}
    if named and options.print_variables:
        settings = {name: setting for name, setting in settings.items() if name in used}
    elif not options.print_variables:
        settings |= {name: setting for name, setting in _find_defaults().items() if name not in used}
    is_first_row = all(target.default_row == FIRST_ROW for target in targets)
    return CommandLine(
        tuple(words), names, tuple(subjects), settings, options, is_bare, is_first_row, arguments
    )


def _split_arguments(words: Sequence[str]) -> tuple[Sequence[str], tuple[str, ...]]:
    """The words before ``--``, and those after it; a completion has words of its own after it."""
    if "--" not in words or "completion" in words[: words.index("--")]:
        return words, ()
    end = words.index("--")
    return words[:end], tuple(words[end + 1 :])


def _find_defaults() -> dict[str, Setting]:
    return {name: Setting(variable.default, "default") for name, variable in VARIABLES.items()}


def _list_unused(
    targets: Sequence[Target], settings: Mapping[str, Setting], given: argparse.Namespace
) -> Iterator[UsageError]:
    """An error for each variable and option on the command line that none of the targets uses."""
    where = ", ".join(target.name for target in targets)
    used = list(dict.fromkeys(name for target in targets for name in target.variables))
    for name, setting in settings.items():
        if setting.is_typed and name not in used:
            hint = f"its variables: {', '.join(used) or 'none'}\n{name}= is used by: "
            hint += ", ".join(target.name for target in TARGETS.values() if name in target.variables)
            yield UsageError(f"does not use {name}=", where=where, hint=hint)
    for option in list_given(given):
        if not any(option in target.options for target in targets):
            others = ", ".join(target.name for target in TARGETS.values() if option in target.options)
            yield UsageError(
                f"does not take {', '.join(option.flags)}", where=where, hint=f"used by: {others}"
            )
