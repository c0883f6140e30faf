"""One episode's Python runtime: binds the media, runs code, fetches frames, answers over the episode socket.

Nothing here is a secret or an authority: the code it runs shares its process, so the host treats every reply as
untrusted and takes from it text and pictures only.
"""

from __future__ import annotations

import ast
import contextlib
import gc
import linecache
import os
import random
import select
import signal
import socket
import sys
import traceback
import types
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from . import figures, kernel, notebook, video
from .capture import Transcript, one_line, printable, redirect, shorten
from .frame_client import FrameClient
from .pictures import Gallery
from .shared_image import map_image
from .wire import EpisodeLimits, Frames, Picture, Reply, Run, Setup, Video, receive_request, send

_TRACEBACK_CHARS = 3_000
_TRACEBACK_FRAMES = 30
_MAX_FRAMES = 1_000
_HERE = str(Path(__file__).parent)
_TEXT_CUSHION = 16 << 10
_ALARM_REPEAT_S = 0.25
_IDLE_MS = 500
_ABOUT_FILES = (
    "[the given images and videos are variables, image_clue_k and video_clue_j, not files; "
    "other files can be written in the working directory only, by relative paths]"
)


class CodeTimeout(BaseException):
    """Raised inside the code when its time is up; not an ``Exception``, which code would swallow."""


class Runtime:
    """State of one episode: the namespace of its code, its pictures so far, its videos."""

    def __init__(self, sock: socket.socket, spool: int, libraries: Sequence[str]) -> None:
        self._sock = sock
        self._spool = spool
        self._libraries = libraries
        self._module = types.ModuleType("__main__")
        self._module.__dict__["__builtins__"] = __builtins__
        self._images = 0
        self._videos: list[video.VideoReader | str] = []
        self._limits: EpisodeLimits
        self._transcript: Transcript
        self._armed = False
        self._owner = os.getpid()

    def serve(self) -> None:
        """Answer requests until the host closes the episode."""
        while True:
            self._rest()
            request, fds = receive_request(self._sock)
            pictures: list[Image.Image] = []
            if isinstance(request, Setup):
                reply = self._set_up(request, fds)
            elif isinstance(request, Run):
                reply, pictures = self._run(request)
            elif isinstance(request, Frames):
                reply, pictures = self._frames(request)
            else:
                raise EOFError("a decoder's request to an episode")
            send(self._sock, reply, [picture.tobytes() for picture in pictures])

    def _rest(self) -> None:
        """Wait for a request; while none comes, hold no memory that is free.

        A plot leaves 25 MiB behind that the next one would use again, but the model may think for minutes.
        """
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        if not poll.poll(_IDLE_MS):
            kernel.give_back_freed_memory()

    def _set_up(self, request: Setup, fds: list[int]) -> Reply:
        self._limits = request.limits
        self._transcript = Transcript(request.limits.max_text_chars + _TEXT_CUSHION, self._spool)
        redirect(self._transcript, self._spool)
        figures.set_mode(request.limits.figures)
        # The same code gives the same numbers in every episode, and again in a replay.
        random.seed(0)
        np.random.seed(0)
        sys.modules["__main__"] = self._module
        namespace = self._module.__dict__
        for name in self._libraries:
            namespace[name] = _COMMON[name]()
        namespace["display"] = display
        namespace[notebook.LINE] = notebook.run_line
        warnings.formatwarning = _warning
        sys.unraisablehook = _unraisable
        for spec, fd in zip(request.images, fds, strict=False):
            self._bind(map_image(fd, spec.width, spec.height))
        infos = []
        first = len(request.images)
        videos, sockets = fds[first : first + request.videos], fds[first + request.videos :]
        decoders = dict(zip(request.decoded, sockets, strict=False))
        for index, fd in enumerate(videos):
            info, reader = _open_video(fd, index, decoders.get(index))
            infos.append(info)
            self._videos.append(reader)
            if not isinstance(reader, str):
                namespace[f"video_clue_{index}"] = reader
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return Reply(seq=request.seq, videos=infos)

    def _bind(self, image: Image.Image) -> str:
        name = f"image_clue_{self._images}"
        self._module.__dict__[name] = image
        self._images += 1
        return name

    def _run(self, request: Run) -> tuple[Reply, list[Image.Image]]:
        gallery = self._begin(request.max_images)
        error = None
        details = ""
        try:
            with self._alarm(request.timeout_s):
                try:
                    for number, block in enumerate(request.blocks):
                        suffix = f".{number + 1}" if len(request.blocks) > 1 else ""
                        self._execute(block, f"<step {request.step}{suffix}>")
                except CodeTimeout:
                    raise
                except BaseException as raised:  # noqa: BLE001 - whatever the code raises is its observation
                    error, details = _describe(raised)
        except CodeTimeout:
            error = f"Timeout: the code ran longer than {request.timeout_s:g} s and was interrupted; variables are kept"
            details = error
        waiting = figures.open_figures()
        if error is None and waiting and not gallery.native and not gallery.dropped:
            details = f"[{waiting} figure(s) drawn but not shown: call plt.show() to see them]"
        return self._finish(request.seq, gallery, error, details)

    def _frames(self, request: Frames) -> tuple[Reply, list[Image.Image]]:
        gallery = self._begin(request.max_images)
        error = None
        details = ""
        try:
            with self._alarm(request.timeout_s):
                lines = self._fetch(request, gallery)
                details = "\n".join(lines)
        except CodeTimeout:
            error = details = f"Timeout: fetching the frames took longer than {request.timeout_s:g} s"
        except video.VideoError as refused:
            error = details = str(refused)
        return self._finish(request.seq, gallery, error, details)

    def _fetch(self, request: Frames, gallery: Gallery) -> list[str]:
        if not 0 <= request.video < len(self._videos):
            held = len(self._videos)
            have = ("no video", "video_clue_0", f"video_clue_0 to video_clue_{held - 1}")[min(held, 2)]
            raise video.VideoError(f"there is no video {request.video}: this task has {have}")
        reader = self._videos[request.video]
        if isinstance(reader, str):
            raise video.VideoError(reader)
        if gallery.room == 0:
            raise video.VideoError("no further image fits into this episode's budget")
        num = request.num
        if num is not None and num > gallery.room:
            # Fewer frames over the whole span tell more than all of its first part.
            gallery.dropped += num - gallery.room
            num = gallery.room
        indices = reader.resolve(
            times=request.times, indices=request.indices, start=request.start, end=request.end, num=num,
            max_frames=_MAX_FRAMES,
        )  # fmt: skip
        gallery.dropped += max(0, len(indices) - gallery.room)
        indices = indices[: gallery.room]
        lines = []
        for index, pixels in zip(indices, reader.frames(indices), strict=True):
            name = f"image_clue_{self._images + len(gallery.native)}"
            gallery.add(Image.fromarray(pixels))
            start = reader.get_frame_timestamp(index)[0]
            lines.append(f"{name}: frame {index} of video_clue_{request.video} at {start:.2f} s")
        return lines

    def _begin(self, max_images: int) -> Gallery:
        limits = self._limits
        room = max(0, min(max_images, limits.max_images_per_turn))
        gallery = Gallery(limits.min_pixels, limits.max_pixels, room)
        figures.use_gallery(gallery)
        self._transcript.begin()
        return gallery

    def _finish(self, seq: int, gallery: Gallery, error: str | None, details: str) -> tuple[Reply, list[Image.Image]]:
        if os.getpid() != self._owner:
            # The code forked and its child came here: it has nothing to answer.
            os._exit(0)
        text, cut = self._transcript.take()
        if gallery.dropped:
            details = (
                f"{details}\n[{gallery.dropped} more image(s) were not shown: the image budget is used up]".strip()
            )
        limit = self._limits.max_text_chars
        details = shorten(details, max(200, limit - 200))
        room = max(0, limit - len(details) - 1)
        cut = cut or len(text) > room
        text = shorten(text, room)
        text = f"{text.rstrip()}\n{details}" if text.strip() and details else (text or details)
        for image in gallery.native:
            self._bind(image)
        reply = Reply(
            seq=seq,
            text=text,
            error=None if error is None else error[:500],
            truncated=cut or gallery.dropped > 0,
            pictures=[Picture(image.width, image.height) for image in gallery.shown],
        )
        return reply, gallery.shown

    def _execute(self, source: str, name: str) -> None:
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        tree = notebook.parse(source, name)
        last = tree.body[-1] if tree.body else None
        shown = last.value if isinstance(last, ast.Expr) else None
        if shown is not None:
            tree.body.pop()
        namespace = self._module.__dict__
        exec(compile(tree, name, "exec", dont_inherit=True), namespace)
        if shown is not None:
            _display_last(eval(compile(ast.Expression(shown), name, "eval", dont_inherit=True), namespace))

    @contextlib.contextmanager
    def _alarm(self, seconds: float) -> Iterator[None]:
        def ring(number: int, frame: object) -> None:
            del number, frame
            if self._armed:
                raise CodeTimeout

        signal.signal(signal.SIGALRM, ring)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        self._armed = True
        # It rings again and again because code may swallow the first one with a bare `except`.
        signal.setitimer(signal.ITIMER_REAL, seconds, _ALARM_REPEAT_S)
        try:
            yield
        finally:
            # Twice, because the alarm may ring between any two statements, here too.
            try:
                self._armed = False
            finally:
                self._armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)


def display(*values: Any) -> None:
    """``display`` as notebooks have it."""
    for value in values:
        if not _show(value):
            print(value)  # noqa: T201 - this is the code's own output


def _warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, line: Any = None) -> str:
    """A warning as one line; where a library raised it is of no use to the code's author."""
    del line
    place = f"{filename}:{lineno}: " if filename.startswith("<step ") else ""
    return f"{place}{category.__name__}: {message}\n"


def _unraisable(told: sys.UnraisableHookArgs) -> None:
    """One line on what was raised where nothing can catch it (a finalizer, a hook of fork): our paths are no matter."""
    if isinstance(told.exc_value, CodeTimeout):
        # Time is up, and the alarm rings again in a moment, where it can be caught.
        return
    raised = told.exc_value
    line = told.exc_type.__name__ if raised is None else _describe(raised)[0]
    place = getattr(told.object, "__qualname__", type(told.object).__name__)
    sys.stderr.write(f"Exception ignored in {one_line(str(place), 100)}: {line}\n")


def _display_last(value: Any) -> None:
    """Show the value of a step's last expression, as notebooks do."""
    if value is None or _show(value) or _is_plotting_handle(value):
        return
    print(repr(value))  # noqa: T201 - this is the code's own output


def _show(value: Any) -> bool:
    if isinstance(value, Image.Image):
        figures.show_picture(value)
        return True
    figure_class = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    if figure_class is not None and isinstance(value, figure_class):
        figures.show_figure(value)
        return True
    return False


def _is_plotting_handle(value: Any) -> bool:
    """What plotting calls return, whose repr says nothing and differs in every run."""
    if isinstance(value, list | tuple) and value:
        return any(_is_plotting_handle(item) for item in value)
    if isinstance(value, np.ndarray) and value.dtype == object and value.size:
        return _is_plotting_handle(value.flat[0])
    return type(value).__module__.partition(".")[0] == "matplotlib"


def _describe(raised: BaseException) -> tuple[str | None, str]:
    """An exception of the code as (one line, traceback of the code's own frames)."""
    if isinstance(raised, SystemExit) and raised.code in (None, 0):
        return None, "[the code called exit(); the runtime goes on]"
    if isinstance(raised, MemoryError):
        # What the failed step held is garbage by now; without this the next step fails for want of the same memory.
        raised.__traceback__ = None
        gc.collect()
        line = "MemoryError: the memory limit of the runtime was reached"
        return line, line
    try:
        told = traceback.TracebackException.from_exception(raised, limit=-_TRACEBACK_FRAMES)
        _leave_out_what_comes_before_the_code(told)
        _leave_out_our_frames(told)
        summary = next(told.format_exception_only(), "").strip().splitlines()
        line = summary[0] if summary else type(raised).__name__
        if isinstance(raised, SyntaxError):
            line = f"{type(raised).__name__}: {raised.msg}"
        text = "".join(told.format())
        if isinstance(raised, PermissionError | FileNotFoundError):
            text += _ABOUT_FILES
    except CodeTimeout:
        raise
    except BaseException:  # noqa: BLE001 - a hostile __str__ may raise anything
        line = text = type(raised).__name__
    return printable(line), shorten(printable(text).strip(), _TRACEBACK_CHARS)


def _leave_out_what_comes_before_the_code(told: traceback.TracebackException) -> None:
    """Drop the frames that lead to the code, or all where it was not reached (a syntax error, a result's repr)."""
    frames = list(told.stack)
    if len(frames) < _TRACEBACK_FRAMES:
        first = next((at for at, frame in enumerate(frames) if frame.filename.startswith("<step ")), len(frames))
        told.stack[:] = frames[first:]


def _leave_out_our_frames(told: traceback.TracebackException | None) -> None:
    """Show the code's own frames only: the worker's say nothing to the model."""
    seen = set()
    while told is not None and id(told) not in seen:
        seen.add(id(told))
        frames = [frame for frame in told.stack if not frame.filename.startswith(_HERE)]
        told.stack[:] = frames
        told = told.__cause__ or told.__context__


def _open_video(fd: int, index: int, decoder: int | None) -> tuple[Video, video.VideoReader | str]:
    client = None
    if decoder is not None:
        # Without it the video is read here, with the same result or the same error.
        with contextlib.suppress(OSError, ValueError):
            client = FrameClient(socket.socket(fileno=decoder))
    try:
        reader = video.VideoReader(video.Footage(video.DescriptorFile(fd), client))
        return Video(**reader.info()), reader
    except video.VideoError as error:
        reason = f"video_clue_{index} cannot be used: {error}"
        return Video(error=reason), reason


def _pyplot() -> Any:
    from matplotlib import pyplot

    return pyplot


_COMMON: dict[str, Any] = {"np": lambda: np, "plt": _pyplot, "Image": lambda: Image}


def run_episode(sock: socket.socket, spool: int) -> None:
    """Serve one episode in this process and never return."""
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):
        Runtime(sock, spool, tuple(_COMMON)).serve()
    os._exit(0)
