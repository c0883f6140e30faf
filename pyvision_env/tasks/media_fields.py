"""The media of a record: paths, encoded bytes, base64, data URLs or Pillow images, as image and video sources."""

from __future__ import annotations

import base64
import binascii
import io
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from PIL import Image, UnidentifiedImageError

from pyvision_env.types import ImageSource, VideoSource

MediaKind = Literal["image", "video"]

_VIDEO_SUFFIXES = {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"}
_BASE64 = re.compile(r"[A-Za-z0-9+/_\-\s]{24,}={0,2}\s*")
# No file system takes longer paths; asking about one raises instead of answering.
_LONGEST_PATH = 4_000


class BadFieldError(Exception):
    """A field of a record is wrong: what was expected and what was found."""

    def __init__(self, field: str, expected: str, found: str) -> None:
        super().__init__(field, expected, found)
        self.field, self.expected, self.found = field, expected, found


def shorten(value: object, limit: int = 80) -> str:
    """Describe a value in one short line, for a report."""
    if value is None:
        return "nothing"
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value)} bytes"
    try:
        text = " ".join(repr(value).split())
    except (RecursionError, ValueError):  # nested too deeply, or a whole number of thousands of digits somewhere in it
        return f"a value of type {type(value).__name__} that is too large to show"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def read_media(field: str, value: Any, kind: MediaKind, root: Path) -> list[ImageSource | VideoSource]:
    """Read one media field: a single item or a list of them.

    Args:
        field: Name of the field, for the report.
        value: A path, encoded bytes, base64, a data URL, ``{"bytes": ..., "path": ...}``, a Pillow image or a list.
        kind: What the field holds unless a path's suffix says otherwise.
        root: Folder that relative paths start from.

    Raises:
        BadFieldError: An item is none of these, or its file is missing.
    """
    if isinstance(value, (list, tuple)):
        if not value:
            raise BadFieldError(field, f"at least one {kind}", "an empty list")
        sources = []
        for position, item in enumerate(value):
            sources.append(_read_item(f"{field}[{position}]", item, kind, root))
        return sources
    return [_read_item(field, value, kind, root)]


def _read_item(field: str, value: Any, kind: MediaKind, root: Path) -> ImageSource | VideoSource:
    if isinstance(value, Image.Image) and kind == "image":
        return ImageSource(data=_encode(value))
    if isinstance(value, Mapping):
        return _read_mapping(field, value, kind, root)
    if isinstance(value, (bytes, bytearray)):
        return _from_bytes(field, bytes(value), kind)
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str) and value.strip():
        return _from_text(field, value.strip(), kind, root)
    raise BadFieldError(field, f"a path, bytes or base64 of {_a(kind)}", shorten(value))


def _read_mapping(field: str, value: Mapping[str, Any], kind: MediaKind, root: Path) -> ImageSource | VideoSource:
    """Read ``{"bytes": ..., "path": ...}`` (`datasets`) or ``{"image": ...}`` / ``{"video": ...}`` (chat records)."""
    if value.get("bytes") is not None:
        return _read_item(f"{field}.bytes", value["bytes"], kind, root)
    for key in ("path", kind, "url"):
        if value.get(key) is not None:
            return _read_item(f"{field}.{key}", value[key], kind, root)
    raise BadFieldError(field, "a dict with 'bytes' or 'path'", shorten(sorted(map(str, value))))


def _from_text(field: str, text: str, kind: MediaKind, root: Path) -> ImageSource | VideoSource:
    if text.startswith("data:"):
        header, _, payload = text.partition(",")
        named = "video" if header.startswith("data:video/") else "image" if header.startswith("data:image/") else kind
        return _from_bytes(field, _unbase64(field, payload), named)
    if text.startswith(("http://", "https://")):
        raise BadFieldError(field, f"a local path, bytes or base64 of {_a(kind)}", f"the web address {shorten(text)}")
    path = Path(unquote(urlsplit(text).path)) if text.startswith("file://") else Path(text).expanduser()
    located = path if path.is_absolute() else root / path
    if len(text) <= _LONGEST_PATH and _is_file(located):
        if _is_video(located, kind):
            return VideoSource(path=located)
        return ImageSource(path=located)
    if _BASE64.fullmatch(text) and not path.suffix:
        return _from_bytes(field, _unbase64(field, text), kind)
    raise BadFieldError(field, f"an existing {kind} file", f"no file at {shorten(str(located), 200)}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a component longer than the file system takes: it is base64, or a wrong path
        return False


def _is_video(path: Path, kind: MediaKind) -> bool:
    suffix = path.suffix.lower()
    if suffix in _VIDEO_SUFFIXES:
        return True
    return kind == "video" and suffix not in {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


def _unbase64(field: str, payload: str) -> bytes:
    compact = "".join(payload.split()).replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except binascii.Error as error:
        raise BadFieldError(field, "base64", f"{shorten(payload, 40)} ({error})") from error


def _from_bytes(field: str, data: bytes, kind: MediaKind) -> ImageSource | VideoSource:
    if not data:
        raise BadFieldError(field, f"the encoded bytes of {_a(kind)}", "0 bytes")
    if kind == "video":
        return VideoSource(data=data)
    # Only the header is read: a record with bytes that are no image is reported now, not in the middle of a run.
    try:
        Image.open(io.BytesIO(data)).close()
    except UnidentifiedImageError as error:
        raise BadFieldError(field, "the encoded bytes of an image", f"{len(data)} bytes that are no image") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadFieldError(field, "the encoded bytes of an image", f"{len(data)} bytes ({error})") from error
    return ImageSource(data=data)


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    keeps = image.mode in {"1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"}
    (image if keeps else image.convert("RGB")).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _a(kind: MediaKind) -> str:
    return "an image" if kind == "image" else "a video"
