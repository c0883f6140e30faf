"""Write traces as one HTML page that opens from disk: no network, no other file, no script but its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import jinja2
from markupsafe import Markup

from pyvision_env.errors import TraceError, UserError
from pyvision_env.report.pictures import PictureBook
from pyvision_env.report.text import highlight, highlight_css, visible
from pyvision_env.report.view import EpisodeView, episode_view, summary
from pyvision_env.trace import Trace, read_trace
from pyvision_env.trace.read import find_traces


@dataclass(slots=True)
class _Content:
    episodes: list[EpisodeView] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def write_page(
    source: str | Path | Iterable[Trace],
    out: str | Path,
    *,
    title: str | None = None,
    max_image_side: int = 1024,
    on_unreadable: Callable[[str], None] | None = None,
) -> Path:
    """Write a page about a folder of traces, or about some traces.

    Unfinished and damaged episodes are shown as far as they go; files whose header cannot be read are named. Model
    output, task texts and file names are untrusted: all are escaped, and the page's content security policy admits
    no script and no style but its own.

    Args:
        source: Folder of traces, or traces.
        out: The HTML file.
        title: Heading of the page.
        max_image_side: Longest side of a picture on the page, in pixels; larger ones are scaled down, which bounds the
            page's size.
        on_unreadable: Called with what is wrong with each file that is left out.

    Returns:
        ``out``.

    Raises:
        TraceError: If ``source`` is no folder.
        UserError: If ``out`` cannot be written or ``max_image_side`` is below 1.
    """
    if max_image_side < 1:
        raise UserError(f"max_image_side must be at least 1 pixel, but {max_image_side} came")
    out = Path(out)
    book = PictureBook(max_image_side)
    content = _read(source, book)
    if on_unreadable is not None:
        for problem in content.unreadable:
            on_unreadable(problem)
    if title is None:
        title = f"Episodes in {Path(source).resolve().name}" if isinstance(source, str | Path) else "Episodes"
    html = _render(title, content, book, max_image_side)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(html, encoding="utf-8")
    except OSError as error:
        raise UserError(f"The page cannot be written to {out}: {error}") from error
    return out


def _read(source: str | Path | Iterable[Trace], book: PictureBook) -> _Content:
    content = _Content()
    if not isinstance(source, str | Path):
        content.episodes = [episode_view(trace, book) for trace in source]
        return content
    for path in find_traces(source):
        try:
            content.episodes.append(episode_view(read_trace(path), book))
        except TraceError as error:
            content.unreadable.append(str(error))
    return content


def _render(title: str, content: _Content, book: PictureBook, max_side: int) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pyvision_env.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        # Also text that a template merely passes on is made presentable before it is escaped.
        finalize=lambda value: visible(value) if type(value) is str else value,
    )
    # Pygments escapes every character of the code.
    environment.filters["highlight"] = lambda code: Markup(highlight(code))
    css = f"{_asset('page.css')}\n{highlight_css()}"
    script = _asset("page.js")
    html: str = environment.get_template("page.html.j2").render(
        title=title,
        css=Markup(css),
        script=Markup(script),
        css_hash=_csp_hash(css),
        script_hash=_csp_hash(script),
        summary=summary(content.episodes),
        episodes=content.episodes,
        unreadable=content.unreadable,
        pictures=book.data,
        max_side=max_side,
    )
    return html


def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
