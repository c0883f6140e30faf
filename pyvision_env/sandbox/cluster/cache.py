"""Values that are made once, however many threads ask for them at the same time, and kept within bounds."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar


class Sized(Protocol):
    """A value that knows its size."""

    @property
    def nbytes(self) -> int:
        """Bytes."""
        ...


Value = TypeVar("Value", bound=Sized)


@dataclass(eq=False, slots=True)
class _Entry(Generic[Value]):
    future: Future[Value] = field(default_factory=Future)
    nbytes: int = 0


class BoundedCache(Generic[Value]):
    """The most recently used values; those that were let go of live on with whoever holds them.

    Args:
        max_bytes: Size of all kept values; a larger one is made anew each time.
        max_count: How many are kept.

    Attributes:
        made: Values made so far.
    """

    def __init__(self, max_bytes: int, max_count: int = 128) -> None:
        self.made = 0
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._bytes = 0
        self._entries: OrderedDict[Hashable, _Entry[Value]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """The value of ``key``; whoever asks while another thread makes it waits for that one.

        Raises:
            Exception: Whatever ``make`` raises, in every thread that waited; nothing is kept then.
        """
        with self._lock:
            known = self._entries.get(key)
            if known is None:
                mine = self._entries[key] = _Entry[Value]()
                self.made += 1
            else:
                self._entries.move_to_end(key)
        if known is not None:
            return known.future.result()
        try:
            value = make()
        except BaseException as error:
            self._drop(key, mine)
            mine.future.set_exception(error)
            raise
        mine.future.set_result(value)
        self._keep(key, mine, value.nbytes)
        return value

    def clear(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def _keep(self, key: Hashable, entry: _Entry[Value], nbytes: int) -> None:
        if nbytes > self._max_bytes:
            self._drop(key, entry)
            return
        with self._lock:
            if self._entries.get(key) is not entry:  # cleared meanwhile
                return
            entry.nbytes = nbytes
            self._bytes += nbytes
            finished = [each for each, found in self._entries.items() if found.nbytes]
            for oldest in finished:
                if self._bytes <= self._max_bytes and len(self._entries) <= self._max_count:
                    break
                self._bytes -= self._entries.pop(oldest).nbytes

    def _drop(self, key: Hashable, entry: _Entry[Value]) -> None:
        with self._lock:
            if self._entries.get(key) is entry:
                del self._entries[key]
