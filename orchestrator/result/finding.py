# SPDX-License-Identifier: GPL-2.0-or-later
"""What is found of one subtest in one trial, and the texts that all judges use."""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.guest.connection import CUT
from orchestrator.parse.ktap import KtapResult, Rate
from orchestrator.parse.splat import SplatKind
from orchestrator.result.record import TrialResult
from orchestrator.status import Status

_MAX_NAMED = 10
# the guest's clock goes on while it has no CPU: of this share of its time, a time limit in it says nothing
_BUSY = 0.2
# and of this one, a race that was not hit: with a third of a CPU, two threads hardly ever meet
_STARVED = 0.7


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one subtest in one trial. ``fingerprint`` is that of the first splat."""

    name: str
    status: Status
    reason: str
    evidence: str = ""
    rate: Rate | None = None
    trial: int = 1
    fingerprint: str = ""
    is_starved: bool = False


def find_wait(result: TrialResult) -> str:
    """That the host gave the guest too little CPU for a time limit, as the end of a reason, else empty."""
    if result.waited_s <= _BUSY * result.duration_s:
        return ""
    return f", for {result.waited_s:.0f} s of which the host gave the guest no CPU"


def is_starved(result: TrialResult) -> bool:
    """Whether the host gave the guest so little CPU that a race can hardly have happened."""
    return result.waited_s > _STARVED * result.duration_s


def name_failed(named: Sequence[tuple[str, KtapResult]]) -> str:
    """The results that failed all the same, as the end of the reason of a BROKEN test."""
    texts = [
        f"{name} ({text})" if (text := leaf.name.lstrip(": ")) not in name else name
        for name, leaf in named
        if leaf.status is Status.FAIL
    ]
    return f"; failed: {join_some(texts)}" if texts else ""


def join_some(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _MAX_NAMED} more" if len(texts) > _MAX_NAMED else ""
    return ", ".join(texts[:_MAX_NAMED]) + more


def find_cause(result: TrialResult) -> str:
    """Why results may be missing, as the start of a reason; empty if nothing is known of it."""
    is_cut = result.stdout.endswith(CUT)
    return find_oom(result) + (f"{CUT.strip().removeprefix('# cowbell: ')}; " if is_cut else "")


def find_oom(result: TrialResult) -> str:
    """The last message of the OOM killer, as the start of a reason; empty if there is none."""
    kills = [splat for splat in result.log.splats if splat.kind is SplatKind.OOM]
    return f"the guest ran out of memory ({kills[-1].title}); " if kills else ""
