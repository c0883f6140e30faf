"""One isolation report for the sandboxes of many nodes: it promises what every one of them gives."""

from __future__ import annotations

from collections.abc import Mapping

from pyvision_env.sandbox.isolation import IsolationReport


def combine(kind: str, reports: Mapping[str, IsolationReport]) -> IsolationReport:
    """The report of a cluster.

    Args:
        kind: Name of the sandbox's kind.
        reports: By the name of the node, at least one; interpreter and libraries are taken from the first.
    """
    first = next(iter(reports.values()))
    names = dict.fromkeys(name for report in reports.values() for name in report.guarantees)
    guarantees = {name: all(report.guarantees.get(name, False) for report in reports.values()) for name in names}
    rungs = dict.fromkeys(f"{report.kind}: {report.rung}" for report in reports.values())
    noted: dict[str, list[str]] = {}
    for node, report in reports.items():
        for note in report.notes:
            noted.setdefault(note, []).append(node)
        if (report.python, report.libraries) != (first.python, first.libraries):
            noted.setdefault("another interpreter or other libraries than the first node", []).append(node)
    notes = tuple(f"{', '.join(nodes)}: {note}" for note, nodes in noted.items())
    return IsolationReport(kind, ", ".join(rungs), guarantees, notes, first.python, dict(first.libraries))
