"""What the rest of the house uses of a sandbox, wherever it runs: on this machine or on the nodes of a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from pyvision_env.config import Limits, SandboxConfig
from pyvision_env.sandbox.isolation import IsolationReport
from pyvision_env.types import RGBArray, ToolResult, VideoInfo


class PictureLike(Protocol):
    """A decoded image that ``open`` takes as it is."""

    @property
    def width(self) -> int:
        """Pixels."""
        ...

    @property
    def height(self) -> int:
        """Pixels."""
        ...

    @property
    def pixels(self) -> RGBArray:
        """A read-only view, uint8 HxWx3."""
        ...


class EpisodeLike(Protocol):
    """A persistent Python runtime with the media of one task; see ``Episode``."""

    @property
    def videos(self) -> tuple[VideoInfo, ...]:
        """What may be said of each video before a frame is fetched."""
        ...

    @property
    def image_count(self) -> int:
        """Pictures bound so far."""
        ...

    def run(self, code: str | Sequence[str], timeout: float | None = None, max_images: int | None = None) -> ToolResult:
        """Run a block of Python, or several in order until one raises."""
        ...

    def frames(
        self,
        video: int = 0,
        times: Sequence[float] | None = None,
        indices: Sequence[int] | None = None,
        start: float | None = None,
        end: float | None = None,
        num: int | None = None,
        max_images: int | None = None,
    ) -> ToolResult:
        """Fetch frames of a video without code."""
        ...

    def close(self) -> None:
        """End the runtime; idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class SandboxLike(Protocol):
    """Isolated Python runtimes for many episodes at once; see ``Sandbox``."""

    @property
    def config(self) -> SandboxConfig:
        """Where and how code runs."""
        ...

    @property
    def limits(self) -> Limits:
        """Budgets of each episode."""
        ...

    @property
    def kind(self) -> str:
        """Name of the kind."""
        ...

    @property
    def isolation(self) -> IsolationReport:
        """What is kept apart."""
        ...

    def start(self) -> Self:
        """Start a worker now instead of at the first ``open``."""
        ...

    def open(self, images: Sequence[Any] = (), videos: Sequence[Any] = ()) -> EpisodeLike:
        """Start an episode's runtime with the media bound in it."""
        ...

    def picture(self, source: Any) -> PictureLike:
        """A decoded image that ``open`` takes as it is, shared by all episodes that look at it."""
        ...

    def forget_pictures(self) -> None:
        """Let go of the decoded images kept for further episodes."""
        ...

    def check_usable(self) -> None:
        """Raise ``SandboxClosedError`` when it is closed or belongs to another process."""
        ...

    def close(self) -> None:
        """End every episode and worker; idempotent."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...
