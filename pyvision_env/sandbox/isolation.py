"""What a sandbox keeps apart, as its worker found it on this machine."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyvision_env.sandbox.link import WorkerLink

_log = logging.getLogger(__name__)
_warned: set[tuple[str, str]] = set()


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """The isolation an episode really gets.

    Attributes:
        kind: ``docker``, ``docker-strict``, ``local`` or ``local-unconfined``.
        rung: The step of the confinement ladder in use, such as ``userns+landlock``.
        guarantees: What model-written code cannot do or reach, by name: ``network``, ``host_files``,
            ``other_episodes``, ``signals`` (send them outside its episode), ``processes`` (starve others of them),
            ``syscalls`` (use those it does not need), ``disk`` (fill it), ``memory`` (take more than its share over all
            its processes, which the kernel sees to; without it a watchdog does), ``container`` (a container stands
            around it).
        notes: What this host cannot give and why.
        python: Version of the interpreter that runs the code.
        libraries: Version of each library offered to the code.
    """

    kind: str
    rung: str
    guarantees: dict[str, bool]
    notes: tuple[str, ...] = ()
    python: str = ""
    libraries: dict[str, str] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the guarantees this host does not give."""
        return tuple(name for name, given in self.guarantees.items() if not given)


def report_of(kind: str, container: bool, link: WorkerLink) -> IsolationReport:
    """What a worker that has greeted keeps apart; the first lack of a kind of sandbox is warned about once.

    Args:
        kind: Of the sandbox.
        container: A container stands around the worker.
        link: The worker.
    """
    hello = link.hello
    guarantees = {**hello.guarantees, "memory": link.bounds_memory, "container": container}
    notes = (*hello.notes, *link.notes)
    report = IsolationReport(kind, hello.rung, guarantees, notes, hello.python, dict(hello.libraries))
    missing = ", ".join(name for name in report.missing if name != "container")
    if missing and (kind, missing) not in _warned:
        _warned.add((kind, missing))
        _log.warning("the %s sandbox on this machine does not guarantee: %s (%s)", kind, missing, "; ".join(notes))
    return report
