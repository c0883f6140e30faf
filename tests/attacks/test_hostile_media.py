"""Media that are damaged, lie about themselves or have names that are tricks: the caller's errors, or usable."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from samples import clip, plain
from telling import assert_answers

from pyvision_env.errors import MediaError
from pyvision_env.media import encode_png
from pyvision_env.sandbox import Episode, Sandbox, videos

CLIP = clip().data or b""
PNG = encode_png(plain((9, 9, 9)))


def refused(sandbox: Sandbox, **media: object) -> str:
    """The one line that says why media cannot be had."""
    with pytest.raises(MediaError) as caught:
        sandbox.open(**media)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    "data", [b"", PNG[:40], PNG[: len(PNG) // 2], b"not a picture" * 99, PNG[:60] + os.urandom(60) + PNG[120:]]
)
def test_a_damaged_image_is_refused_with_its_reason(sandbox: Sandbox, neighbour: Episode, data: bytes) -> None:
    assert "expected a readable image" in refused(sandbox, images=[data])
    assert_answers(neighbour)


def with_one_frame_in_three(variable: bool) -> bytes:
    """A clip whose frames are shown for different times."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as out:
        stream = out.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), 10 * number, np.uint8), format="rgb24")
            frame.pts = number * number if variable else number
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return buffer.getvalue()


def cut_out_of(data: bytes) -> bytes:
    """The second half of a clip, copied without decoding."""
    buffer = io.BytesIO()
    with av.open(io.BytesIO(data)) as source, av.open(buffer, "w", format="mp4") as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for number, packet in enumerate(source.demux(stream)):
            if packet.dts is not None and number >= 12:
                packet.stream = copy
                out.mux(packet)
    return buffer.getvalue()


def test_odd_but_real_videos_can_be_read(sandbox: Sandbox, neighbour: Episode) -> None:
    odd = [with_one_frame_in_three(variable=True), cut_out_of(CLIP), CLIP]
    with sandbox.open(videos=odd) as episode:
        for number in range(len(odd)):
            result = episode.run(f"Image.fromarray(video_clue_{number}[0].asnumpy()).show()", timeout=20)
            assert (len(result.images), result.error) == (1, None), result
        assert (
            episode.run("[len(v) > 3 for v in (video_clue_0, video_clue_1, video_clue_2)]", timeout=20).text.count(
                "True"
            )
            == 3
        )
    assert_answers(neighbour)


PLAYLIST = "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n"


@pytest.fixture
def secret() -> Iterator[Path]:
    path = Path("/var/tmp") / f"label-{os.getpid()}.txt"
    path.write_text("the answer is B")
    yield path
    path.unlink()


def test_what_is_no_video_is_refused_and_leads_nowhere(sandbox: Sandbox, neighbour: Episode, secret: Path) -> None:
    for data in (
        b"",
        CLIP[:200],
        os.urandom(5000),
        PLAYLIST.format(secret=secret).encode(),
        f"ffconcat version 1.0\nfile '{secret}'\n".encode(),
        b"ffmpeg\nlavfi: movie=" + str(secret).encode(),
        PNG,
    ):
        message = refused(sandbox, videos=[data])
        assert message.startswith("video_clue_0 cannot be used: ")
        assert "the answer" not in message
    assert_answers(neighbour)


def test_only_files_are_handed_over_as_videos(sandbox: Sandbox, neighbour: Episode, tmp_path: Path) -> None:
    """A folder would be a way into the machine where only system calls are filtered; a pipe would never open."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/")
    for path in (
        "",
        tmp_path,
        tmp_path / "pipe",
        tmp_path / "link",
        "/dev/zero",
        "/dev/tty",
        "/proc/self/mem",
        "/proc",
    ):
        assert any(word in refused(sandbox, videos=[path]) for word in ("is not a file", "cannot be opened")), path
    for path in ("none.mp4", "a\0b", "\udcff", "x" * 300, "/etc/passwd/x"):
        assert "cannot be opened" in refused(sandbox, videos=[path]), path
    # A file of the machine given by mistake is the caller's; the code gets its contents as a video or not at all.
    assert "video_clue_0 cannot be used" in refused(sandbox, videos=["/etc/passwd"])
    assert_answers(neighbour)


NAMES = ("-rf.mp4", "a\nb.mp4", "$(touch x).mp4", "%s%n.mp4", "con\x1b[2J.mp4", os.fsdecode(b"\xff\xfe.mp4"), "..mp4")


@pytest.mark.parametrize("copied", [True, False], ids=["copied", "as itself"])
def test_a_name_is_a_name_whatever_it_looks_like(
    sandbox: Sandbox, neighbour: Episode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copied: bool
) -> None:
    if not copied:
        monkeypatch.setattr(videos, "LARGEST_COPY", 0)
    paths = [tmp_path / name for name in NAMES]
    for path in paths:
        path.write_bytes(CLIP)
    with sandbox.open(videos=paths) as episode:
        assert [video.num_frames for video in episode.videos] == [20] * len(NAMES)
        assert episode.run(f"print(video_clue_{len(NAMES) - 1}[3].shape)", timeout=20).text == "(64, 96, 3)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    assert_answers(neighbour)


LOOK = """
import os
names = [os.readlink(f'/proc/self/fd/{fd}') for fd in range(256) if os.path.lexists(f'/proc/self/fd/{fd}')]
names += [line.split(None, 5)[-1] for line in open('/proc/self/maps')] + [repr(video_clue_0), repr(vars(video_clue_0))]
names += [repr(vars(o)) for o in vars(video_clue_0).values() if hasattr(o, '__dict__')]
print('looked', len(names) > 20, [name for name in names if 'label_is' in name])
"""


def test_the_code_learns_neither_name_nor_place_of_a_video(sandbox: Sandbox, tmp_path: Path) -> None:
    """Data sets name files and folders by what is in them."""
    folder = tmp_path / "label_is_basketball"
    folder.mkdir()
    (folder / "label_is_basketball.mp4").write_bytes(CLIP)
    with sandbox.open(videos=[folder / "label_is_basketball.mp4"]) as episode:
        assert episode.run(LOOK, timeout=20).text == "looked True []\n"


def test_rollouts_of_a_group_share_the_contents_but_no_position_or_flags(sandbox: Sandbox, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    find = "import os\nfd = next(n for n in range(3, 256) if os.path.lexists(f'/proc/self/fd/{n}') and "
    find += "os.readlink(f'/proc/self/fd/{n}').startswith('/memfd'))\n"
    assert sandbox._videos.get(path) is sandbox._videos.get(str(path))
    with sandbox.open(videos=[path]) as one, sandbox.open(videos=[path]) as two:
        spoil = "import fcntl\nos.lseek(fd, 77, 0); fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK | os.O_DIRECT)\n"
        assert one.run(find + spoil, timeout=20).error is None
        see = "import fcntl\nprint(os.lseek(fd, 0, 1), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT)"
        assert two.run(find + see, timeout=20).text == "0 0\n"
        assert two.run("print(video_clue_0[5].shape)", timeout=20).text == "(64, 96, 3)\n"
        path.write_bytes(b"another")
        assert one.run("len(video_clue_0[19])", timeout=20).error is None
        assert "cannot be used" in refused(sandbox, videos=[path])
