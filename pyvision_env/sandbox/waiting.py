"""Those who wait for a place in a sandbox: a bounded line, first come first served."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from pyvision_env.errors import SandboxBusyError, SandboxError


class Ticket:
    """One who waits.

    Attributes:
        failure: Why waiting is pointless, if it is.
    """

    def __init__(self, condition: threading.Condition) -> None:
        self.failure: SandboxError | None = None
        self._condition = condition

    def wait(self, deadline: float) -> bool:
        """Give the lock back until woken; False once ``deadline`` (``time.monotonic()``) has passed."""
        left = deadline - time.monotonic()
        return left > 0 and self._condition.wait(left)

    def wake(self) -> None:
        """Let it look again."""
        self._condition.notify_all()


class WaitingLine:
    """A fair queue. All methods are called with ``lock`` held.

    Only who stands first is woken when something changes: with hundreds of threads waiting, waking them all to send all
    but one back would cost more than what they wait for.

    Args:
        lock: Guards the line and what it waits for.
        most: How many may wait at once.
    """

    def __init__(self, lock: threading.RLock, most: int) -> None:
        self._lock = lock
        self._most = most
        self._tickets: deque[Ticket] = deque()

    def __len__(self) -> int:
        return len(self._tickets)

    @contextmanager
    def join(self) -> Iterator[Ticket]:
        """Stand in line for the length of a ``with`` block.

        Raises:
            SandboxBusyError: Too many wait already.
        """
        refuse_beyond(self._most, len(self._tickets))
        ticket = Ticket(threading.Condition(self._lock))
        self._tickets.append(ticket)
        try:
            yield ticket
        finally:
            if ticket in self._tickets:
                self._tickets.remove(ticket)
            self.wake_first()

    def is_first(self, ticket: Ticket) -> bool:
        """Whether it is this one's turn."""
        return bool(self._tickets) and self._tickets[0] is ticket

    def wake_first(self) -> None:
        """Something changed: let the first one look."""
        if self._tickets:
            self._tickets[0].wake()

    def fail_all(self, failure: SandboxError | None = None) -> None:
        """Let everybody look, and give up for this reason if there is one: nothing more is done for them then."""
        for ticket in self._tickets:
            ticket.failure = failure
            ticket.wake()
        if failure is not None:
            self._tickets.clear()


def refuse_beyond(most: int, waiting: int) -> None:
    """Nobody more joins those who wait for a place if there are ``most`` of them.

    Raises:
        SandboxBusyError: Too many wait already.
    """
    if waiting >= most:
        raise SandboxBusyError(
            f"{waiting} episodes wait for a place already, and no more may (max_waiting): open fewer at once, or raise "
            "containers, episodes_per_container or max_waiting"
        )
