"""Small videos whose every frame shows its own number as a barcode that survives lossy coding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

WIDTH, HEIGHT, FPS = 160, 96, 30
_ROWS, _COLUMNS, _NUMBER_BITS = 2, 8, 10

X264 = "keyint=30:min-keyint=30:scenecut=0:bframes=3"
VFR_GAPS_MS = [20 + (i * 37) % 70 for i in range(90)]


def card(number: int) -> np.ndarray:
    """A frame of big black and white blocks: ten bits of number, six bits of check."""
    code = number | _check(number) << _NUMBER_BITS
    bits = np.array([code >> place & 1 for place in range(_ROWS * _COLUMNS)], np.uint8).reshape(_ROWS, _COLUMNS)
    grey = (28 + 200 * bits).repeat(HEIGHT // _ROWS, 0).repeat(WIDTH // _COLUMNS, 1)
    return np.stack([grey] * 3, axis=-1)


def read_number(frame: Any) -> int:
    """The number a frame shows, or -1 if it is not a clean, upright card."""
    pixels = np.asarray(frame)
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    blocks = pixels[..., 1].astype(float).reshape(_ROWS, HEIGHT // _ROWS, _COLUMNS, WIDTH // _COLUMNS)
    means = blocks[:, 12:-12, :, 5:-5].mean(axis=(1, 3)).reshape(-1)
    code = sum(1 << place for place, mean in enumerate(means) if mean > 128)
    number = code & (1 << _NUMBER_BITS) - 1
    return number if code >> _NUMBER_BITS == _check(number) else -1


def _check(number: int) -> int:
    return (number * 37 + 11) % 64


def write_clip(
    path: Path,
    codec: str = "libx264",
    *,
    frames: int = 90,
    container: str | None = None,
    pixels: str = "yuv420p",
    gop: int = 30,
    b_frames: int = 3,
    options: dict[str, str] | None = None,
    mux: dict[str, str] | None = None,
    gaps_ms: Sequence[int] | None = None,
    rotation: int | None = None,
) -> Path:
    """Write cards 0, 1, ... as a video; ``gaps_ms`` makes its frame rate vary."""
    clock = Fraction(1, 1000) if gaps_ms else Fraction(1, FPS)
    with av.open(str(path), "w", format=container, options=mux or {}) as out:
        stream = out.add_stream(codec, rate=FPS, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if rotation is not None:
            stream.set_display_rotation(rotation)
        if gaps_ms:
            stream.time_base = stream.codec_context.time_base = clock
        at = 0
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(card(number)).reformat(format=pixels)
            frame.pts, frame.time_base = at, clock
            at += gaps_ms[number] if gaps_ms else 1
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def x264_clip(path: Path, extra: str = "", **settings: Any) -> Path:
    """An H.264 clip with B-frames and a keyframe every 30 frames."""
    return write_clip(path, options={"x264-params": X264 + extra}, **settings)


def cut_without_recoding(source: Path, path: Path, start_s: float, *, at_keyframe: bool = True) -> Path:
    """Copy packets from ``start_s`` on, as ``-ss ... -c copy`` does: from the keyframe before it, or from mid-GOP."""
    with av.open(str(source)) as given, av.open(str(path), "w") as out:
        stream = given.streams.video[0]
        target = out.add_stream_from_template(stream)
        start = int(start_s / stream.time_base) + (stream.start_time or 0)
        packets = [packet for packet in given.demux(stream) if packet.size]
        if at_keyframe:
            first = max(place for place, p in enumerate(packets) if p.is_keyframe and p.pts <= start)
        else:
            first = next(place for place, packet in enumerate(packets) if packet.pts >= start)
        for packet in packets[first:]:
            packet.pts, packet.dts, packet.stream = packet.pts - start, packet.dts - start, target
            out.mux(packet)
    return path


def shorten_edit_list(source: Path, path: Path, end_s: float) -> Path:
    """An MP4 whose edit list ends early, as trimming on a phone leaves it: later packets are there but not shown."""
    data = bytearray(source.read_bytes())
    header = data.index(b"mvhd") + 4
    per_second = int.from_bytes(data[header + 12 : header + 16], "big")
    entry = data.index(b"elst") + 12
    data[entry : entry + 4] = int(end_s * per_second).to_bytes(4, "big")
    path.write_bytes(data)
    return path


def truncate(source: Path, path: Path, share: float = 0.6) -> Path:
    """The first part of a file, as an aborted download leaves it."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def write_sound(path: Path) -> Path:
    """An MP4 file with sound and no picture."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=44100, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def decode_in_order(path: Path) -> list[np.ndarray]:
    """Every frame that decoding a file from its first to its last packet shows; the reader must agree with this."""
    shown: list[np.ndarray] = []
    with av.open(str(path)) as given:
        stream = given.streams.video[0]
        stream.thread_type = "NONE"
        packets = [packet for packet in given.demux(stream) if packet.size]
        while packets and packets[-1].is_corrupt:  # the half packet at the end of a truncated file
            packets.pop()
        for packet in [*packets, None]:
            for frame in stream.codec_context.decode(packet):
                shown.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    return shown


def _plain(path: Path) -> Path:
    return x264_clip(path)


def _of(name: str) -> Callable[[Path], Path]:
    return lambda path: RECIPES[name](path.with_name(name))


RECIPES: dict[str, Callable[[Path], Path]] = {
    "plain.mp4": _plain,
    "plain.mkv": _plain,
    "plain.ts": _plain,
    "plain.flv": _plain,
    "variable_rate.mp4": lambda path: x264_clip(path, gaps_ms=VFR_GAPS_MS),
    "open_gop.mp4": lambda path: x264_clip(path, ":open-gop=1"),
    "open_gop.ts": lambda path: x264_clip(path, ":open-gop=1"),
    "pyramid.mp4": lambda path: x264_clip(path, ":b-pyramid=normal:ref=4"),
    "fragmented.mp4": lambda path: x264_clip(path, mux={"movflags": "frag_keyframe+empty_moov"}),
    "faststart.mp4": lambda path: x264_clip(path, mux={"movflags": "faststart"}),
    "one_frame.mp4": lambda path: write_clip(path, frames=1),
    "two_keyless_seconds.mp4": lambda path: write_clip(path, frames=60, gop=600),
    "vp8.webm": lambda path: write_clip(path, "libvpx", options={"cpu-used": "8", "b": "300k"}),
    "vp9.webm": lambda path: write_clip(path, "libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp9.mkv": lambda path: write_clip(path, "libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "hevc.mp4": lambda path: write_clip(
        path, "libx265", options={"x265-params": "keyint=30:bframes=3:open-gop=1:log-level=none", "preset": "ultrafast"}
    ),
    "mpeg4.avi": lambda path: write_clip(path, "mpeg4", b_frames=0),
    "mpeg4_b_frames.avi": lambda path: write_clip(path, "mpeg4", b_frames=2),
    "mpeg4_b_frames.mp4": lambda path: write_clip(path, "mpeg4", b_frames=2),
    "h264.avi": _plain,
    "mjpeg.avi": lambda path: write_clip(path, "mjpeg", b_frames=0, pixels="yuvj420p"),
    "mpeg2.ts": lambda path: write_clip(path, "mpeg2video", b_frames=2, gop=15),
    "mpeg2.mpg": lambda path: write_clip(path, "mpeg2video", b_frames=2, gop=15, container="mpeg"),
    "raw.h264": _plain,
    "pictures.gif": lambda path: write_clip(path, "gif", b_frames=0, pixels="rgb8", frames=30),
    "turned_90.mp4": lambda path: x264_clip(path, frames=20, rotation=90),
    "turned_180.mp4": lambda path: x264_clip(path, frames=20, rotation=180),
    "turned_270.mp4": lambda path: x264_clip(path, frames=20, rotation=-90),
    "cut.mp4": lambda path: cut_without_recoding(_of("plain.mp4")(path), path, 1.5),
    "cut_open_gop.mp4": lambda path: cut_without_recoding(_of("open_gop.mp4")(path), path, 1.5),
    "trimmed_end.mp4": lambda path: shorten_edit_list(_of("plain.mp4")(path), path, 1.5),
    "cut.ts": lambda path: cut_without_recoding(_of("plain.ts")(path), path, 1.5),
    "cut_open_gop.ts": lambda path: cut_without_recoding(_of("open_gop.ts")(path), path, 1.0),
    "cut_mid_gop.ts": lambda path: cut_without_recoding(_of("plain.ts")(path), path, 1.5, at_keyframe=False),
    "truncated.mp4": lambda path: truncate(_of("faststart.mp4")(path), path),
    "truncated.mkv": lambda path: truncate(_of("plain.mkv")(path), path),
    "truncated.ts": lambda path: truncate(_of("plain.ts")(path), path),
    "truncated.webm": lambda path: truncate(_of("vp9.webm")(path), path),
    "truncated.avi": lambda path: truncate(_of("mpeg4.avi")(path), path),
    "truncated_fragmented.mp4": lambda path: truncate(_of("fragmented.mp4")(path), path),
}
