"""Decoded frames shared by the rollouts of a group: the same pixels as without, whatever rollouts or decoders do."""

from __future__ import annotations

import contextlib
import gc
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from pyvision_env.config import Limits
from pyvision_env.sandbox import Episode, Sandbox, frame_cache, make_sandbox
from tests.sandbox.workers import wait_until
from tests.video.barcode_clips import read_number, x264_clip

READ = """
import numpy as np
def numbers(wanted):
    grey = video_clue_0.get_batch(wanted).asnumpy()[..., 1].astype(float)
    blocks = grey.reshape(len(wanted), 2, 48, 8, 20)[:, :, 12:-12, :, 5:-5].mean((2, 4)).reshape(len(wanted), -1)
    codes = ((blocks > 128) << np.arange(16)).sum(1)
    return [int(code & 1023) if code >> 10 == ((code & 1023) * 37 + 11) % 64 else -1 for code in codes]
"""
SHARED = "print(video_clue_0._footage.decoded_by._sock is not None and video_clue_0._footage._index is None)"


def memory_files() -> int:
    """Encoded videos that this process keeps in memory."""
    gc.collect()
    return sum("memfd:video" in str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.exists())


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return x264_clip(tmp_path_factory.mktemp("clips") / "clip.mp4")


@pytest.fixture
def clip(original: Path, tmp_path: Path) -> Path:
    """A video that no test has opened before."""
    return Path(shutil.copy(original, tmp_path / "clip.mp4"))


@pytest.fixture(scope="module")
def local() -> Iterator[Sandbox]:
    with make_sandbox("local", containers=1, episodes_per_container=6, limits=Limits(kill_grace_s=5)) as sandbox:
        yield sandbox.start()


def read(episode: Episode, wanted: list[int]) -> list[int]:
    result = episode.run(f"{READ}\nprint(numbers({wanted}))", timeout=30)
    assert result.error is None, result.text
    return [int(word) for word in result.text.strip("[]\n ").split(",")]


@pytest.fixture
def new_decoder(local: Sandbox) -> Callable[[], psutil.Process]:
    """Finds the decoder that was started since the test began."""
    known = {process.pid for process in decoders()}

    def find() -> psutil.Process:
        assert wait_until(lambda: len({process.pid for process in decoders()} - known) == 1, 30)
        return next(process for process in decoders() if process.pid not in known)

    return find


def decoders() -> list[psutil.Process]:
    """The local decoder processes of this process's sandboxes: they alone have the frames mapped."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error, OSError):
            if "memfd:frames" in Path(f"/proc/{process.pid}/maps").read_text():
                found.append(process)
    return found


def test_rollouts_of_a_group_get_their_frames_from_one_decoder(sandbox: Sandbox, clip: Path) -> None:
    wanted = [3, 88, 41, 3, 60, 0, 89]
    with sandbox.open(videos=[clip]) as first, sandbox.open(videos=[clip]) as second:
        assert read(first, wanted) == read(second, wanted) == wanted
        assert [first.run(SHARED).text, second.run(SHARED).text] == ["True\n"] * 2
        shown = second.frames(indices=[17, 18])
        assert [read_number(image) for image in shown.images] == [17, 18]
        assert first.videos == second.videos
        assert first.videos[0].num_frames == 90
        scaled = first.run("print(decord.VideoReader(video_clue_0, width=80, height=48)[5].shape)")
        assert "decord" in scaled.text
        scaled = first.run("import decord\nprint(decord.VideoReader(video_clue_0, width=80, height=48)[5].shape)")
        assert scaled.text == "(48, 80, 3)\n"


@pytest.mark.docker
def test_the_decoder_serves_rollouts_in_containers_of_their_own(
    sandbox_of: Callable[[str], Sandbox], clip: Path
) -> None:
    strict = sandbox_of("docker-strict")
    with strict.open(videos=[clip]) as alone:
        assert read(alone, [5, 50]) == [5, 50]
    # A container for a decoder pays only once a video is opened again.
    with strict.open(videos=[clip]) as first, strict.open(videos=[clip]) as second:
        assert read(first, [5, 50]) == read(second, [5, 50]) == [5, 50]
        assert [first.run(SHARED).text, second.run(SHARED).text] == ["True\n"] * 2


def test_code_cannot_write_what_other_rollouts_read(sandbox: Sandbox, clip: Path) -> None:
    attack = """
import mmap, os
memory = video_clue_0._footage.decoded_by._memory
size = os.fstat(memory).st_size
def attempt(act):
    try:
        act()
        print("done")
    except OSError as error:
        print(type(error).__name__)
attempt(lambda: mmap.mmap(memory, size))
attempt(lambda: os.pwrite(memory, b"x" * size, 0))
attempt(lambda: os.ftruncate(memory, 0))
attempt(lambda: os.pwrite(os.open(f"/proc/self/fd/{memory}", os.O_RDWR), b"x", 0))
attempt(lambda: mmap.mmap(os.open(f"/proc/self/fd/{memory}", os.O_RDWR), size))
attempt(lambda: os.posix_fallocate(os.open(f"/proc/self/fd/{memory}", os.O_RDWR), size, 4096))
"""
    with sandbox.open(videos=[clip]) as hostile, sandbox.open(videos=[clip]) as other:
        assert read(hostile, [1, 2]) == [1, 2]
        result = hostile.run(attack)
        assert len(result.text.split()) == 6, result.text
        assert "done" not in result.text
        assert read(other, [1, 2, 3]) == [1, 2, 3]
        assert other.run(SHARED).text == "True\n"


@pytest.mark.parametrize(
    "misdeed",
    [
        "sock.send(b'nonsense!')",
        "sock.send(np.array([1, 5, 4_000_000_000], '<u4').tobytes())",
        "sock.send(np.array([1, *range(5000)], '<u4').tobytes())",
        "[sock.send(np.array([n, *range(n % 80, n % 80 + 8)], '<u4').tobytes()) for n in range(3000)]",
        "import socket\nfor n in range(100):\n    socket.send_fds(sock, [b'abcd'], [0, 1, 2])",
        "sock.shutdown(2)",
    ],
    ids=["nonsense", "frame out of range", "too many", "never reads", "descriptors", "hangs up"],
)
def test_what_one_rollout_asks_of_the_decoder_changes_nothing_for_another(
    local: Sandbox, clip: Path, misdeed: str
) -> None:
    with local.open(videos=[clip]) as hostile, local.open(videos=[clip]) as other:
        hostile.run(f"sock = video_clue_0._footage.decoded_by._sock\n{misdeed}", timeout=2)
        assert read(other, [70, 7, 44]) == [70, 7, 44]
        assert other.run(SHARED).text == "True\n"
        # It harmed nobody, itself included: what the decoder no longer gives it decodes by itself.
        assert read(hostile, [70, 7, 45]) == [70, 7, 45]


def test_a_rollout_whose_decoder_was_killed_reads_the_same_frames_by_itself(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process]
) -> None:
    with local.open(videos=[clip]) as episode:
        assert read(episode, [10, 11]) == [10, 11]
        decoder = new_decoder()
        decoder.kill()
        assert read(episode, [10, 12, 80]) == [10, 12, 80]
        assert episode.run(SHARED).text == "False\n"
    assert wait_until(lambda: any(entry.lost for entry in local._frames._entries.values()), 30)
    # The host has noticed; a video that may have killed its decoder does not get another one at once.
    with local.open(videos=[clip]) as later:
        assert read(later, [13]) == [13]
        assert later.run("print(video_clue_0._footage.decoded_by)").text == "None\n"


def test_a_time_out_in_the_middle_of_a_fetch_keeps_the_state_and_later_answers_right(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process]
) -> None:
    with local.open(videos=[clip]) as episode:
        assert read(episode, [1]) == [1]
        decoder = new_decoder()
        decoder.suspend()
        try:
            result = episode.run("kept = 5\nvideo_clue_0.get_batch([20, 30, 40])", timeout=0.5)
        finally:
            decoder.resume()
        assert result.error is not None
        assert result.error.startswith("Timeout")
        assert not result.state_lost
        assert read(episode, [21, 31, 41]) == [21, 31, 41]
        assert episode.run("print(kept)").text == "5\n"


def test_a_decoder_that_hangs_is_given_up_and_the_frames_are_read_here(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process]
) -> None:
    with local.open(videos=[clip]) as episode:
        decoder = new_decoder()
        decoder.suspend()
        try:
            episode.run("video_clue_0._footage.decoded_by._patience_s = 0.2")
            assert read(episode, [33, 66]) == [33, 66]
        finally:
            decoder.send_signal(signal.SIGCONT)


def test_a_decoder_that_does_not_read_is_ended_and_keeps_nobody_waiting(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_cache, "_STUCK_S", 0.5)
    with local.open(videos=[clip]) as episode:
        assert read(episode, [1]) == [1]
        decoder = new_decoder()
        decoder.suspend()
        for number in range(3):
            # Each notices that what the one before it sent lies there unread.
            with local.open(videos=[clip]) as later:
                assert read(later, [number]) == [number]
        assert wait_until(lambda: not decoder.is_running(), 30)
        with local.open(videos=[clip]) as last:
            assert last.run("print(video_clue_0._footage.decoded_by)").text == "None\n"


def test_more_rollouts_than_a_decoder_serves_decode_for_themselves(
    local: Sandbox, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_cache, "_MOST_SEATS", 1)
    with local.open(videos=[clip]) as first, local.open(videos=[clip]) as second:
        assert read(first, [5]) == read(second, [5]) == [5]
        assert first.run(SHARED).text == "True\n"
        assert second.run("print(video_clue_0._footage.decoded_by)").text == "None\n"


def test_without_a_thread_for_its_start_there_is_no_decoder_and_nothing_is_reserved(
    local: Sandbox, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoThreads(threading.Thread):
        def start(self) -> None:
            if self.name == "decoder-start":
                raise RuntimeError("can't start new thread")
            super().start()

    reserved = local._frames.reserved_bytes
    monkeypatch.setattr(frame_cache.threading, "Thread", NoThreads)
    with local.open(videos=[clip]) as episode:
        assert read(episode, [5]) == [5]
        assert local._frames.reserved_bytes == reserved


def test_a_decoder_holds_nothing_that_others_write_to(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process]
) -> None:
    with local.open(videos=[clip]) as episode:
        assert read(episode, [5]) == [5]
        held = Path(f"/proc/{new_decoder().pid}/fd")
        targets = {int(entry.name): str(entry.readlink()) for entry in held.iterdir()}
        assert {targets[fd] for fd in (0, 1, 2)} == {"/dev/null"}
        others = [target for fd, target in targets.items() if fd > 2 and not target.startswith("/proc/")]
        assert {target.partition(":")[0] for target in others} <= {"socket", "/memfd", "/dev/null"}


def test_memory_is_bounded_and_the_video_longest_unwanted_gives_way(clip: Path, tmp_path: Path) -> None:
    clips = [tmp_path / f"{number}.mp4" for number in range(4)]
    for path in clips:
        path.write_bytes(clip.read_bytes())
    with make_sandbox("local", containers=1, frame_cache_mb=16) as sandbox:  # room for two videos of 8 MiB
        cache = sandbox._frames
        with sandbox.open(videos=[clips[0]]) as busy:
            assert read(busy, [9]) == [9]
            for path in clips[1:]:
                with sandbox.open(videos=[path]) as episode:
                    assert read(episode, [9]) == [9]
                    assert episode.run(SHARED).text == "True\n"
                assert cache.reserved_bytes <= 16 << 20
            assert busy.run(SHARED).text == "True\n"
            with sandbox.open(videos=[clips[2]]) as second, sandbox.open(videos=[clips[1]]) as third:
                assert read(third, [9]) == read(second, [9]) == [9]
                assert third.run("print(video_clue_0._footage.decoded_by)").text == "None\n"


def test_memory_of_a_decoder_that_gave_way_counts_until_its_rollouts_are_gone(clip: Path) -> None:
    with make_sandbox("local", containers=1, frame_cache_mb=8) as sandbox:
        with sandbox.open(videos=[clip]) as episode:
            read(episode, [9])
            [spared] = sandbox._frames.give_way()
            sandbox.end(*spared)
            assert sandbox._frames.reserved_bytes == 8 << 20
            assert read(episode, [10]) == [10]
        assert sandbox._frames.reserved_bytes == 0


def test_a_decoder_gives_its_slot_to_an_episode_that_would_have_to_wait(clip: Path) -> None:
    with make_sandbox("local", containers=1, episodes_per_container=2, open_timeout_s=30) as sandbox:
        with sandbox.open(videos=[clip]) as first, sandbox.open(videos=[clip]) as second:
            assert read(first, [4, 5]) == read(second, [4, 5]) == [4, 5]
        with sandbox.open(videos=[clip]) as third:
            assert read(third, [4, 5]) == [4, 5]


def test_decoders_that_have_died_keep_no_episode_from_its_place(clip: Path, tmp_path: Path) -> None:
    other = Path(shutil.copy(clip, tmp_path / "other.mp4"))
    with make_sandbox("local", containers=1, episodes_per_container=2, open_timeout_s=30) as sandbox:
        known = {process.pid for process in decoders()}
        with sandbox.open(videos=[clip]) as episode:
            assert read(episode, [4]) == [4]
        for process in decoders():
            if process.pid not in known:
                process.kill()
        assert wait_until(lambda: any(entry.lost for entry in sandbox._frames._entries.values()), 30)
        with sandbox.open(videos=[other]) as episode:
            assert read(episode, [4]) == [4]
        with sandbox.open() as first, sandbox.open() as second:
            assert first.run("1").text == second.run("1").text == "1\n"


def test_without_a_cache_every_rollout_decodes_for_itself(clip: Path) -> None:
    with make_sandbox("local", containers=1, frame_cache_mb=0) as sandbox, sandbox.open(videos=[clip]) as episode:
        assert read(episode, [4, 5]) == [4, 5]
        assert episode.run("print(video_clue_0._footage.decoded_by)").text == "None\n"


def test_the_same_bytes_are_the_same_video_for_all_rollouts(
    local: Sandbox, clip: Path, new_decoder: Callable[[], psutil.Process]
) -> None:
    local._videos.clear()
    before = memory_files()
    with local.open(videos=[clip.read_bytes()]) as first, local.open(videos=[clip.read_bytes()]) as second:
        assert read(first, [4, 5]) == read(second, [4, 5]) == [4, 5]
        assert new_decoder().is_running()
        assert memory_files() - before == 1
    local._videos.clear()
    first = second = None
    assert wait_until(lambda: memory_files() == before, 20)


def test_a_file_that_is_no_video_gives_the_same_error_as_without_a_decoder(local: Sandbox, tmp_path: Path) -> None:
    junk = tmp_path / "junk.mp4"
    junk.write_bytes(b"not a video at all" * 100)
    with pytest.raises(ValueError, match="video_clue_0 cannot be used: video cannot be opened as a video"):
        local.open(videos=[junk])
