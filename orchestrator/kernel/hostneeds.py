# SPDX-License-Identifier: GPL-2.0-or-later
"""Checks that the host has the programs and headers that the makefiles of a config need.

The makefiles look for them as well, but some of them only when everything is compiled.
"""

from collections.abc import Iterable

from orchestrator.errors import MissingToolError
from orchestrator.process import command
from orchestrator.process.packages import make_install_command

# programs and headers by the symbols that need them, and Debian packages
_NEEDS = {
    "pahole": ("dwarves", ("DEBUG_INFO_BTF",)),
    "libelf.h": ("libelf-dev", ("STACK_VALIDATION", "OBJTOOL", "UNWINDER_ORC", "DEBUG_INFO_BTF")),
    "openssl/opensslv.h": (
        "libssl-dev", ("SYSTEM_TRUSTED_KEYRING", "SYSTEM_REVOCATION_LIST", "MODULE_SIG_FORMAT", "MODULE_SIG"),
    ),
    "bzip2": ("bzip2", ("KERNEL_BZIP2",)),
    "xz": ("xz-utils", ("KERNEL_XZ", "KERNEL_LZMA", "MODULE_COMPRESS_XZ")),
    "lzop": ("lzop", ("KERNEL_LZO",)),
    "lz4": ("lz4", ("KERNEL_LZ4",)),
    "zstd": ("zstd", ("KERNEL_ZSTD", "MODULE_COMPRESS_ZSTD")),
    "rustc": ("rustc", ("RUST",)),
    "bindgen": ("bindgen", ("RUST",)),
}  # fmt: skip


def check_host_needs(symbols: Iterable[str], subject: str) -> None:
    """Raise ``MissingToolError`` with all that is missing for the symbols, names without ``CONFIG_``."""
    chosen = set(symbols)
    missing = {
        need: next(symbol for symbol in used if symbol in chosen)
        for need, (_, used) in _NEEDS.items()
        if not chosen.isdisjoint(used) and not _is_there(need)
    }
    if missing:
        packages = [_NEEDS[need][0] for need in missing]
        raise MissingToolError(
            "the config needs " + ", ".join(f"{need} (for {symbol})" for need, symbol in missing.items()),
            packages,
            where=subject,
            hint=make_install_command(packages),
        )


def _is_there(need: str) -> bool:
    if not need.endswith(".h"):
        return command.is_installed(need)
    # as the makefiles do: the host's compiler knows where its headers are
    cc = [command.find_tool("gcc", "gcc"), "-fsyntax-only", "-xc", "-"]
    return command.run(cc, stdin=f"#include <{need}>\n".encode(), check=False).returncode == 0
