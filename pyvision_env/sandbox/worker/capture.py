"""Text that an episode's code writes, from Python and from below it, bounded and made printable."""

from __future__ import annotations

import io
import os
import re
import sys
from typing import Any

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RAW_READ = 1 << 20


def printable(text: str) -> str:
    """Text as a terminal would leave it: carriage returns applied, lone surrogates and control characters escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if "\r" in text:
        # Line by line and not by a pattern: hostile text must cost no more than its length.
        text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def one_line(text: str, limit: int = 500) -> str:
    """The text's first line in printable form, shortened."""
    return printable(text[: 2 * limit]).strip().partition("\n")[0][:limit]


def shorten(text: str, limit: int) -> str:
    """Keep the beginning and the end of a text that is too long."""
    if len(text) <= limit:
        return text
    marker = f"\n... [{len(text) - limit} characters left out] ...\n"
    keep = max(0, limit - len(marker))
    head = keep // 3
    return text[:head] + marker + text[len(text) - (keep - head) :]


class Transcript:
    """What was written since ``begin``: at most ``limit`` characters are kept, the rest is only counted.

    Output on descriptors 1 and 2 lands in a file (``spool``) and is merged whenever Python writes, so that
    ``os.system`` and ``print`` keep their order.
    """

    def __init__(self, limit: int, spool: int) -> None:
        self._limit = limit
        self._spool = spool
        self._owner = os.getpid()
        self.begin()

    def begin(self) -> None:
        """Forget everything, also what threads wrote since the last reply."""
        self._parts: list[str] = []
        self._kept = 0
        self._left_out = 0
        os.ftruncate(self._spool, 0)

    def write(self, text: str) -> None:
        """Append text that Python wrote."""
        if os.getpid() != self._owner:
            # A process that the code forked: what it keeps in memory nobody will ever see.
            os.write(self._spool, text.encode("utf-8", "backslashreplace"))
            return
        self._merge()
        self._append(text)

    def take(self) -> tuple[str, bool]:
        """The text since ``begin`` and whether some of it was left out."""
        self._merge()
        text = printable("".join(self._parts))
        if self._left_out:
            text += f"\n... [{self._left_out} more characters left out]"
        return text, self._left_out > 0

    def _append(self, text: str) -> None:
        room = self._limit - self._kept
        if room > 0:
            piece = text[:room]
            self._parts.append(piece)
            self._kept += len(piece)
        self._left_out += max(0, len(text) - max(room, 0))

    def _merge(self) -> None:
        size = os.fstat(self._spool).st_size
        if size:
            data = os.pread(self._spool, min(size, _RAW_READ), 0)
            os.ftruncate(self._spool, 0)
            self._append(data.decode("utf-8", "replace"))
            self._left_out += size - len(data)


class Stream(io.TextIOBase):
    """``sys.stdout`` and ``sys.stderr`` of the code."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, transcript: Transcript, fd: int, name: str) -> None:
        self._transcript = transcript
        self._fd = fd
        self.name = name
        self.mode = "w"
        self.buffer = _Binary(transcript)

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._transcript.write(text)
        return len(text)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd


class _Binary(io.RawIOBase):
    def __init__(self, transcript: Transcript) -> None:
        self._transcript = transcript

    def write(self, data: Any) -> int:
        raw = bytes(data)
        self._transcript.write(raw.decode("utf-8", "replace"))
        return len(raw)

    def writable(self) -> bool:
        return True


class NoInput(io.TextIOBase):
    """``sys.stdin`` of the code: there is nobody to answer."""

    def read(self, size: int | None = -1) -> str:
        raise EOFError("input() and sys.stdin are not available here: nobody is there to answer")

    readline = read  # type: ignore[assignment]

    def readable(self) -> bool:
        return True


def redirect(transcript: Transcript, spool: int) -> None:
    """Send everything the process writes, at every level, to ``transcript``."""
    for fd in (1, 2):
        os.dup2(spool, fd)
    sys.stdin = NoInput()
    sys.stdout = sys.__stdout__ = Stream(transcript, 1, "<stdout>")  # type: ignore[misc, assignment]
    sys.stderr = sys.__stderr__ = Stream(transcript, 2, "<stderr>")  # type: ignore[misc, assignment]
