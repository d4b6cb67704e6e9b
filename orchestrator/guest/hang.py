# SPDX-License-Identifier: GPL-2.0-or-later
"""Hang diagnostics: the state of a guest that no longer answers.

Collects the CPU registers, the kernel's answers to SysRq on the serial line and to an NMI, and the memory.
These answers do not count as splats.
"""

import bisect
import contextlib
from dataclasses import dataclass
from pathlib import Path

from orchestrator.errors import InfraError
from orchestrator.guest.qemu import Machine
from orchestrator.guest.qmp import Monitor, MonitorGone
from orchestrator.guest.serial import SerialLine
from orchestrator.kernel.build import Kernel
from orchestrator.kernel.symbols import read_functions
from orchestrator.process import command

# native seconds until an answer begins, and without output until it is complete
_ANSWER_S, _QUIET_S = 0.5, 0.1
# seconds that a panicking CPU waits for the others to stop before it prints
_STOP_S = 2.0
_DUMP_S = 300.0
_USER_SPACE = 1 << 63


@dataclass(frozen=True, slots=True)
class HangDiagnostics:
    """``where`` names the functions that the CPUs execute, ``output`` is the output of SysRq and NMI.

    ``answers_sysrq``: the kernel handles serial interrupts. ``core`` is the file with the guest's memory.
    """

    where: str = ""
    output: str = ""
    answers_sysrq: bool = False
    core: str = ""


def gather_hang_diagnostics(machine: Machine, serial: SerialLine, monitor: Monitor) -> HangDiagnostics:
    """Examine a guest that does not answer; it cannot be used afterwards. Empty if QEMU has ended."""
    begin = serial.log.stat().st_size
    where, core, answers_sysrq = "", "", False
    with contextlib.suppress(MonitorGone):
        where = locate_cpus(machine, monitor)
        core = keep_core(machine, monitor, serial.log.parent)
        serial.allow()
        # blocked tasks, then all tasks
        answers_sysrq = all(_press_sysrq(key, machine, serial, monitor) for key in "wt")
        monitor.execute("inject-nmi")
        serial.wait_answer(_STOP_S + _ANSWER_S * machine.time_scale, _QUIET_S * machine.time_scale)
    return HangDiagnostics(where, serial.read_from(begin), answers_sysrq, core)


def _press_sysrq(key: str, machine: Machine, serial: SerialLine, monitor: Monitor) -> bool:
    """Whether the kernel answered, which needs CONFIG_MAGIC_SYSRQ_SERIAL."""
    begin = serial.log.stat().st_size
    monitor.execute("chardev-send-break", {"id": "console"})
    serial.type(key)
    serial.wait_answer(_ANSWER_S * machine.time_scale, _QUIET_S * machine.time_scale)
    return "sysrq: " in serial.read_from(begin)


def keep_core(machine: Machine, monitor: Monitor, folder: Path) -> str:
    """Write the guest's memory to a file if requested; returns its path, or the reason why there is none."""
    if not machine.keep_core:
        return ""
    path = folder / "vmcore"
    try:
        monitor.dump_memory(path, _DUMP_S)
    except MonitorGone as gone:
        path.unlink(missing_ok=True)
        return f"none: {gone}"
    # QEMU makes it read-only, and most of it is zeros
    path.chmod(0o600)
    command.run([command.find_tool("fallocate", "util-linux"), "--dig-holes", str(path)], check=False)
    return str(path)


def locate_cpus(machine: Machine, monitor: Monitor) -> str:
    """``CPU 0 in FUNCTION, ...``, from the symbols of vmlinux. Raises ``MonitorGone``."""
    symbols = _list_functions(machine.kernel)
    places = [_name_place(address, symbols) for address in monitor.read_program_counters()]
    return ", ".join(f"CPU {number} in {place}" for number, place in enumerate(places))


def _name_place(address: int, symbols: list[tuple[int, str]]) -> str:
    if address < _USER_SPACE:
        return "user space"
    index = bisect.bisect(symbols, (address, "~")) - 1
    # addresses of modules, and all addresses with KASLR, are unknown
    is_known = 0 <= index < len(symbols) - 1
    return symbols[index][1] if is_known else f"{address:#x}"


def _list_functions(kernel: Kernel) -> list[tuple[int, str]]:
    """Functions by address; none if vmlinux cannot be read."""
    with contextlib.suppress(InfraError):
        return [(one.address, one.name) for one in read_functions(kernel.folder / "vmlinux")]
    return []
