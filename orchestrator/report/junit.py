# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes runs as JUnit XML for GitLab and similar systems."""

import xml.etree.ElementTree as ET
from collections import Counter

from orchestrator.parse.printk import make_printable
from orchestrator.report.replay import make_command
from orchestrator.report.report import Judged
from orchestrator.status import Status


def render_junit(judged: Judged) -> str:
    """JUnit XML with a test suite per kernel. An expected failure is skipped, with its reason, for GitLab.

    Only a test as a whole is timed: its first subtest has the time of all, so that the sums are right.
    """
    root = ET.Element("testsuites", name=judged.run.run_id)
    for (job, verdicts), name, run in zip(judged.jobs, judged.names, judged.origins, strict=True):
        counts = Counter(_junit_kind(verdict.status) for verdict in verdicts)
        suite = ET.SubElement(
            root,
            "testsuite",
            name=name,
            tests=str(len(verdicts)),
            failures=str(counts["failure"]),
            errors=str(counts["error"]),
            skipped=str(counts["skipped"]),
            time=f"{sum(result.duration_s for result in job.results):.3f}",
            timestamp=run.started.removesuffix("+00:00"),
        )
        timed: set[str] = set()
        for verdict in verdicts:
            duration_s = 0.0 if verdict.test in timed else verdict.duration_s
            timed.add(verdict.test)
            family, _, title = verdict.name.partition("/" if "/" in verdict.test else ".")
            test = ET.SubElement(
                suite,
                "testcase",
                classname=f"{name.replace('/', '.')}.{family}",
                name=title,
                time=f"{duration_s:.3f}",
            )
            if kind := _junit_kind(verdict.status):
                message = make_printable(f"{verdict.label}: {verdict.reason}")
                element = ET.SubElement(test, kind, message=message)
                if kind != "skipped":
                    element.set("type", verdict.status.upper())
                replay = "" if kind == "skipped" else f"repeat: {make_command(run, job, verdict.test)}"
                lines = filter(None, (verdict.why_expected, verdict.evidence, replay))
                element.text = make_printable("\n".join(lines))
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _junit_kind(status: Status) -> str:
    match status:
        case Status.PASS:
            return ""
        case Status.SKIP | Status.XFAIL:
            return "skipped"
        case Status.BROKEN:
            return "error"
        case _:
            return "failure"
