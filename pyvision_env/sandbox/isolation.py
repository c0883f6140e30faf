"""What a sandbox keeps apart, as its worker found it on this machine."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IsolationReport:
    """The isolation an episode really gets.

    Attributes:
        kind: ``docker``, ``docker-strict``, ``local`` or ``local-unconfined``.
        rung: The step of the confinement ladder in use, such as ``userns+landlock``.
        guarantees: What model-written code cannot do or reach, by name: ``network``, ``host_files``,
            ``other_episodes``, ``signals`` (send them outside its episode), ``processes`` (starve others of them),
            ``syscalls`` (use those it does not need), ``disk`` (fill it), ``memory`` (take more than its share over all
            its processes), ``container`` (a container stands around it).
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
