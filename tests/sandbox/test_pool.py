"""A sandbox's slots: waiting one's turn, clean ones, none lost, and what an episode may hold."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from pyvision_env.config import Limits
from pyvision_env.errors import (
    MediaError,
    SandboxBusyError,
    SandboxStartError,
)
from pyvision_env.sandbox import Sandbox, make_sandbox, videos

SHORT = Limits(code_timeout_s=20, kill_grace_s=1)
GREY = np.full((60, 80, 3), 128, np.uint8)


def test_the_isolation_report_names_what_is_kept_apart(sandbox: Sandbox) -> None:
    report = sandbox.isolation
    assert report.kind == sandbox.kind
    assert report.rung == "userns+landlock"
    assert report.guarantees["container"] == sandbox.kind.startswith("docker")
    given = ("network", "host_files", "other_episodes", "signals", "processes", "syscalls", "disk")
    assert {name: report.guarantees[name] for name in given} == dict.fromkeys(given, True)
    assert {"numpy", "PIL", "matplotlib", "av"} <= set(report.libraries)


def test_an_open_beyond_the_last_slot_is_busy_at_its_deadline_and_then_gets_its_turn() -> None:
    with make_sandbox("local", containers=1, episodes_per_container=1, open_timeout_s=3) as sandbox:
        first = sandbox.start().open()
        began = time.monotonic()
        with pytest.raises(SandboxBusyError, match=r"within 3 s: 1 worker\(s\) of 1 slot\(s\) are full"):
            sandbox.open()
        assert 0.4 < time.monotonic() - began < 20
        first.close()
        with sandbox.open() as second:
            assert second.run("1").text == "1\n"


def test_those_who_wait_are_served_in_order(single: Sandbox) -> None:
    served: list[int] = []

    def wait_my_turn(number: int) -> None:
        with single.open():
            served.append(number)

    with single.open():
        threads = [threading.Thread(target=wait_my_turn, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
            time.sleep(0.05)
        assert served == []
    for thread in threads:
        thread.join(20)
    assert served == [0, 1, 2, 3, 4]


def test_many_threads_share_the_slots(sandbox: Sandbox) -> None:
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        with sandbox.open(images=[GREY]) as episode:
            answers[number] = episode.run(f"print({number} ** 2, image_clue_0.size)").text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == {number: f"{number**2} (80, 60)\n" for number in range(20)}


def test_a_slot_is_clean_when_the_next_episode_gets_it(single: Sandbox) -> None:
    with single.open() as first:
        code = """
import os
os.makedirs('a/b/c'); open('a/b/c/secret', 'w').write('s'); open('.hidden', 'w').write('h')
os.mkdir('closed', 0); os.symlink('/etc/passwd', 'link'); np.leak = 'leak'
print(os.listdir('.'))
"""
        assert "secret" not in first.run(code).text
    with single.open() as second:
        code = "import os\nprint(os.listdir('.'), os.path.exists('../a'), hasattr(np, 'leak'))"
        assert second.run(code).text == "[] False False\n"


def test_a_replaced_runtime_gets_its_slot_back_in_time(single: Sandbox) -> None:
    with single.open() as episode:
        for _ in range(5):
            assert episode.run("import os; os._exit(1)").state_lost
        assert episode.run("'alive'").text == "'alive'\n"


def test_a_picture_that_cannot_be_read_takes_no_slot(single: Sandbox, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(MediaError):
            single.open(images=[tmp_path / "missing.png"])
        with pytest.raises(MediaError):
            single.open(videos=[tmp_path / "missing.mp4"])
        with pytest.raises(MediaError):
            single.open(videos=[b"not a video"])
        with pytest.raises(MediaError):
            single.open(videos=[42])
    with single.open() as episode:
        assert episode.run("1").text == "1\n"


def test_a_large_video_that_vanishes_is_a_media_error_and_not_a_broken_runtime(
    single: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(videos, "LARGEST_COPY", 0)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(small_clip())
    with single.open(videos=[clip]) as episode:
        assert episode.run("import os; os._exit(1)").state_lost
        clip.rename(tmp_path / "away.mp4")
        with pytest.raises(MediaError, match=r"clip\.mp4"):
            episode.run("1")
        (tmp_path / "away.mp4").rename(clip)
        assert episode.run("len(video_clue_0)").text == "20\n"


def test_a_video_may_vanish_once_its_contents_were_taken(single: Sandbox, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(small_clip())
    with single.open(videos=[clip]) as episode:
        clip.unlink()
        assert episode.run("import os; os._exit(1)").state_lost
        assert episode.run("len(video_clue_0)").text == "20\n"


def test_descriptors_above_1023_work(single: Sandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2000:
        pytest.skip("this machine allows no descriptor above 1023")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard))
    taken = [os.open("/dev/null", os.O_RDONLY) for _ in range(1100)]
    try:
        with single.open(images=[GREY]) as episode:
            assert episode.run("image_clue_0.size").text == "(80, 60)\n"
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_running_out_of_descriptors_is_an_infrastructure_error_and_passes(single: Sandbox) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        for images in ([], [GREY]):
            with pytest.raises(SandboxStartError, match="raise `ulimit -n`"):
                single.open(images=images)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with single.open(images=[GREY]) as episode:
        assert episode.run("image_clue_0.size").text == "(80, 60)\n"


def test_produced_pictures_hold_no_descriptors(single: Sandbox) -> None:
    with single.open(images=[GREY]) as episode:
        before = psutil.Process().num_fds()
        for _ in range(5):
            assert len(episode.run("for _ in range(4): image_clue_0.show()").images) == 4
        assert psutil.Process().num_fds() == before


def test_an_episode_never_holds_more_pictures_than_a_fresh_runtime_can_be_given(single: Sandbox) -> None:
    with single.open(images=[GREY] * 195) as episode:
        assert len(episode.run("for _ in range(8): image_clue_0.show()").images) == 5
        assert episode.run("image_clue_0.show()").images == ()
        assert episode.run("import os; os._exit(1)").state_lost
        assert episode.run("image_clue_199.size").text == "(80, 60)\n"


def small_clip() -> bytes:
    from samples import clip

    data = clip().data
    assert data is not None
    return data
